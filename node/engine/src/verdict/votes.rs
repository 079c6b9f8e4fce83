//! Virtual disks by those who vote on which machine writes them: without a majority no machine can open one.

use api::message::State;

use super::{Facts, Reason, listed, reason};

/// What is said of voters that are missing.
pub fn of_votes(facts: &Facts) -> Vec<Reason> {
    let mut reasons = Vec::new();
    if facts.disks_shut.count > 0 {
        let names = listed(facts.disks_shut.count, &facts.disks_shut.names);
        let text = format!("Not safe to open: fewer than a majority of their voters are there, of disk {names}");
        let remedy = "`gridbackup disk voters NAME` names them; `gridbackup disk export NAME FILE --committed` reads it meanwhile";
        reasons.push(reason(State::DiskShut, text).remedy(remedy));
    }
    if facts.disks_voter_gone.count > 0 {
        let names = listed(facts.disks_voter_gone.count, &facts.disks_voter_gone.names);
        let text = format!("Not yet safe: voters are peers no more, of disk {names}");
        let remedy = "`gridbackup disk voters NAME --replace` chooses others, and so does serving it";
        reasons.push(reason(State::DiskVoterGone, text).remedy(remedy));
    }
    reasons
}
