//! Is every share that is due where it should be; on request, is it intact.
//!
//! n shares of every pack are due for ever: what a check finds missing is missing at the next one, too.

use std::collections::BTreeSet;

use api::failure::{Exit, Failure};
use api::message::{CheckSummary, Phase, Problem, Progress, Summary};
use api::output::Sink;
use database::DbError;
use proto::id::ShareId;
use upload_queue::care::ledger;
use upload_queue::packs;
use upload_queue::peers::{Peer, PeerKey};

use crate::Engine;
use crate::heads::other_text;
use crate::listing::{Found, ReadBack, Rereads, read_back};

impl Engine {
    /// `read_percent`: of the shares found, this many percent are read back and verified.
    pub(super) async fn check(&self, read_percent: Option<u64>, sink: &Sink) -> Result<Exit, Failure> {
        let _busy = self.0.busy.lock().await;
        self.connect().await?;
        let mut summary = CheckSummary::default();
        if read_percent.is_some() {
            self.check_spool(sink).await?;
        }
        let rereads = if read_percent.is_some() {
            Rereads::All
        } else {
            Rereads::None
        };
        self.learn_disks(&self.0.peers.all()).await?;
        let mut unlisted = BTreeSet::new();
        let watch = self.0.db.read(ledger::watch)?;
        for peer in self.0.peers.all() {
            sink.go_on()?;
            if watch
                .peers
                .get(&peer.key)
                .is_some_and(|known| known.proved_secs.is_some())
            {
                let error = "It was proved not to keep what it took: what it lists counts for nothing";
                sink.send(Problem::of_peer(&peer.name, error)).await?;
                unlisted.insert(peer.key);
                continue;
            }
            match self.look_into(&peer, rereads).await? {
                Ok(found) => self.check_peer(&peer, &found, read_percent, &mut summary, sink).await?,
                Err(error) => {
                    unlisted.insert(peer.key.clone());
                    sink.send(Problem::of_peer(&peer.name, error.to_string())).await?;
                }
            }
        }
        self.count_shares(&unlisted, &mut summary, sink).await?;
        let heads = self.check_heads().await?;
        self.say_heads(&heads, sink).await?;
        (summary.heads_expected, summary.heads_found) = (heads.expected, heads.found);
        let rosters = self.check_rosters().await;
        self.say_rosters(&rosters, sink).await?;
        (summary.rosters_expected, summary.rosters_found) = (rosters.expected, rosters.found);
        summary.devices = heads.others.iter().map(other_text).collect();
        summary.files_lost = self.name_lost(sink).await?;
        summary.ok = summary.shares_found == summary.shares_expected
            && summary.shares_bad + summary.shares_unchecked + summary.files_lost == 0
            && heads.faults.is_empty()
            && rosters.faults.is_empty();
        let exit = if summary.ok { Exit::Done } else { Exit::UnderProtected };
        sink.send(Summary::Check(summary)).await?;
        Ok(exit)
    }

    /// What is due, and what of it is at peers; `unlisted` are those that could not be looked into.
    async fn count_shares(
        &self,
        unlisted: &BTreeSet<PeerKey>,
        summary: &mut CheckSummary,
        sink: &Sink,
    ) -> Result<(), Failure> {
        let (packs, due, holders) = self.0.db.read::<_, DbError>(|conn| {
            let packs = packs::rows(conn)?.len() as u64;
            Ok((packs, packs::shares_due(conn)?, packs::held_by_all(conn)?))
        })?;
        (summary.packs, summary.shares_expected) = (packs, due);
        let held: u64 = holders.iter().map(|(_, shares)| shares).sum();
        let is_unasked = |key: &PeerKey| unlisted.contains(key) || self.0.peers.get(key).is_none();
        let at_unlisted = holders.iter().filter(|(key, _)| is_unasked(key));
        let at_unlisted: u64 = at_unlisted.map(|(_, shares)| shares).sum();
        summary.shares_found = held - at_unlisted;
        summary.shares_unchecked += at_unlisted;
        self.say_nowhere(due.saturating_sub(held), sink).await
    }

