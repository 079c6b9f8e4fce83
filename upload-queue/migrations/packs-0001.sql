-- Packs and where their shares are (upload-queue/src/packs.rs). No row names a spool file that is not durable.
CREATE TABLE peer (
    id  INTEGER PRIMARY KEY,
    key TEXT    NOT NULL UNIQUE         -- PeerKey
);

CREATE TABLE pack (
    id          INTEGER PRIMARY KEY,    -- PackRow
    k           INTEGER NOT NULL,
    held        INTEGER NOT NULL,       -- shares with a holder, so that health needs no look at `share`
    purpose     INTEGER NOT NULL,
    share_bytes INTEGER NOT NULL,       -- data bytes of a share
    pack_id     BLOB    NOT NULL UNIQUE,
    wrapped_key BLOB    NOT NULL,
    manifest    BLOB    NOT NULL
);
CREATE INDEX pack_health ON pack (held, k);

CREATE TABLE share (
    pack     INTEGER NOT NULL,
    idx      INTEGER NOT NULL,          -- place in the manifest
    share_id BLOB    NOT NULL,          -- not unique: with k = 1 all shares of a pack are the same bytes
    planned  INTEGER,                   -- peer it is to go to; none while no failure domain is free
    holder   INTEGER,                   -- peer that has it
    spooled  INTEGER NOT NULL,          -- 1 while the spool has it
    PRIMARY KEY (pack, idx)
) WITHOUT ROWID;
CREATE INDEX share_by_id ON share (share_id);
CREATE INDEX share_by_holder ON share (holder) WHERE holder IS NOT NULL;
CREATE INDEX share_in_spool ON share (pack, idx) WHERE spooled = 1;
