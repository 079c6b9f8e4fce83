-- What scans left out: why something may be missing in a snapshot although it was there.

CREATE TABLE left_out (
    id   INTEGER PRIMARY KEY,
    body BLOB NOT NULL UNIQUE               -- CBOR: proto::log_record::LeftOut
) STRICT;

CREATE TABLE snapshot_left_out (
    snapshot INTEGER PRIMARY KEY,
    left_out INTEGER NOT NULL
) STRICT;
