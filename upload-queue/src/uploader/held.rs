//! What is held back because the steward brings it: the uploader's memory of it, without IO; time is an argument.
//!
//! Nothing is held for ever: what the steward reports as failing, and everything once it is silent or idle for too long,
//! goes back to the lines of its peers.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::packs::PackRow;
use crate::peers::PeerKey;
use crate::steward::StewardPeer;
use crate::uploader::waiting::Waiting;

/// A steward that fails for so long is given up. Chosen: one that was restarted is back by then, and nobody who waits for a
/// backup with the lid half closed minds more.
const SILENT_MAX: Duration = Duration::from_secs(30);
/// A steward that answers, but brings nothing to anybody for so long, is given up. Chosen: one large share at 64 kbit/s.
const IDLE_MAX: Duration = Duration::from_secs(600);
/// How long a steward that was given up gets nothing new. Chosen: as long as it may take to notice that it is idle.
const REST: Duration = IDLE_MAX;
/// First wait between two questions about a pack; doubles while there is no news, up to the longest
/// (docs/protocol/steward.md §1).
const ASK_FIRST: Duration = Duration::from_millis(200);
const ASK_LONGEST: Duration = Duration::from_secs(20);

/// A share that waits for the steward, and the peer it is for.
pub(super) type HeldShare = (PeerKey, Waiting);

#[derive(Clone)]
struct HeldPack {
    waiting: BTreeMap<Waiting, PeerKey>,
    due: Instant,
    wait: Duration,
    is_asking: bool,
}

#[derive(Clone, Default)]
pub(super) struct Held {
    steward: Option<StewardPeer>,
    /// Metadata first, then older packs first, as in the lines.
    packs: BTreeMap<(bool, PackRow), HeldPack>,
    failing_since: Option<Instant>,
    /// When it last took or brought something, or began to be waited for.
    moved_last: Option<Instant>,
    rests_until: Option<Instant>,
}

impl Held {
    /// Names the steward, or that there is none. Returns what was held for another one.
    pub(super) fn set_steward(&mut self, steward: Option<StewardPeer>) -> Vec<HeldShare> {
        let is_same = match (&self.steward, &steward) {
            (Some(old), Some(new)) => old.key == new.key,
            (None, None) => true,
            _ => false,
        };
        self.steward = steward;
        if is_same {
            return Vec::new();
        }
        (self.failing_since, self.rests_until) = (None, None);
        self.release_all()
    }

    /// Whom to ask.
    pub(super) fn steward(&self) -> Option<StewardPeer> {
        self.steward.clone()
    }

    /// Whether a share for `peer` is the steward's to bring.
    pub(super) fn takes(&self, peer: &PeerKey, now: Instant) -> bool {
        let rests = self.rests_until.is_some_and(|until| until > now);
        let steward = self.steward.as_ref().filter(|_| !rests);
        steward.is_some_and(|steward| steward.key != *peer && steward.steward.reaches(peer))
    }

    pub(super) fn hold(&mut self, peer: PeerKey, share: Waiting, now: Instant) {
        if self.packs.values().all(|pack| pack.waiting.is_empty()) {
            self.moved_last = Some(now);
        }
        let pack = self.packs.entry(share.pack_order()).or_insert(HeldPack {
            waiting: BTreeMap::new(),
            due: now,
            wait: ASK_FIRST,
            is_asking: false,
        });
        pack.waiting.insert(share, peer);
    }

    /// The next pack to ask about, which is then nobody else's until `asked`; else when to look again.
    pub(super) fn next(&mut self, now: Instant) -> Result<PackRow, Option<Instant>> {
        if let Some(until) = self.failing_since.and(self.retry_at(now)) {
            return Err(Some(until));
        }
        let mut idle = self.packs.iter_mut().filter(|(_, pack)| !pack.is_asking);
        if let Some(((_, row), pack)) = idle.find(|(_, pack)| pack.due <= now) {
            pack.is_asking = true;
            return Ok(*row);
        }
        let waiting = self.packs.values().filter(|pack| !pack.is_asking);
        Err(waiting.map(|pack| pack.due).min())
    }

    /// A steward that fails is asked about one pack at a time.
    fn retry_at(&self, now: Instant) -> Option<Instant> {
        let is_asking = self.packs.values().any(|pack| pack.is_asking);
        is_asking.then(|| now + ASK_FIRST)
    }

