//! What snapshots take.

use api::failure::{Exit, Failure};
use api::message::{StatsSummary, Summary};
use api::output::Sink;
use backup::catalog::stats;

use crate::{Engine, failures};

impl Engine {
    pub(super) async fn stats(&self, snapshot: Option<&str>, sink: &Sink) -> Result<Exit, Failure> {
        let only = snapshot.map(|name| self.find_snapshot(name)).transpose()?;
        let (db, seq) = (self.0.db.clone(), only.as_ref().map(|only| only.record.seq));
        let counting = move || db.read(|conn| stats::stats(conn, seq));
        let found = tokio::task::spawn_blocking(counting)
            .await
            .map_err(failures::worker)??;
        sink.send(Summary::Stats(StatsSummary {
            snapshot: only.map(|only| only.record.id.to_string()),
            snapshots: found.snapshots,
            files: found.files,
            bytes: found.bytes,
            contents: found.contents,
            contents_waiting: found.contents_waiting,
            chunks: found.chunks,
            bytes_deduplicated: found.bytes_deduplicated,
            bytes_compressed: found.bytes_compressed,
            packs: found.packs,
            bytes_stored: found.bytes_stored,
            bytes_unique: found.bytes_unique,
        }))
        .await?;
        Ok(Exit::Done)
    }
}
