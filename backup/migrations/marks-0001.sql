-- What the owner said of snapshots. Forgotten ones keep theirs: `undelete` brings them back as they were.
CREATE TABLE tag (
    snapshot INTEGER NOT NULL,
    tag      TEXT    NOT NULL,
    PRIMARY KEY (snapshot, tag)
) STRICT, WITHOUT ROWID;

-- Snapshots that no policy forgets.
CREATE TABLE pinned (
    snapshot INTEGER PRIMARY KEY
) STRICT;
