-- Packs that no kept snapshot wants any more: rows stay, so that what the trash of peers has can be brought back.
CREATE TABLE dead_pack (
    pack     INTEGER PRIMARY KEY,       -- PackRow
    since_ns INTEGER NOT NULL
);
