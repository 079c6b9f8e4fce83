//! A friend's machine as it really is, whatever it says: on or off, alive or gone, and what it keeps.
//!
//! Shares are bits: of each pack, a mask of the share numbers (a pack has at most 20).

use proto::id::ShareId;

use crate::care::audit::{Leaf, Outcome};
use crate::peers::PeerKey;
use crate::simulate::random::Random;
use crate::simulate::scenario::{Fault, Friend};

/// How long what was deleted is kept: DESIGN.md's retention lock.
pub(super) const TRASH_SECS: u64 = 30 * 24 * 3600;

/// An order to delete.
#[derive(Clone, Copy, Debug)]
pub(super) struct Batch {
    /// Signed with the owner's key to prune.
    pub(super) by_owner: bool,
    /// Counts up.
    pub(super) number: u64,
    /// What it is about.
    pub(super) pack: usize,
}

/// What a friend has of one pack, by share number.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Kept {
    /// It says that it has these.
    pub(super) said: u32,
    /// It does, and they are as they were.
    pub(super) intact: u32,
    /// It does, and they are damaged.
    damaged: u32,
    /// When they go, by order of a batch.
    trash_until: Option<u64>,
}

#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) key: PeerKey,
    pub(super) domain: String,
    pub(super) friend: Friend,
    pub(super) is_up: bool,
    pub(super) is_alive: bool,
    /// Still in the owner's list of peers.
    pub(super) is_listed: bool,
    /// When it was last on.
    pub(super) up_secs: u64,
    /// When its uplink has sent what it is asked to send.
    pub(super) link_free_secs: u64,
    pub(super) used_bytes: u64,
    /// When it first kept something not, or not well; and whether that was found.
    pub(super) fault_secs: Option<u64>,
    pub(super) is_found: bool,
    pub(super) kept: Vec<Kept>,
    batch: u64,
}

impl Node {
    pub(super) fn new(number: usize, friend: Friend, now: u64) -> Self {
        Self {
            key: PeerKey(format!("friend:{number}")),
            domain: format!("home {}", friend.household),
            friend,
            is_up: true,
            is_alive: true,
            is_listed: true,
            up_secs: now,
            link_free_secs: now,
            used_bytes: 0,
            fault_secs: None,
            is_found: false,
            kept: Vec::new(),
            batch: 0,
        }
    }

    pub(super) fn answers(&self) -> bool {
        self.is_alive && self.is_up
    }

    /// Was it on at some time since `secs`?
    pub(super) fn answered_since(&self, secs: u64) -> bool {
        self.is_alive && (self.is_up || self.up_secs >= secs)
    }

    pub(super) fn free_bytes(&self) -> u64 {
        self.friend.room_bytes.saturating_sub(self.used_bytes)
    }

    /// What it has of a pack.
    pub(super) fn of_pack(&self, pack: usize) -> Kept {
        self.kept.get(pack).copied().unwrap_or_default()
    }

    /// Takes a share, and says so; refuses what its room has no place for.
    pub(super) fn put(&mut self, pack: usize, index: u8, bytes: u64, now: u64, random: &mut Random) -> bool {
        let bit = 1u32 << index;
        let is_new = self.of_pack(pack).said & bit == 0;
        if is_new && bytes > self.free_bytes() {
            return false;
        }
        if self.kept.len() <= pack {
            self.kept.resize(pack + 1, Kept::default());
        }
        let kept = &mut self.kept[pack];
        kept.said |= bit;
        kept.damaged &= !bit;
        self.used_bytes += if is_new { bytes } else { 0 };
        let (is_kept, is_damaged) = match self.friend.fault {
            Fault::None => (true, false),
            Fault::Drops { share } | Fault::Stalls { share } => (!random.chance(share), false),
            Fault::Corrupts { share } => (true, random.chance(share)),
            Fault::Relays | Fault::Colludes { .. } => (false, false),
        };
        match (is_kept, is_damaged) {
            (true, false) => kept.intact |= bit,
            (true, true) => kept.damaged |= bit,
            (false, _) => {}
        }
        if !is_kept || is_damaged {
            self.fault_secs.get_or_insert(now);
        }
        true
    }

    /// Obeys an order to delete, in 30 days; the only way in which an honest friend's shares go.
    pub(super) fn delete(&mut self, batch: &Batch, now: u64) -> bool {
        if !batch.by_owner || batch.number <= self.batch {
            return false;
        }
        self.batch = batch.number;
        if let Some(kept) = self.kept.get_mut(batch.pack) {
            kept.trash_until = Some(now + TRASH_SECS);
        }
        true
    }

    /// Empties the trash of what has been there for its time. `bytes`: of one share of a pack.
    pub(super) fn expire(&mut self, now: u64, bytes: impl Fn(usize) -> u64) {
        for (pack, kept) in self.kept.iter_mut().enumerate() {
            if kept.trash_until.is_some_and(|until| now >= until) {
                self.used_bytes -= u64::from(kept.said.count_ones()) * bytes(pack);
                *kept = Kept::default();
            }
        }
    }

    /// Answers a challenge. `can_fetch`: could what it does not have of a pack be had from others now?
    pub(super) fn prove(&self, leaves: &[Leaf], can_fetch: impl Fn(usize) -> bool) -> Outcome {
        let (mut missing, mut damaged) = (Vec::new(), Vec::new());
        for leaf in leaves {
            let (pack, index) = place_of(leaf.share);
            let (kept, bit) = (self.of_pack(pack), 1u32 << index);
            if kept.intact & bit != 0 {
                continue;
            }
            let relays = matches!(self.friend.fault, Fault::Relays | Fault::Colludes { .. });
            match (kept.damaged & bit != 0, relays && can_fetch(pack)) {
                (true, _) => damaged.push(leaf.share),
                (false, true) => {}
                (false, false) => missing.push(leaf.share),
            }
        }
        for found in [&mut missing, &mut damaged] {
            found.sort_unstable();
            found.dedup();
        }
        if missing.is_empty() && damaged.is_empty() {
            return Outcome::Success;
        }
        if matches!(self.friend.fault, Fault::Stalls { .. }) {
            return Outcome::Contained;
        }
        Outcome::Failure { missing, damaged }
    }
}

/// The id of a share: looks random in front, and says behind which share it is.
pub(super) fn share_id(pack: usize, index: u8) -> ShareId {
    let mut id = [0; 32];
    let random = Random::new((pack as u64) << 8 | u64::from(index)).bits();
    id[..8].copy_from_slice(&random.to_le_bytes());
    id[8..16].copy_from_slice(&(pack as u64).to_le_bytes());
    id[16] = index;
    ShareId(id)
}

/// Pack and number of a share.
pub(super) fn place_of(share: ShareId) -> (usize, u8) {
    let mut pack = [0; 8];
    pack.copy_from_slice(&share.0[8..16]);
    (u64::from_le_bytes(pack) as usize, share.0[16])
}
