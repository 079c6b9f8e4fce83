-- Packs of disks that the newest head names and no head does which counts as posted.
CREATE TABLE disk_due (
    pack INTEGER PRIMARY KEY            -- PackRow
);

-- A row: the newest head differs by disks alone from one that counted as posted. What leads to backups is where it was.
CREATE TABLE disk_news (
    one INTEGER PRIMARY KEY CHECK (one = 1)
);
