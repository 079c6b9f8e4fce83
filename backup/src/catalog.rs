//! The catalog: what every snapshot contained, and where the content of each file version is.
//!
//! `tree` knows names and metadata, `content` knows versions, chunks and what was posted. Both live in one database
//! with the upload queue, so that a file, its job and its place are recorded in one transaction.

use std::path::Path;

use database::{Db, DbError, Migration, joined};
use upload_queue::schema;

pub mod broken;
pub mod changes;
pub mod content;
pub mod disks;
pub mod find;
pub mod heads;
pub mod protection;
mod shown;
pub mod stats;
pub mod tree;
pub mod trouble;

/// Schema of the catalog: the queue's, then this crate's.
pub const MIGRATIONS: &[Migration] = &ALL;

const ALL: [Migration; schema::MIGRATIONS.len() + OWN.len()] = joined(schema::MIGRATIONS, OWN);

/// This crate's, oldest first.
const OWN: &[Migration] = &[
    Migration {
        component: "tree",
        version: 1,
        sql: include_str!("../migrations/tree-0001.sql"),
    },
    Migration {
        component: "content",
        version: 1,
        sql: include_str!("../migrations/content-0001.sql"),
    },
    Migration {
        component: "forgotten",
        version: 1,
        sql: include_str!("../migrations/forgotten-0001.sql"),
    },
    Migration {
        component: "marks",
        version: 1,
        sql: include_str!("../migrations/marks-0001.sql"),
    },
    Migration {
        component: "moves",
        version: 1,
        sql: include_str!("../migrations/moves-0001.sql"),
    },
    Migration {
        component: "left_out",
        version: 1,
        sql: include_str!("../migrations/left-out-0001.sql"),
    },
    Migration {
        component: "scan",
        version: 1,
        sql: include_str!("../migrations/scan-0001.sql"),
    },
    Migration {
        component: "heads",
        version: 1,
        sql: include_str!("../migrations/heads-0001.sql"),
    },
    Migration {
        component: "heads",
        version: 2,
        sql: include_str!("../migrations/heads-0002.sql"),
    },
    Migration {
        component: "trouble",
        version: 1,
        sql: include_str!("../migrations/trouble-0001.sql"),
    },
    Migration {
        component: "disks",
        version: 1,
        sql: include_str!("../migrations/disks-0001.sql"),
    },
    Migration {
        component: "disks",
        version: 2,
        sql: include_str!("../migrations/disks-0002.sql"),
    },
];

/// Opens `catalog.db`, creating it if it is not there: for a home that is being made.
pub fn open(path: &Path) -> Result<Db, DbError> {
    Db::open(path, MIGRATIONS)
}

/// Opens `catalog.db`, which must be there: an empty one in its place would be a history lost in silence.
pub fn open_existing(path: &Path) -> Result<Db, DbError> {
    Db::open_existing(path, MIGRATIONS)
}

/// An empty catalog in `folder`, gone with its last handle: one that is being rebuilt.
pub fn scratch(folder: &Path) -> Result<Db, DbError> {
    Db::scratch(folder, MIGRATIONS)
}

/// An empty catalog in memory, for a process that has to go on without its own.
pub fn stand_in() -> Result<Db, DbError> {
    Db::in_memory(MIGRATIONS)
}

/// Makes a rebuilt catalog the one at `path`, where none is.
pub fn install(rebuilt: &Db, path: &Path) -> Result<(), DbError> {
    rebuilt.save_as(path, MIGRATIONS)
}

/// Replaces all that a catalog says by what a rebuilt one does, but what is known of how peers behave.
pub fn replace(catalog: &Db, rebuilt: &Db) -> Result<(), DbError> {
    catalog.replace_by(rebuilt, &|table| !table.starts_with("care_"))
}

/// Opens the catalog at `path` without writing anything: on a disk that is full or may only be read. The caller sees to it
/// that no other process writes meanwhile.
pub fn open_to_read(path: &Path) -> Result<Db, DbError> {
    Db::open_to_read(path, MIGRATIONS)
}
