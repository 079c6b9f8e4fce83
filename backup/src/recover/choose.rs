//! Which heads a recovery follows, and in which order: what is trusted most comes first, and the rest is merged into it.

use std::collections::BTreeMap;

use proto::id::DeviceId;
use proto::keys::AccountKeys;
use upload_queue::peers::Peer;

use super::heads::Line;
use super::old::OldHead;
use super::{Aim, RevokedDevice, heads, old};

/// What is followed.
pub(super) struct Chosen {
    pub(super) lines: Vec<Line>,
    /// The devices in it that their account has revoked, with all of their states.
    pub(super) revoked: Vec<RevokedDevice>,
    /// What peers replaced, if they were asked.
    pub(super) old: Option<Vec<OldHead>>,
}

/// The lines of devices that count, then those of revoked ones; of either what was made before a time, if that is wanted.
pub(super) async fn choose(
    mut lines: Vec<Line>,
    aim: &Aim,
    (peers, keys): (&[Peer], &AccountKeys),
    progress: &(dyn Fn(&str) + Send + Sync),
) -> Chosen {
    let mut revoked = heads::take_revoked(&mut lines, aim.word.as_ref(), aim.own);
    if revoked.is_empty() && aim.before_ns.is_none() {
        return Chosen {
            lines,
            revoked: Vec::new(),
            old: None,
        };
    }
    progress("Asking peers for older backups");
    let old = old::ask(peers, keys).await;
    if let Some(before_ns) = aim.before_ns {
        let is_revoked = |old: &&OldHead| revoked.iter().any(|line| line.device == old.open.head.device());
        lines = heads::before(lines, old.iter().filter(|old| !is_revoked(old)), before_ns);
    }
    revoked = heads::all_of(revoked, &old);
    let named = revoked_devices(&revoked);
    if let Some(before_ns) = aim.before_ns {
        revoked = heads::all_before(revoked, before_ns);
    }
    lines.extend(revoked);
    Chosen {
        lines,
        revoked: named,
        old: Some(old),
    }
}

fn revoked_devices(lines: &[Line]) -> Vec<RevokedDevice> {
    let mut devices: BTreeMap<DeviceId, RevokedDevice> = BTreeMap::new();
    for open in lines.iter().filter_map(|line| line.candidates.first()) {
        let device = devices.entry(open.head.device()).or_insert_with(|| RevokedDevice {
            name: open.head.cert.name.clone(),
            states_ns: Vec::new(),
        });
        device.states_ns.extend(open.made_ns());
    }
    devices.into_values().collect()
}
