-- Packs that chunks of mostly dead packs were copied into, with those chunks as CBOR, until each is safe and its chunks are read
-- from it. See backup/src/catalog/content/moves.rs.
CREATE TABLE moving_pack (
    pack  INTEGER PRIMARY KEY,          -- PackRow
    slots BLOB    NOT NULL
) STRICT;
