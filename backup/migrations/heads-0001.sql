-- Heads of this account. See backup/src/catalog/heads.rs.

-- Names of devices that made snapshots or heads.
CREATE TABLE device (
    id   BLOB PRIMARY KEY,              -- DeviceId
    name TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- Heads whose backups this catalog has taken over, in that order: what it forgets of theirs is forgotten.
CREATE TABLE taken_head (
    id     INTEGER PRIMARY KEY,
    hash   BLOB NOT NULL UNIQUE,        -- HeadHash
    device BLOB NOT NULL
) STRICT;

-- The highest number of a head of this device that any peer was seen to have: the next one is higher.
CREATE TABLE head_floor (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    seq INTEGER NOT NULL
) STRICT;

-- What each peer that answered had when it was last looked at.
CREATE TABLE head_seen (
    peer    TEXT NOT NULL,              -- PeerKey
    device  BLOB NOT NULL,              -- DeviceId
    hash    BLOB NOT NULL,              -- HeadHash
    seq     INTEGER NOT NULL,
    made_ns INTEGER,                    -- time of its newest snapshot
    PRIMARY KEY (peer, device)
) STRICT, WITHOUT ROWID;

-- Heads that were gone round because too little of what they lead to could be read: taken in as soon as it can.
CREATE TABLE unread_head (
    hash BLOB PRIMARY KEY,              -- HeadHash
    head BLOB NOT NULL                  -- encoded
) STRICT, WITHOUT ROWID;
