-- Names and metadata over time. An entry row is what a name was from snapshot `since` on, and before snapshot `until`.

CREATE TABLE snapshot (
    seq       INTEGER PRIMARY KEY,
    id        BLOB    NOT NULL,
    device    BLOB    NOT NULL,
    time_ns   INTEGER NOT NULL,
    parent    INTEGER,
    roots     BLOB    NOT NULL,             -- CBOR list of absolute paths
    files     INTEGER NOT NULL,
    bytes     INTEGER NOT NULL,
    published INTEGER NOT NULL DEFAULT 0,   -- its log was published once
    complete  INTEGER NOT NULL DEFAULT 0    -- every version named by any row visible at it had a cap
) STRICT;

-- A directory keeps its row when it goes, so that ids stay and a parent's id is always the smaller one.
CREATE TABLE directory (
    id          INTEGER PRIMARY KEY,
    parent      INTEGER NOT NULL,
    name        BLOB    NOT NULL,
    fingerprint BLOB,                       -- of its listing; NULL: the next scan compares it entry by entry
    marks       INTEGER NOT NULL DEFAULT 0, -- counts amendments, so that a scan under way does not cover one up
    UNIQUE (parent, name)
) STRICT;

-- Directory 1 is `/`. Its own entry has the empty name in directory 0, which is nowhere.
INSERT INTO directory (id, parent, name) VALUES (1, 0, x'');

CREATE TABLE entry (
    directory INTEGER NOT NULL,
    name      BLOB    NOT NULL,
    since     INTEGER NOT NULL,
    until     INTEGER,                      -- NULL: current
    version   INTEGER,                      -- instead of a `Content::Version` in `body`
    suspect   INTEGER NOT NULL DEFAULT 0,   -- 1: may have changed after it was read without showing it
    body      BLOB    NOT NULL,             -- CBOR: kind, metadata, content
    PRIMARY KEY (directory, name, since)
) STRICT, WITHOUT ROWID;

-- Which directories have rows that begin or end at a snapshot: its incremental log without reading the whole tree.
CREATE TABLE change (
    snapshot  INTEGER NOT NULL,
    directory INTEGER NOT NULL,
    PRIMARY KEY (snapshot, directory)
) STRICT, WITHOUT ROWID;

-- Names whose row in a snapshot differs from the snapshot's log as it may have been published.
CREATE TABLE amendment (
    id        INTEGER PRIMARY KEY AUTOINCREMENT,
    snapshot  INTEGER NOT NULL,
    directory INTEGER NOT NULL,
    name      BLOB    NOT NULL
) STRICT;

-- Further names of a version: hard links and moved files. The name that its upload job reads need not be here.
CREATE TABLE alias (
    version   INTEGER NOT NULL,
    directory INTEGER NOT NULL,
    name      BLOB    NOT NULL,
    PRIMARY KEY (version, directory, name)
) STRICT, WITHOUT ROWID;
