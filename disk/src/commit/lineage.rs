//! What a root says of other states than its own: snapshots that its packs are kept for, and the volume that it was cloned from
//! (docs/format/disk.md §4).

use minicbor::{Decode, Encode};
use proto::head::RootRef;

use super::{Span, ids};

/// Longest name of a volume, in bytes. Chosen: as a device's.
pub const NAME_BYTES_MAX: usize = 64;
/// Longest root that is read.
pub const ROOT_BYTES_MAX: u32 = 1 << 20;
/// Most snapshots of a volume. Chosen: a root has all of them, and each commit writes a root.
pub const SNAPSHOTS_MAX: usize = 64;
/// Most bytes of all entries. Chosen: 64 of some 600 bytes take 40 KiB; with them a root keeps within what a pack has room for.
pub const SNAPSHOTS_BYTES_MAX: usize = 128 << 10;
/// Most volumes that one snapshot is held by.
pub const HELD_MAX: usize = 16;
/// Most sections of the set of packs of a snapshot.
pub const PINNED_MAX: usize = 64;
/// Most voters (docs/decisions/0064-one-writer.md).
pub const VOTERS_MAX: usize = 5;

/// A state of the volume that is kept.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct SnapshotEntry {
    /// What people call it: as a volume's name. No other snapshot has it.
    #[n(0)]
    pub name: String,
    /// The commit that it is. No other snapshot is of the same.
    #[n(1)]
    pub commit: u64,
    /// Nanoseconds since 1970 when the snapshot was taken, by the clock of who took it: for people.
    #[n(2)]
    pub time_ns: i64,
    /// Where the root of that commit lies.
    #[n(3)]
    pub root: RootRef,
    /// Where it is said which packs that state needs, ascending: sections of §5.
    #[n(4)]
    pub pinned: Vec<Span>,
    /// Volumes that were cloned from it and are there, ascending: as long as one is, the snapshot stays.
    #[cbor(n(5), with = "ids")]
    pub held: Vec<[u8; 16]>,
}

/// What a volume was cloned from.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Origin {
    /// The volume.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub volume: [u8; 16],
    /// The name of its snapshot.
    #[n(1)]
    pub snapshot: String,
    /// The commit that this was.
    #[n(2)]
    pub commit: u64,
    /// The first volume of the line: the id that all leaves of the map say.
    #[cbor(n(3), with = "minicbor::bytes")]
    pub line: [u8; 16],
}

/// Whether a volume or a snapshot can have this name.
pub fn is_name(name: &str) -> bool {
    (1..=NAME_BYTES_MAX).contains(&name.len()) && !name.chars().any(char::is_control)
}

/// Whether a volume can have these voters.
pub fn are_voters(voters: &[[u8; 32]]) -> bool {
    let is_odd = voters.is_empty() || voters.len() % 2 == 1;
    voters.len() <= VOTERS_MAX && is_odd && voters.is_sorted_by(|one, other| one < other)
}

/// Whether a root of this commit can have these snapshots.
pub(super) fn check(snapshots: &[SnapshotEntry], commit: u64) -> Result<(), &'static str> {
    let is_whole = |entry: &SnapshotEntry| {
        is_name(&entry.name)
            && entry.commit < commit
            && entry.root.len <= ROOT_BYTES_MAX
            && entry.pinned.len() <= PINNED_MAX
            && entry.held.len() <= HELD_MAX
            && entry.held.is_sorted_by(|one, other| one < other)
    };
    let has_namesake = |(number, entry): (usize, &SnapshotEntry)| {
        let mut before = snapshots.iter().take(number);
        before.any(|other| other.name == entry.name)
    };
    if snapshots.len() > SNAPSHOTS_MAX || bytes(snapshots) > SNAPSHOTS_BYTES_MAX {
        return Err("it has more snapshots than there may be");
    }
    let is_sorted = snapshots.is_sorted_by(|one, other| one.commit < other.commit);
    if !is_sorted || snapshots.iter().enumerate().any(has_namesake) || !snapshots.iter().all(is_whole) {
        return Err("its snapshots are none that there can be, or not in order");
    }
    Ok(())
}

/// Bytes that these take in a root.
pub fn bytes(snapshots: &[SnapshotEntry]) -> usize {
    snapshots.iter().map(|entry| proto::record::to_cbor(entry).len()).sum()
}

impl SnapshotEntry {
    /// Whether a volume that was cloned from it is there.
    pub fn is_held(&self) -> bool {
        !self.held.is_empty()
    }
}

impl Origin {
    /// Whether it is one that there can be.
    pub(super) fn is_possible(&self) -> bool {
        is_name(&self.snapshot) && self.commit > 0
    }
}
