//! Is every share where the catalog believes it to be; on request, is it intact.

use std::collections::{BTreeMap, HashSet};

use proto::id::ShareId;
use proto::share::Share;
use upload_queue::db::DbError;
use upload_queue::packs;
use upload_queue::peers::{Peer, PeerKey};

use crate::engine::Engine;
use crate::engine::heads::other_text;
use crate::failure::{Exit, Failure};
use crate::message::{CheckSummary, Problem, Progress, Summary};
use crate::output::Sink;

/// Ids asked for at once.
const IDS_PER_PAGE: u32 = 4096;

/// What a peer should hold: id and length of the stored form.
type Expected = BTreeMap<PeerKey, Vec<(ShareId, u32)>>;

impl Engine {
    /// `read_percent`: of the shares found, this many percent are read back and verified.
    pub(super) async fn check(&self, read_percent: Option<u64>, sink: &Sink) -> Result<Exit, Failure> {
        let _busy = self.0.busy.lock().await;
        self.connect().await?;
        let (packs, expected) = self.0.db.read(expected)?;
        let mut summary = CheckSummary {
            packs,
            ..CheckSummary::default()
        };
        for (key, shares) in &expected {
            summary.shares_expected += shares.len() as u64;
            let Some(peer) = self.0.peers.get(key) else {
                let error = format!("{} shares are at a peer that is not configured any more", shares.len());
                sink.send(Problem {
                    path: None,
                    peer: Some(key.0.clone()),
                    error,
                })
                .await?;
                continue;
            };
            let found = match listed(&peer).await {
                Ok(found) => found,
                Err(error) => {
                    sink.send(Problem {
                        path: None,
                        peer: Some(peer.name),
                        error: error.to_string(),
                    })
                    .await?;
                    continue;
                }
            };
            self.check_peer(&peer, shares, &found, read_percent, &mut summary, sink)
                .await?;
        }
        let heads = self.check_heads().await?;
        self.say_heads(&heads, sink).await?;
        (summary.heads_expected, summary.heads_found) = (heads.expected, heads.found);
        summary.devices = heads.others.iter().map(other_text).collect();
        summary.ok =
            summary.shares_found == summary.shares_expected && summary.shares_bad == 0 && heads.faults.is_empty();
        let exit = if summary.ok { Exit::Done } else { Exit::UnderProtected };
        sink.send(Summary::Check(summary)).await?;
        Ok(exit)
    }

    async fn check_peer(
        &self,
        peer: &Peer,
        shares: &[(ShareId, u32)],
        found: &HashSet<ShareId>,
        read_percent: Option<u64>,
        summary: &mut CheckSummary,
        sink: &Sink,
    ) -> Result<(), Failure> {
        let missing: Vec<_> = shares
            .iter()
            .filter(|(id, _)| !found.contains(id))
            .map(|(id, _)| *id)
            .collect();
        if !missing.is_empty() {
            let error = format!("{} of {} shares are missing", missing.len(), shares.len());
            sink.send(Problem {
                path: None,
                peer: Some(peer.name.clone()),
                error,
            })
            .await?;
        }
        summary.shares_found += (shares.len() - missing.len()) as u64;
        let mut damaged = Vec::new();
        for (number, (id, stored_bytes)) in shares.iter().filter(|(id, _)| found.contains(id)).enumerate() {
            sink.go_on()?;
            if !is_picked(number, read_percent) {
                continue;
            }
            match read_back(peer, *id, *stored_bytes).await {
                Ok(()) => {}
                Err(error) => {
                    damaged.push(*id);
                    let error = format!("Share {}: {error}", id.short());
                    sink.send(Problem {
                        path: None,
                        peer: Some(peer.name.clone()),
                        error,
                    })
                    .await?;
                }
            }
            summary.bytes_read += u64::from(*stored_bytes);
            let progress = Progress {
                phase: "check".to_owned(),
                bytes_done: summary.bytes_read,
                ..Progress::default()
            };
            sink.progress(progress);
        }
        summary.shares_bad += damaged.len() as u64;
        self.0.db.write(|tx| {
            missing
                .iter()
                .chain(&damaged)
                .try_for_each(|id| packs::record_lost(tx, &peer.key, *id))
        })?;
        Ok(())
    }
}

fn expected(conn: &rusqlite::Connection) -> Result<(u64, Expected), DbError> {
    let rows = packs::rows(conn)?;
    let mut expected = Expected::new();
    for row in &rows {
        let Some(pack) = packs::get(conn, *row)? else { continue };
        let stored_bytes = pack.manifest.shape.share.stored_bytes() as u32;
        for (id, holder) in pack.manifest.shares.iter().zip(&pack.holders) {
            if let Some(holder) = holder {
                expected.entry(holder.clone()).or_default().push((*id, stored_bytes));
            }
        }
    }
    Ok((rows.len() as u64, expected))
}

pub(super) async fn listed(peer: &Peer) -> Result<HashSet<ShareId>, proto::share_store::StoreError> {
    let (mut found, mut after) = (HashSet::new(), None);
    loop {
        let page = peer.store.list(after, IDS_PER_PAGE).await?;
        after = page.last().copied();
        if after.is_none() {
            return Ok(found);
        }
        found.extend(page);
    }
}

/// Spreads the picked ones evenly: number `n` is picked when its share of the percentage crosses a whole number.
fn is_picked(number: usize, percent: Option<u64>) -> bool {
    let share = percent.unwrap_or(0) as f64 / 100.0;
    ((number + 1) as f64 * share).floor() > (number as f64 * share).floor()
}

async fn read_back(peer: &Peer, id: ShareId, stored_bytes: u32) -> Result<(), String> {
    let stored = peer
        .store
        .get(id, 0..stored_bytes)
        .await
        .map_err(|error| error.to_string())?;
    let verified = tokio::task::spawn_blocking(move || Share::from_stored(stored)?.verify(id)).await;
    verified
        .map_err(|error| error.to_string())?
        .map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::is_picked;

    #[test]
    fn a_percentage_picks_that_many_evenly() {
        let count = |percent| (0..1000).filter(|&number| is_picked(number, percent)).count();
        assert_eq!(
            [count(None), count(Some(0)), count(Some(10)), count(Some(100))],
            [0, 0, 100, 1000]
        );
    }
}
