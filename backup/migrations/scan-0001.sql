-- What scans know of the tree beside what they record of it. Local to one catalog, and never published.

-- Current entries that were recorded without something: said again by every scan.
CREATE TABLE lacking (
    directory INTEGER NOT NULL,
    name      BLOB    NOT NULL,
    reason    TEXT    NOT NULL,
    PRIMARY KEY (directory, name)
) STRICT, WITHOUT ROWID;

-- Directories that were mount points when they were last listed: emptied or gone, they may only be unmounted.
CREATE TABLE mount_point (
    directory INTEGER PRIMARY KEY
) STRICT;
