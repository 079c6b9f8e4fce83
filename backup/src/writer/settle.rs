//! Settling jobs: a file is protected when all that it takes to read it survives the loss of `tolerate` friends, and a head
//! that peers have leads to it.

use std::collections::HashMap;

use database::DbError;
use proto::id::VersionId;
use proto::manifest::Manifest;
use rusqlite::Connection;
use upload_queue::packs;
use upload_queue::packs::PackRow;

use super::WriteError;
use super::run::Run;
use crate::catalog::content;
use crate::catalog::content::post;

/// Jobs settled in one transaction.
const SETTLE_BATCH: usize = 4096;

impl Run<'_> {
    /// Removes the jobs of versions that are protected by now.
    pub fn settle_safe(&self) -> Result<(), WriteError> {
        let tolerate = self.writer.uploader.tolerate();
        let versions = self.writer.db.read(|conn| protected(conn, tolerate))?;
        for batch in versions.chunks(SETTLE_BATCH) {
            self.writer.db.write(|tx| {
                self.writer.queue.settle(tx, batch)?;
                batch.iter().try_for_each(|version| post::settle(tx, *version))
            })?;
        }
        Ok(())
    }
}

fn protected(conn: &Connection, tolerate: u8) -> Result<Vec<VersionId>, WriteError> {
    let Some(posted) = content::posted(conn)? else {
        return Ok(Vec::new());
    };
    let mut safe = SafePacks {
        conn,
        tolerate,
        known: HashMap::new(),
    };
    if let Some(root) = &posted.body.root {
        let what = "the pack of its newest root";
        let manifest = Manifest::decode(&root.pack.manifest).map_err(|error| WriteError::Missing {
            what: format!("{what} ({error})"),
        })?;
        let pack = packs::find(conn, manifest.pack)?.ok_or_else(|| WriteError::Missing { what: what.to_owned() })?;
        if !safe.is_safe(pack.row)? {
            return Ok(Vec::new());
        }
    }
    let mut versions = Vec::new();
    for version in post::unsettled(conn)? {
        let mut packs = content::packs_of(conn, version)?;
        packs.extend(post::cap_pack(conn, version)?);
        if packs
            .into_iter()
            .try_fold(true, |all, pack| Ok::<_, DbError>(all && safe.is_safe(pack)?))?
        {
            versions.push(version);
        }
    }
    Ok(versions)
}

struct SafePacks<'a> {
    conn: &'a Connection,
    tolerate: u8,
    known: HashMap<PackRow, bool>,
}

impl SafePacks<'_> {
    fn is_safe(&mut self, pack: PackRow) -> Result<bool, DbError> {
        if let Some(safe) = self.known.get(&pack) {
            return Ok(*safe);
        }
        let safe = packs::is_safe(self.conn, pack, self.tolerate)?;
        self.known.insert(pack, safe);
        Ok(safe)
    }
}
