-- What is still owed to the grid (upload-queue/src/queue.rs), in score order.
CREATE TABLE job (
    version       INTEGER PRIMARY KEY,  -- VersionId, the same 64 bits read as signed
    path          BLOB    NOT NULL,
    bytes         INTEGER NOT NULL,
    mtime_ns      INTEGER NOT NULL,
    class         TEXT    NOT NULL,
    total         REAL    NOT NULL,     -- the score and its parts, computed once (docs/priority.md)
    recency       REAL    NOT NULL,
    size          REAL    NOT NULL,
    class_points  REAL    NOT NULL,
    ageing        REAL    NOT NULL,
    state         INTEGER NOT NULL,     -- JobState; 3 is Waiting, but not before `not_before_ns`
    attempts      INTEGER NOT NULL DEFAULT 0,
    not_before_ns INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX job_order ON job (state, total DESC, version);
CREATE INDEX job_postponed ON job (not_before_ns) WHERE state = 3;

-- Totals a state, kept by every transaction that moves jobs, so that progress is never counted over a million rows.
CREATE TABLE job_total (
    state INTEGER PRIMARY KEY,
    jobs  INTEGER NOT NULL,
    bytes INTEGER NOT NULL
);
INSERT INTO job_total VALUES (0, 0, 0), (1, 0, 0), (2, 0, 0), (3, 0, 0);
