-- One row a key: what was stored for it, and what its file was like when it was read.
CREATE TABLE objects (
    key BLOB PRIMARY KEY,
    -- 0: sure; 1: the file may have changed after it was read without its times showing it; 2: on its way when last heard of.
    state INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    mtime_ns INTEGER NOT NULL,
    ctime_ns INTEGER NOT NULL,
    inode INTEGER NOT NULL,
    -- BLAKE3 of the file.
    hash BLOB NOT NULL,
    etag TEXT NOT NULL,
    version TEXT,
    -- What headers were asked for.
    headers BLOB NOT NULL,
    -- How it was asked to be compressed: 0 not, 1 gzip, 2 brotli.
    compress INTEGER NOT NULL
) WITHOUT ROWID;

-- Uploads in parts that were begun and not ended: given up by the next run.
CREATE TABLE parts (
    key BLOB NOT NULL,
    upload_id TEXT NOT NULL,
    PRIMARY KEY (key, upload_id)
) WITHOUT ROWID;

-- Whose inventory this is.
CREATE TABLE bound (
    bucket TEXT NOT NULL
);
