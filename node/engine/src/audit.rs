//! Audits that are due: each peer proves some random leaves, and what it cannot prove is missing from then on.

use std::collections::BTreeMap;

use api::clock;
use api::failure::Failure;
use api::output::Sink;
use database::DbError;
use friendnet::share::challenge;
use friendnet::share::challenge::Asked;
use proto::hash_tree::LEAF_BYTES;
use proto::shape::ShareSize;
use upload_queue::care::audit::{Challenge, Held, Outcome, Pace, Rota};
use upload_queue::care::ledger;
use upload_queue::packs;
use upload_queue::peers::Peer;

use crate::Engine;
use crate::home::fill_random;

/// A peer and what it is asked.
struct Audit {
    rota: Rota,
    challenge: Challenge,
    asked: Vec<Asked>,
}

impl Engine {
    /// Challenges every peer whose time has come. Whether one of them failed.
    pub(super) async fn audit_due(&self, sink: &Sink) -> Result<bool, Failure> {
        let pace = Pace {
            every_secs: self.config().audit_interval.0.as_secs().max(1),
            ..Pace::default()
        };
        let mut failed = false;
        for peer in self.0.peers.all() {
            sink.go_on()?;
            let Some(audit) = self.due(&peer, &pace)? else { continue };
            let outcome = self.challenge(&peer, &audit.asked).await?;
            self.settle_audit(&peer, audit, &outcome, &pace)?;
            if let Outcome::Failure { missing, damaged } = &outcome {
                let text = format!(
                    "{} could not prove {} and showed wrong bytes of {} shares it should hold; they will be built anew",
                    peer.name,
                    missing.len(),
                    damaged.len()
                );
                self.tell("audit_failed", text, sink).await;
                failed = true;
            }
        }
        Ok(failed)
    }

    fn due(&self, peer: &Peer, pace: &Pace) -> Result<Option<Audit>, Failure> {
        let now = clock::now_secs();
        let known = self.0.db.read(|conn| ledger::rota(conn, &peer.key))?;
        let Some(rota) = known else {
            let rota = Rota::new(now, pace, random()?);
            self.0
                .db
                .write::<_, DbError>(|tx| ledger::set_rota(tx, &peer.key, &rota))?;
            return Ok(None);
        };
        if !rota.is_due(now) {
            return Ok(None);
        }
        let shares: BTreeMap<_, ShareSize> = self
            .0
            .db
            .read(|conn| packs::shares_at(conn, &peer.key))?
            .into_iter()
            .collect();
        let leaves = |size: &ShareSize| (size.data_bytes() / LEAF_BYTES) as u32;
        let held: Vec<Held> = shares
            .iter()
            .map(|(share, size)| Held {
                share: *share,
                leaves: leaves(size),
            })
            .collect();
        let challenge = rota.challenge(&held, pace);
        let asked = challenge.leaves.iter().map(|leaf| Asked {
            leaf: *leaf,
            size: shares[&leaf.share],
        });
        let asked: Vec<Asked> = asked.collect();
        Ok((!asked.is_empty()).then_some(Audit { rota, challenge, asked }))
    }

    async fn challenge(&self, peer: &Peer, asked: &[Asked]) -> Result<Outcome, Failure> {
        Ok(match (peer.place.device(), self.0.net.get()) {
            (Some(device), Some(net)) => {
                let mut nonce = [0; 32];
                fill_random(&mut nonce)?;
                challenge::friend(&net.peer(device), asked, nonce).await
            }
            (Some(_), None) => Outcome::Offline,
            (None, _) => challenge::place(&*peer.store, asked).await,
        })
    }

    fn settle_audit(&self, peer: &Peer, mut audit: Audit, outcome: &Outcome, pace: &Pace) -> Result<(), Failure> {
        let now = clock::now_secs();
        tracing::info!(peer = peer.name, leaves = audit.asked.len(), ?outcome, "audited");
        audit.rota.settle(now, &audit.challenge, outcome, pace, random()?);
        self.0.db.write::<_, DbError>(|tx| {
            let mut watch = ledger::watch(tx)?;
            watch.audited(&peer.key, now, audit.asked.len(), outcome);
            ledger::set_watch(tx, &watch)?;
            ledger::set_rota(tx, &peer.key, &audit.rota)?;
            if let Outcome::Failure { missing, damaged } = outcome {
                for id in missing.iter().chain(damaged) {
                    packs::record_lost(tx, &peer.key, *id)?;
                }
            }
            Ok(())
        })?;
        Ok(())
    }
}

fn random() -> Result<u64, Failure> {
    let mut bytes = [0; 8];
    fill_random(&mut bytes)?;
    Ok(u64::from_le_bytes(bytes))
}