    async fn check_peer(
        &self,
        peer: &Peer,
        found: &Found,
        read_percent: Option<u64>,
        summary: &mut CheckSummary,
        sink: &Sink,
    ) -> Result<(), Failure> {
        if found.missing > 0 {
            let error = format!("{} shares that it had are missing", found.missing);
            sink.send(Problem::of_peer(&peer.name, error)).await?;
        }
        summary.shares_bad += found.doubted.len() as u64;
        for (id, reason) in &found.doubted {
            let reason = reason.as_deref().unwrap_or("was damaged when it was last read");
            let error = format!("Share {}: {reason}", id.short());
            sink.send(Problem::of_peer(&peer.name, error)).await?;
        }
        if read_percent.is_some() {
            self.read_some(peer, read_percent, summary, sink).await?;
        }
        Ok(())
    }

    /// Reads shares back that a peer is believed to have. What cannot be read now is not checked, and stays believed.
    async fn read_some(
        &self,
        peer: &Peer,
        read_percent: Option<u64>,
        summary: &mut CheckSummary,
        sink: &Sink,
    ) -> Result<(), Failure> {
        let shares = self.0.db.read(|conn| packs::shares_at(conn, &peer.key))?;
        let (mut unchecked, mut why) = (0u64, String::new());
        let picked = (0..).zip(shares).filter(|(number, _)| is_picked(*number, read_percent));
        for (_, (id, size)) in picked {
            sink.go_on()?;
            let stored_bytes = size.stored_bytes() as u32;
            match read_back(peer, id, stored_bytes).await {
                ReadBack::Sound => {}
                ReadBack::Damaged(reason) => self.note_damage(peer, id, reason, summary, sink).await?,
                ReadBack::Unchecked(reason) => {
                    (unchecked, why) = (unchecked + 1, reason);
                    continue;
                }
            }
            summary.bytes_read += u64::from(stored_bytes);
            let progress = Progress {
                phase: Phase::Check,
                bytes_done: summary.bytes_read,
                ..Progress::default()
            };
            sink.progress(progress);
        }
        if unchecked > 0 {
            summary.shares_unchecked += unchecked;
            let error = format!("{unchecked} shares could not be read and were not checked: {why}");
            sink.send(Problem::of_peer(&peer.name, error)).await?;
        }
        Ok(())
    }

    async fn note_damage(
        &self,
        peer: &Peer,
        id: ShareId,
        reason: String,
        summary: &mut CheckSummary,
        sink: &Sink,
    ) -> Result<(), Failure> {
        summary.shares_bad += 1;
        self.0.db.write(|tx| packs::record_lost(tx, &peer.key, id))?;
        let error = format!("Share {}: {reason}", id.short());
        Ok(sink.send(Problem::of_peer(&peer.name, error)).await?)
    }

    /// Shares that no peer has.
    async fn say_nowhere(&self, shares: u64, sink: &Sink) -> Result<(), Failure> {
        if shares == 0 {
            return Ok(());
        }
        let waiting = self.0.db.read(packs::spooled)?;
        let error = format!(
            "{shares} shares are at no peer ({waiting} wait here to be sent); `gridbackup repair` builds what it can anew"
        );
        Ok(sink.send(Problem::new(error)).await?)
    }

    /// Reads what waits here: what is damaged is on its way no more.
    pub(super) async fn check_spool(&self, sink: &Sink) -> Result<(), Failure> {
        let uploader = self.uploader(&self.config()).await?;
        let lost = uploader
            .verify_spool()
            .await
            .map_err(|error| Failure::from_error(&error))?;
        if lost > 0 {
            let error = format!("{lost} shares that waited here to be sent are damaged");
            sink.send(Problem::new(error)).await?;
        }
        Ok(())
    }
}

/// Spreads the picked ones evenly: number `n` is picked when its share of the percentage crosses a whole number.
fn is_picked(number: usize, percent: Option<u64>) -> bool {
    let share = percent.unwrap_or(0) as f64 / 100.0;
    ((number + 1) as f64 * share).floor() > (number as f64 * share).floor()
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
