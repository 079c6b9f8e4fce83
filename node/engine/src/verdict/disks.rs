//! What the verdict says of virtual disks.

use api::message::State;

use super::{Facts, Reason, count, listed, reason};

pub(super) fn reasons(facts: &Facts) -> Vec<Reason> {
    let mut reasons = Vec::new();
    if facts.disks_lost > 0 {
        let packs = count(facts.disks_lost, "pack is concerned", "packs are concerned");
        let text = format!("Not safe: blocks of disks cannot be read, too few shares are left: {packs}");
        reasons.push(reason(State::DiskLost, text).remedy("`gridbackup disk check` names what is concerned"));
    }
    if facts.disks_ahead.count > 0 {
        let names = listed(facts.disks_ahead.count, &facts.disks_ahead.names);
        let text = format!("Not yet safe: what was written last is on this machine alone, of disk {names}");
        let remedy = "`gridbackup disk flush NAME` puts it on peers; `gridbackup disk info NAME` says what keeps it";
        reasons.push(reason(State::DiskAhead, text).remedy(remedy));
    }
    if facts.disks_at_risk > 0 {
        let packs = count(facts.disks_at_risk, "pack is concerned", "packs are concerned");
        let text = format!("Not yet safe: blocks of disks are on too few peers: {packs}");
        reasons
            .push(reason(State::DiskAtRisk, text).remedy("`gridbackup repair` builds shares anew where there is room"));
    }
    if facts.disks_unknown > 0 {
        let disks = count(facts.disks_unknown, "disk is", "disks are");
        let text = format!("Not known to be safe: how well {disks} kept was not looked up on this machine yet");
        let remedy = "`gridbackup check` does, with as many peers up as there are; so does whoever serves the disk";
        reasons.push(reason(State::DiskUnknown, text).remedy(remedy));
    }
    reasons
}
