-- Where content is. See backup/src/catalog/content.rs.

-- One row a chunk, at most 36 bytes: this is the largest table of all. `place` is pack << 27 | offset (a pack's plaintext
-- is shorter than 128 MiB); `lens` is stored length << 25 | raw length, or just the length of a chunk stored as it is.
CREATE TABLE chunk (
    id BLOB PRIMARY KEY,
    place INTEGER NOT NULL,
    lens INTEGER NOT NULL
) WITHOUT ROWID;

-- Data packs that no index section lists yet, with their chunks as CBOR: a pack's chunks without a scan of `chunk`.
CREATE TABLE unlisted_pack (
    pack INTEGER PRIMARY KEY,
    slots BLOB NOT NULL
);

-- File versions whose content has a place. `cap` is a CBOR list of extents, NULL when the content is inline in `section`.
-- `section` is the index section that carries the cap, NULL while none does.
-- `settled`: the upload job is gone; 0 for the few versions on their way.
CREATE TABLE content (
    version INTEGER PRIMARY KEY,
    cap BLOB,
    section INTEGER,
    settled INTEGER NOT NULL
);
CREATE INDEX content_unsettled ON content (version) WHERE settled = 0;

-- Metadata sections. `published`: 0 named by no root, 1 by the root of the newest head, which too few peers have yet, 2 by that
-- of a head that enough peers have.
CREATE TABLE section (
    id INTEGER PRIMARY KEY,
    pack INTEGER NOT NULL,
    offset INTEGER NOT NULL,
    len INTEGER NOT NULL,
    kind INTEGER NOT NULL,
    published INTEGER NOT NULL
);
CREATE INDEX section_unpublished ON section (published) WHERE published < 2;

-- The newest head. `acknowledged`: so many failure domains have it that it survives the loss of `tolerate` friends.
CREATE TABLE published (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    seq INTEGER NOT NULL,
    hash BLOB NOT NULL,
    head BLOB NOT NULL,
    body BLOB NOT NULL,
    root BLOB NOT NULL,
    acknowledged INTEGER NOT NULL
);

-- The newest head that each peer is known to have.
CREATE TABLE head_peer (
    peer TEXT PRIMARY KEY,
    hash BLOB NOT NULL
);

-- The next file version id.
CREATE TABLE version_counter (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    next INTEGER NOT NULL
);
