-- Snapshots that were forgotten. Their rows stay: `undelete` brings them back.
CREATE TABLE forgotten (
    snapshot INTEGER PRIMARY KEY,
    time_ns  INTEGER NOT NULL           -- 0: learned by recovery
) STRICT;

-- While a catalog is rebuilt: further places of chunks that several packs have.
CREATE TABLE chunk_twin (
    id    BLOB    NOT NULL,
    place INTEGER NOT NULL,
    lens  INTEGER NOT NULL,
    PRIMARY KEY (id, place)
) STRICT, WITHOUT ROWID;
