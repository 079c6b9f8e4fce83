//! The root of a volume: all that a reader needs who has nothing but where it lies (docs/format/disk.md §4).

use minicbor::{Decode, Encode};
use proto::cap_index::PackRecord;

use super::lineage::{self, Origin, SnapshotEntry, are_voters, is_name};
use super::pack_table::{PackTable, TableRoot};
use super::{CommitError, PackNumber, Span, ids};
use crate::extents::REGION_BLOCKS;
use crate::journal::record::BLOCK_BYTES;

/// The version written, and the only one read.
const VERSION: u16 = 1;
/// Most lists of changes that no leaf has yet: what an opening reads one by one.
pub const PENDING_MAX: usize = 256;
/// Regions on a page of leaves.
pub const PAGE_REGIONS: u64 = 512;
/// Most pages of leaves: a root names them one by one.
const PAGES_MAX: u64 = 512;
/// Blocks that these reach: 64 TiB.
pub const BLOCKS_MAX: u64 = PAGES_MAX * PAGE_REGIONS * REGION_BLOCKS as u64;

const WHAT: &str = "The root";

/// A volume as of a commit.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Root {
    #[n(0)]
    version: u16,
    /// Which volume.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub volume: [u8; 16],
    /// Its name: 1 to `NAME_BYTES_MAX` bytes.
    #[n(2)]
    pub name: String,
    /// Bytes of the device.
    #[n(3)]
    pub size: u64,
    /// The commit; the first one is 1.
    #[n(4)]
    pub commit: u64,
    /// Nanoseconds since 1970 when it was made, by the clock of who made it: for people.
    #[n(5)]
    pub time_ns: i64,
    /// The number of the last record of the writer's journal that is in it.
    #[n(6)]
    pub journal: u64,
    /// Which journal that is: one that does not have this id was written by somebody else.
    #[cbor(n(7), with = "minicbor::bytes")]
    pub journal_id: [u8; 16],
    /// Its packs.
    #[n(8)]
    packs: TableRoot,
    /// Up to this commit all is in leaves.
    #[n(9)]
    pub floor: u64,
    /// Pages of leaves, by their number, ascending: a `LeafPage` each.
    #[n(10)]
    pub pages: Vec<(u32, Span)>,
    /// Lists of changes of the commits above `floor`, in their order; a commit may have several.
    #[n(11)]
    pub pending: Vec<(u64, Span)>,
    /// Who decides which machine writes it: ids of voters (`proto::id::VoterId`), ascending, an odd number up to `VOTERS_MAX` or none.
    /// Chosen when the volume is created, and by whoever replaces them.
    #[cbor(n(12), with = "ids")]
    pub voters: Vec<[u8; 32]>,
    /// States that are kept, by their commits.
    #[n(13)]
    pub snapshots: Vec<SnapshotEntry>,
    /// What the volume was cloned from.
    #[n(14)]
    pub origin: Option<Origin>,
    /// Packs numbered below this are the origin's: this volume never gives them up.
    #[n(15)]
    pub borrowed: PackNumber,
    /// The commit that went back to a snapshot last, 0 if none did: a map of before is of another state.
    #[n(16)]
    pub rolled_back: u64,
    /// The voters before these, as long as a majority of them is needed as well (docs/decisions/0071-other-voters.md); empty: it is not.
    #[cbor(n(17), with = "ids", has_nil)]
    pub leaving: Vec<[u8; 32]>,
}

/// Leaves of regions that follow each other.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode)]
pub struct LeafPage {
    /// By the region's number in the page, ascending: the commit that the leaf says, and where it lies.
    #[n(0)]
    pub leaves: Vec<(u16, u64, Span)>,
}

impl Root {
    /// The root of a volume before its first commit.
    pub fn first(volume: [u8; 16], name: String, size: u64, voters: Vec<[u8; 32]>) -> Self {
        Self {
            version: VERSION,
            volume,
            name,
            size,
            commit: 0,
            time_ns: 0,
            journal: 0,
            journal_id: [0; 16],
            packs: PackTable::default().root(),
            floor: 0,
            pages: Vec::new(),
            pending: Vec::new(),
            voters,
            snapshots: Vec::new(),
            origin: None,
            borrowed: 0,
            rolled_back: 0,
            leaving: Vec::new(),
        }
    }

