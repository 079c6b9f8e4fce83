//! Keeps the grid together: dials members that are away, and tells members that are there what changed in the roster.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use proto::id::DeviceId;
use tokio::task::JoinSet;

use crate::identity;
use crate::join::Membership;
use crate::net::back_off::BackOff;
use crate::net::core::Core;

/// How often members that are away are looked for, and the shortest wait after a failed attempt.
const LOOK_INTERVAL: Duration = Duration::from_secs(15);
/// The longest wait between two attempts to reach one member.
const BACK_OFF_MAX: Duration = Duration::from_secs(300);
/// Changes that come together are told together.
const SETTLE_TIME: Duration = Duration::from_millis(100);
/// Members dialed or talked to at once.
const BUSY_MAX: usize = 8;

/// What is known about one device.
#[derive(Default)]
struct Attention {
    /// Digest of the roster when this device last heard it.
    told: Option<[u8; 32]>,
    back_off: BackOff,
}

/// Runs until the node stops.
pub async fn run(membership: Arc<Membership>) {
    let core = membership.core.clone();
    let mut keeper = Keeper {
        core: core.clone(),
        membership: membership.clone(),
        devices: HashMap::new(),
        busy: HashSet::new(),
        upheavals: 0,
        tasks: JoinSet::new(),
    };
    let mut links = core.links.subscribe();
    let mut roster = membership.members.subscribe();
    let mut look = tokio::time::interval(LOOK_INTERVAL);
    loop {
        tokio::select! {
            () = core.stop.cancelled() => break,
            Ok(()) = links.changed() => tokio::time::sleep(SETTLE_TIME).await,
            Ok(()) = roster.changed() => tokio::time::sleep(SETTLE_TIME).await,
            _ = look.tick() => {}
            Some(done) = keeper.tasks.join_next() => keeper.done(done),
        }
        links.mark_unchanged();
        roster.mark_unchanged();
        keeper.attend().await;
    }
}

struct Keeper {
    core: Arc<Core>,
    membership: Arc<Membership>,
    devices: HashMap<DeviceId, Attention>,
    busy: HashSet<DeviceId>,
    /// As `Links` counted them when waits were last forgiven.
    upheavals: u64,
    tasks: JoinSet<Outcome>,
}

/// How a talk with a device ended, and the roster that it now has, if it ended well.
struct Outcome {
    device: DeviceId,
    told: Option<[u8; 32]>,
}

impl Keeper {
    async fn attend(&mut self) {
        if let Err(error) = self.membership.tell_addresses().await {
            tracing::error!("{error}");
        }
        let upheavals = self.core.links.upheavals();
        if std::mem::replace(&mut self.upheavals, upheavals) != upheavals {
            self.devices
                .values_mut()
                .for_each(|attention| attention.back_off.reset());
        }
        let roster = self.core.roster();
        let digest = roster.digest();
        for device in roster.devices().map(|device| device.cert.device) {
            if self.tasks.len() >= BUSY_MAX {
                break;
            }
            if device != self.core.device && self.needs_attention(device, &digest) && self.busy.insert(device) {
                self.tasks.spawn(talk(self.membership.clone(), device));
            }
        }
    }

    fn needs_attention(&mut self, device: DeviceId, digest: &[u8; 32]) -> bool {
        let connected = identity::peer_id(device).is_some_and(|peer| self.core.links.is_connected(peer));
        let attention = self.devices.entry(device).or_default();
        if !connected {
            // Whatever it hears after it was away, it hears anew.
            attention.told = None;
        }
        attention.back_off.is_over(Instant::now()) && attention.told.as_ref() != Some(digest)
    }

    fn done(&mut self, done: Result<Outcome, tokio::task::JoinError>) {
        let Ok(Outcome { device, told }) = done else { return };
        self.busy.remove(&device);
        let attention = self.devices.entry(device).or_default();
        attention.told = told;
        if told.is_some() {
            attention.back_off.reset();
        } else {
            attention.back_off.failed(Instant::now(), LOOK_INTERVAL, BACK_OFF_MAX);
        }
    }
}

async fn talk(membership: Arc<Membership>, device: DeviceId) -> Outcome {
    match membership.exchange(device).await {
        Ok(digest) => Outcome {
            device,
            told: Some(digest),
        },
        Err(error) => {
            tracing::debug!("{}: {error}", device.short());
            Outcome { device, told: None }
        }
    }
}