    /// It took a share.
    pub(super) fn took(&mut self, now: Instant) {
        self.moved_last = Some(now);
    }

    /// It answered about a pack; `moved`: it took or brought something.
    pub(super) fn asked(&mut self, row: PackRow, moved: Moved, now: Instant) {
        self.failing_since = None;
        if moved == Moved::Yes {
            self.moved_last = Some(now);
        }
        if let Some(pack) = self.pack(row) {
            pack.is_asking = false;
            pack.wait = match moved {
                Moved::Yes => ASK_FIRST,
                Moved::No => (pack.wait * 2).min(ASK_LONGEST),
            };
            pack.due = now + pack.wait;
        }
    }

    /// It did not answer, or not well.
    pub(super) fn failed(&mut self, row: PackRow, now: Instant) {
        self.failing_since.get_or_insert(now);
        if let Some(pack) = self.pack(row) {
            pack.is_asking = false;
            pack.due = now + ASK_FIRST * 5;
        }
    }

    /// What is to be sent without the steward, because it does nothing: everything, or nothing yet.
    pub(super) fn give_up_if_idle(&mut self, now: Instant) -> Vec<HeldShare> {
        let is_silent = self
            .failing_since
            .is_some_and(|since| now.duration_since(since) >= SILENT_MAX);
        let is_idle = self.moved_last.is_some_and(|last| now.duration_since(last) >= IDLE_MAX);
        let waits = self.packs.values().any(|pack| !pack.waiting.is_empty());
        match waits && (is_silent || is_idle) {
            true => self.give_up(now),
            false => Vec::new(),
        }
    }

    /// The steward gets nothing new for a while; what was held for it is returned.
    pub(super) fn give_up(&mut self, now: Instant) -> Vec<HeldShare> {
        tracing::warn!("the steward is given up for now; shares go to their peers directly");
        (self.failing_since, self.rests_until) = (None, Some(now + REST));
        self.release_all()
    }

    /// These shares of a pack go to their peers directly; the steward is asked about the pack all the same.
    pub(super) fn release(&mut self, row: PackRow, indexes: &[u8]) -> Vec<HeldShare> {
        let Some(pack) = self.pack(row) else { return Vec::new() };
        let released = |share: &Waiting, _: &mut PeerKey| indexes.contains(&share.index);
        let released = pack.waiting.extract_if(.., released);
        released.map(|(share, peer)| (peer, share)).collect()
    }

    /// Nothing more is to be asked about a pack; returns what was still held of it.
    pub(super) fn forget(&mut self, row: PackRow) -> Vec<HeldShare> {
        let found = self.packs.extract_if(.., |key, _| key.1 == row);
        found.flat_map(|(_, pack)| of_pack(pack)).collect()
    }

    fn release_all(&mut self) -> Vec<HeldShare> {
        std::mem::take(&mut self.packs)
            .into_values()
            .flat_map(of_pack)
            .collect()
    }

    /// A share is recorded as delivered.
    pub(super) fn finished(&mut self, share: &Waiting) {
        if let Some(pack) = self.packs.get_mut(&share.pack_order()) {
            pack.waiting.remove(share);
        }
    }

    /// Somebody waits: everything is asked again soon.
    pub(super) fn hurry(&mut self, now: Instant) {
        for pack in self.packs.values_mut() {
            (pack.due, pack.wait) = (now, ASK_FIRST);
        }
    }

    /// A steward that was given up may be tried again.
    pub(super) fn wake(&mut self) {
        self.rests_until = None;
    }

    /// All that is held.
    pub(super) fn waiting(&self) -> impl Iterator<Item = &Waiting> {
        self.packs.values().flat_map(|pack| pack.waiting.keys())
    }

    fn pack(&mut self, row: PackRow) -> Option<&mut HeldPack> {
        let mut found = self.packs.iter_mut().filter(|((_, other), _)| *other == row);
        found.next().map(|(_, pack)| pack)
    }
}

/// Whether an answer brought anything new.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Moved {
    Yes,
    No,
}

fn of_pack(pack: HeldPack) -> impl Iterator<Item = HeldShare> {
    pack.waiting.into_iter().map(|(share, peer)| (peer, share))
}