    /// The root that a clone of this state begins with.
    pub fn of_clone(&self, volume: [u8; 16], name: String, voters: Vec<[u8; 32]>, snapshot: String) -> Self {
        let origin = Origin {
            volume: self.volume,
            snapshot,
            commit: self.commit,
            line: self.line(),
        };
        Self {
            volume,
            name,
            voters,
            journal: 0,
            journal_id: [0; 16],
            snapshots: Vec::new(),
            origin: Some(origin),
            borrowed: self.packs.next(),
            rolled_back: 0,
            leaving: Vec::new(),
            ..self.clone()
        }
    }

    /// The id that leaves of its map say: that of the volume, or of the one at the beginning of all clones before it.
    pub fn line(&self) -> [u8; 16] {
        self.origin.as_ref().map_or(self.volume, |origin| origin.line)
    }

    /// Takes the table of packs as it is now.
    pub fn set_packs(&mut self, packs: &PackTable) {
        self.packs = packs.root();
    }

    /// The table of packs, for a root that was read out of the pack `own`.
    pub fn packs(&self, own: &PackRecord) -> Result<PackTable, CommitError> {
        PackTable::from_root(self.packs.clone(), own)
    }

    /// Its bytes.
    pub fn encode(&self) -> Vec<u8> {
        proto::record::to_cbor(self)
    }

    /// Reads one, and checks its limits.
    pub fn decode(bytes: &[u8]) -> Result<Self, CommitError> {
        let malformed = |reason: &str| Err(CommitError::malformed(WHAT, reason));
        let mut decoder = minicbor::Decoder::new(bytes);
        let version = decoder.array().and_then(|_| decoder.u16());
        match version {
            Ok(VERSION) => {}
            Ok(version) => return Err(CommitError::Version { what: WHAT, version }),
            Err(error) => return malformed(&error.to_string()),
        }
        let root: Self = minicbor::decode(bytes).map_err(|error| CommitError::malformed(WHAT, error))?;
        let blocks = root.size / BLOCK_BYTES as u64;
        if !is_name(&root.name) {
            return malformed("its name is none that a disk can have");
        }
        if !root.size.is_multiple_of(BLOCK_BYTES as u64) || blocks == 0 || blocks > BLOCKS_MAX {
            return malformed("its size is none that a disk can have");
        }
        if root.commit == u64::MAX || root.journal == u64::MAX || root.floor > root.commit {
            return malformed("nothing can come behind it");
        }
        let are_within = root.pages.iter().all(|(number, _)| u64::from(*number) < PAGES_MAX);
        if !are_within || !root.pages.is_sorted_by(|one, other| one.0 < other.0) {
            return malformed("its pages of leaves are too many, or not in order");
        }
        let is_replaced = !root.leaving.is_empty();
        if !are_voters(&root.voters) || !are_voters(&root.leaving) || is_replaced && root.voters.is_empty() {
            return malformed("its voters are none that a disk can have");
        }
        lineage::check(&root.snapshots, root.commit).map_err(|reason| CommitError::malformed(WHAT, reason))?;
        let is_clone = root.origin.as_ref().map(Origin::is_possible);
        let is_cloned = is_clone.unwrap_or(root.borrowed == 0);
        if !is_cloned || root.borrowed > root.packs.next() || root.rolled_back > root.commit {
            return malformed("it comes from a state that there cannot be");
        }
        let pending = root.pending.iter().map(|(commit, _)| *commit);
        let is_within = pending
            .clone()
            .all(|commit| commit > root.floor && commit <= root.commit);
        match root.pending.len() <= PENDING_MAX && pending.is_sorted() && is_within {
            true => Ok(root),
            false => malformed("its lists of changes are too many, or not in order"),
        }
    }
}

impl LeafPage {
    /// Its bytes.
    pub fn encode(&self) -> Vec<u8> {
        proto::record::to_cbor(self)
    }

    /// Reads one.
    pub fn decode(bytes: &[u8]) -> Result<Self, CommitError> {
        const WHAT: &str = "A page of leaves";
        let page: Self = minicbor::decode(bytes).map_err(|error| CommitError::malformed(WHAT, error))?;
        let is_valid = page.leaves.is_sorted_by(|one, other| one.0 < other.0)
            && page.leaves.iter().all(|leaf| u64::from(leaf.0) < PAGE_REGIONS);
        match is_valid {
            true => Ok(page),
            false => Err(CommitError::malformed(WHAT, "its regions are not in order")),
        }
    }
}
