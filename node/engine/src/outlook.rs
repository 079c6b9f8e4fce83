//! How surely everything can be restored, by the planner's closed form, and what would make that surer.

use std::collections::HashMap;

use api::failure::Failure;
use api::message::{Advice, Status};
use database::DbError;
use upload_queue::care::ledger;
use upload_queue::peers::PeerKey;
use upload_queue::planner::{Losses, Uptime, forecast};
use upload_queue::{packs, planner};

use crate::Engine;
use crate::care::measured_uptimes;
use crate::policy::tolerate;

impl Engine {
    /// Fills in the probabilities: those of the pack that is worst off, for all packs of a backup share its friends.
    pub(super) fn set_outlook(&self, status: &mut Status, online: &[PeerKey]) -> Result<(), Failure> {
        let measured = measured_uptimes(&self.0.db.read(ledger::watch)?);
        let peers = self.0.peers.all();
        let uptime_of = |key: &PeerKey| {
            let answers = if online.contains(key) { 1.0 } else { 0.0 };
            measured.get(key).copied().unwrap_or(Uptime::new(answers))
        };
        let domain_of: HashMap<&PeerKey, &str> = peers.iter().map(|peer| (&peer.key, peer.domain.as_str())).collect();
        let all = best_of_domains(peers.iter().map(|peer| (peer.domain.as_str(), uptime_of(&peer.key))));
        let spreads = self.0.db.read::<_, DbError>(packs::spreads)?;
        for spread in &spreads {
            let known = spread
                .peers
                .iter()
                .filter_map(|key| Some((*domain_of.get(key)?, uptime_of(key))));
            let holders = best_of_domains(known);
            let losses = Losses::on_domains(holders.len(), all.len());
            let found = forecast(spread.k.into(), &holders, losses);
            let worst = |old: Option<f64>, new: f64| Some(old.map_or(new, |old| old.min(new)));
            status.p_restorable_now = worst(status.p_restorable_now, found.restorable_now);
            status.p_restorable_48h = worst(status.p_restorable_48h, found.restorable_in_window);
            status.p_loss_year = Some(status.p_loss_year.unwrap_or(0.0).max(found.loss_in_a_year));
        }
        status.uptimes_measured = peers.iter().any(|peer| measured.contains_key(&peer.key));
        // What nobody measured is no reason for advice: only the number of domains is, then.
        let for_advice = peers.iter().map(|peer| {
            let uptime = measured.get(&peer.key).copied().unwrap_or(Uptime::new(1.0));
            (peer.domain.as_str(), uptime)
        });
        status.advice = match planner::advise(tolerate(&self.config()), &best_of_domains(for_advice)) {
            planner::Advice::Enough => None,
            planner::Advice::AnotherFriend => Some(Advice::AnotherFriend),
            planner::Advice::AlwaysOnPeer => Some(Advice::AlwaysOnPeer),
        };
        Ok(())
    }
}

/// A domain answers when one of its peers does: at least as often as its best.
fn best_of_domains<'a>(peers: impl Iterator<Item = (&'a str, Uptime)>) -> Vec<Uptime> {
    let mut best: HashMap<&str, f64> = HashMap::new();
    for (domain, uptime) in peers {
        let known = best.entry(domain).or_insert(0.0);
        *known = known.max(uptime.now());
    }
    best.into_values().map(Uptime::new).collect()
}
