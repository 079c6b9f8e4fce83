-- When all shares were last looked after, by a daemon or by a run without one.
CREATE TABLE care_repair (
    id            INTEGER PRIMARY KEY CHECK (id = 1),
    repaired_secs INTEGER NOT NULL
);
