-- What is known of each peer (upload-queue/src/care/ledger.rs): does it answer, does it keep what it took.
CREATE TABLE care_watch (
    id          INTEGER PRIMARY KEY CHECK (id = 1),
    looked_secs INTEGER NOT NULL        -- when the peers were last looked at
);

CREATE TABLE care_peer (
    key           TEXT PRIMARY KEY,     -- PeerKey
    seen_secs     INTEGER,              -- when it last answered
    silent_secs   INTEGER NOT NULL,     -- listened to since then
    watched_secs  REAL    NOT NULL,
    up_secs       REAL    NOT NULL,
    success       INTEGER NOT NULL,     -- audits, by outcome
    failure       INTEGER NOT NULL,
    offline       INTEGER NOT NULL,
    left_open     INTEGER NOT NULL,
    unknown       INTEGER NOT NULL,
    sound         REAL    NOT NULL,     -- leaves, fading
    unsound       REAL    NOT NULL,
    contained     INTEGER NOT NULL,     -- in a row
    late          INTEGER NOT NULL,     -- in a row
    proved_secs   INTEGER               -- when it was proved not to keep what it took
) WITHOUT ROWID;

CREATE TABLE care_rota (
    key      TEXT PRIMARY KEY,          -- PeerKey
    secret   INTEGER NOT NULL,          -- u64, stored as the i64 with the same bits
    position INTEGER,                   -- likewise
    due_secs INTEGER NOT NULL,
    closer   INTEGER NOT NULL,
    failed   INTEGER NOT NULL
) WITHOUT ROWID;

-- Shares that a peer could not give or prove: its word that it has them counts for nothing until they are sent again.
CREATE TABLE care_bad (
    key      TEXT NOT NULL,             -- PeerKey
    share_id BLOB NOT NULL,
    PRIMARY KEY (key, share_id)
) WITHOUT ROWID;
