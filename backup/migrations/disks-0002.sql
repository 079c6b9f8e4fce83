-- Of which virtual disk a pack is (backup/src/catalog/disks.rs); packs of disks that were made before this was noted are not here.
CREATE TABLE disk_pack (
    pack   INTEGER PRIMARY KEY,         -- PackRow
    volume BLOB    NOT NULL
);
CREATE INDEX disk_pack_of ON disk_pack (volume);

-- Who looks after the packs of a disk.
CREATE TABLE disk_known (
    volume  BLOB    NOT NULL PRIMARY KEY,
    is_here INTEGER NOT NULL            -- 1: this machine, and disk_pack has all of them; 0: another one, which writes the disk
) WITHOUT ROWID;
