//! Members' machines, which repair without keys while the owner is away.

use proto::id::PackId;

use crate::care::helper::{Turns, rank};
use crate::care::repair::Planner;
use crate::care::standing::Standing;
use crate::peers::PeerKey;
use crate::simulate::state::{By, DAY_SECS, Grid, Helper};

impl Grid<'_> {
    pub(super) fn helper_look(&mut self, number: usize) {
        if !self.nodes[number].answers() || !self.nodes[number].is_listed {
            return;
        }
        let owner = PeerKey("owner".into());
        let others = self
            .nodes
            .iter()
            .enumerate()
            .filter(|(at, node)| *at != number && node.is_listed);
        let mut answers: Vec<_> = others.map(|(_, node)| (node.key.clone(), node.answers())).collect();
        answers.push((owner.clone(), self.owner.is_up()));
        let mut helper = std::mem::take(&mut self.helpers[number]);
        helper.watch.look(self.now, &answers, &self.scenario.patience);
        // An owner that is not counted on is away.
        if helper.watch.standing(&owner, &self.scenario.patience) != Standing::Good {
            if self.now >= helper.planned_secs + DAY_SECS {
                helper.planned_secs = self.now;
                self.help(number, &mut helper);
            }
        } else {
            helper.short.keep(|_| false);
        }
        self.helpers[number] = helper;
    }

    /// Plans the packs of which this member has a share, and carries out those plans whose turn is its own.
    fn help(&mut self, number: usize, helper: &mut Helper) {
        let mut planner = Planner::new(self.places(&helper.watch));
        let own = self.nodes[number].key.clone();
        for pack in 0..self.packs.len() {
            let id = pack_id(pack);
            let copies = self.packs[pack].state.copies.iter();
            let good = |key: &PeerKey| helper.watch.standing(key, &self.scenario.patience) != Standing::Lost;
            let mut holders: Vec<PeerKey> = copies.map(|copy| copy.peer.clone()).filter(good).collect();
            holders.sort_unstable();
            holders.dedup();
            let rank = rank(id, &holders, &own).filter(|_| !self.packs[pack].is_retired);
            let Some(rank) = rank else { continue };
            let plan = planner.plan(&self.packs[pack].state);
            if plan.puts.is_empty() {
                helper.short.keep(|other| *other != id);
            } else if helper.short.is_turn(id, rank, self.now, &Turns::default()) {
                self.carry_out(pack, &plan, By::Friend(number));
            }
        }
    }
}

/// The id that members know a pack by.
fn pack_id(pack: usize) -> PackId {
    let mut id = [0; 32];
    id[..8].copy_from_slice(&(pack as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes());
    PackId(id)
}
