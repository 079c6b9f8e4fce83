-- What was not done, until it is: whoever asks days later still sees it. See backup/src/catalog/trouble.rs.
CREATE TABLE trouble (
    kind     TEXT    NOT NULL,
    subject  BLOB    NOT NULL,          -- a path, or a peer's key
    reason   TEXT    NOT NULL,
    since_ns INTEGER NOT NULL,          -- first seen, without a good run since
    seen_ns  INTEGER NOT NULL,          -- last seen
    PRIMARY KEY (kind, subject)
) STRICT, WITHOUT ROWID;

-- The newest runs of this home, whoever asked for them.
CREATE TABLE run (
    id       INTEGER PRIMARY KEY AUTOINCREMENT,
    began_ns INTEGER NOT NULL,
    ended_ns INTEGER,                   -- NULL: under way, or cut off
    exit     INTEGER,                   -- its exit code
    error    TEXT,                      -- why it failed as a whole
    whole    INTEGER NOT NULL           -- 1: the folders of the config; 0: paths that were named
) STRICT;
