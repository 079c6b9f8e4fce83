//! The map of one region, as bytes (docs/format/disk-map.md §2): on the local disk, in packs and in memory it is the same. Lookups
//! read the bytes as they are; nothing is unpacked.

use super::place::{NO_PACK, Piece, Place, REGION_BLOCKS, push};

/// Bytes before the records.
const HEAD_BYTES: usize = 56;
/// Bytes of a checksum.
pub const SUM_BYTES: usize = 16;
/// Bytes of a run.
const RUN_BYTES: usize = 12;
/// Bytes of a block, where every block has its own record.
const CELL_BYTES: usize = 8;
/// With more runs than this a record for each block takes less.
const RUNS_MAX: usize = REGION_BLOCKS as usize * CELL_BYTES / RUN_BYTES;
/// The longest leaf there is.
pub const LEAF_BYTES_MAX: usize = HEAD_BYTES + REGION_BLOCKS as usize * CELL_BYTES + SUM_BYTES;

const MAGIC: &[u8; 8] = b"GBLEAF\0\0";
const VERSION: u32 = 1;
const FORM_RUNS: u32 = 0;
const FORM_DENSE: u32 = 1;

/// The first 16 bytes of a BLAKE3 hash.
pub type Sum = [u8; SUM_BYTES];

/// A valid leaf.
pub struct Leaf {
    bytes: Vec<u8>,
}

/// Which region's, and what is in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeafId {
    /// The volume.
    pub volume: [u8; 16],
    /// The region: block numbers over 65,536.
    pub region: u64,
}

impl Leaf {
    /// Of pieces in order that do not overlap, as of a commit; none if all of the region is zeros.
    pub(super) fn build(id: &LeafId, commit: u64, pieces: &[Piece]) -> Option<Self> {
        let mut runs = Vec::with_capacity(pieces.len());
        pieces
            .iter()
            .filter(|piece| piece.place.is_some())
            .for_each(|piece| push(&mut runs, *piece));
        if runs.is_empty() {
            return None;
        }
        let is_dense = runs.len() > RUNS_MAX;
        let (form, count) = match is_dense {
            true => (FORM_DENSE, REGION_BLOCKS),
            false => (FORM_RUNS, runs.len() as u32),
        };
        let records = match is_dense {
            true => REGION_BLOCKS as usize * CELL_BYTES,
            false => runs.len() * RUN_BYTES,
        };
        let mut bytes = Vec::with_capacity(HEAD_BYTES + records + SUM_BYTES);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend_from_slice(&form.to_le_bytes());
        bytes.extend_from_slice(&id.volume);
        bytes.extend_from_slice(&id.region.to_le_bytes());
        bytes.extend_from_slice(&commit.to_le_bytes());
        bytes.extend_from_slice(&count.to_le_bytes());
        bytes.extend_from_slice(&[0; 4]);
        match is_dense {
            true => put_cells(&runs, &mut bytes),
            false => put_runs(&runs, &mut bytes),
        }
        let sum = sum_of(&bytes);
        bytes.extend_from_slice(&sum);
        Some(Self { bytes })
    }

    /// Reads a leaf that is to be of this region; none unless it is valid.
    pub fn read(bytes: Vec<u8>, id: &LeafId) -> Option<Self> {
        let leaf = Self { bytes };
        let records = leaf.bytes.len().checked_sub(HEAD_BYTES + SUM_BYTES)?;
        let (body, sum) = leaf.bytes.split_at(HEAD_BYTES + records);
        let is_ours = body.starts_with(MAGIC)
            && leaf.u32_at(8) == VERSION
            && body[16..32] == id.volume
            && leaf.u64_at(32) == id.region
            && body[52..HEAD_BYTES] == [0; 4]
            && sum_of(body) == sum;
        let expected = match leaf.u32_at(12) {
            FORM_RUNS => RUN_BYTES.checked_mul(leaf.count())?,
            FORM_DENSE if leaf.count() == REGION_BLOCKS as usize => CELL_BYTES * REGION_BLOCKS as usize,
            _ => return None,
        };
        (is_ours && records == expected && leaf.has_valid_records()).then_some(leaf)
    }

    /// Each mapping has one form: so the same map has the same bytes everywhere.
    fn has_valid_records(&self) -> bool {
        if self.is_dense() {
            let are_places = (0..REGION_BLOCKS).all(|block| {
                let (pack, index) = self.cell(block);
                pack != NO_PACK || index == 0
            });
            return are_places && self.pieces().len() > RUNS_MAX;
        }
        let is_valid = |at: usize| {
            let run = self.run(at);
            let is_behind = at == 0 || {
                let before = self.run(at - 1);
                before.end <= run.start && !before.goes_on_in(&run)
            };
            let has_room = run.place.is_some_and(|place| place.has_room(run.blocks().into()));
            is_behind && has_room && run.end <= REGION_BLOCKS
        };
        (1..=RUNS_MAX).contains(&self.count()) && (0..self.count()).all(is_valid)
    }

    /// Up to which commit all changes of the region are in it.
    pub fn commit(&self) -> u64 {
        self.u64_at(40)
    }

    /// Its checksum.
    pub fn sum(&self) -> Sum {
        let sum = self.bytes.last_chunk();
        *sum.expect("a leaf is longer than its checksum")
    }

    /// All of it.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// What is mapped of the blocks of a range, in order, behind what is in `into`.
    pub(super) fn find(&self, start: u32, end: u32, into: &mut Vec<Piece>) {
        if self.is_dense() {
            for block in start..end {
                let (pack, index) = self.cell(block);
                if pack != NO_PACK {
                    let place = Some(Place::from_index(pack, index));
                    let (start, end) = (block, block + 1);
                    push(into, Piece { start, end, place });
                }
            }
            return;
        }
        let (mut low, mut high) = (0, self.count());
        while low < high {
            let middle = low + (high - low) / 2;
            match self.run(middle).end <= start {
                true => low = middle + 1,
                false => high = middle,
            }
        }
        let runs = (low..self.count()).map(|at| self.run(at));
        for run in runs.take_while(|run| run.start < end) {
            push(into, run.within(start, end));
        }
    }

    /// All that is mapped.
    pub(super) fn pieces(&self) -> Vec<Piece> {
        let mut pieces = Vec::with_capacity(self.count());
        self.find(0, REGION_BLOCKS, &mut pieces);
        pieces
    }

    fn is_dense(&self) -> bool {
        self.u32_at(12) == FORM_DENSE
    }

    fn count(&self) -> usize {
        self.u32_at(48) as usize
    }

    fn run(&self, number: usize) -> Piece {
        let at = HEAD_BYTES + number * RUN_BYTES;
        let both = self.u32_at(at);
        let (start, more) = (both & 0xffff, both >> 16);
        Piece {
            start,
            end: start + more + 1,
            place: Some(Place::from_index(self.u32_at(at + 4), self.u32_at(at + 8))),
        }
    }

    fn cell(&self, block: u32) -> (u32, u32) {
        let at = HEAD_BYTES + block as usize * CELL_BYTES;
        (self.u32_at(at), self.u32_at(at + 4))
    }

    fn u32_at(&self, at: usize) -> u32 {
        let bytes = self.bytes.get(at..at + 4).and_then(|bytes| bytes.first_chunk());
        bytes.map_or(0, |bytes| u32::from_le_bytes(*bytes))
    }

    fn u64_at(&self, at: usize) -> u64 {
        u64::from(self.u32_at(at)) | u64::from(self.u32_at(at + 4)) << 32
    }
}

fn put_runs(runs: &[Piece], bytes: &mut Vec<u8>) {
    for run in runs {
        let place = run.place.expect("only what is mapped is a run");
        bytes.extend_from_slice(&(run.start as u16).to_le_bytes());
        bytes.extend_from_slice(&((run.blocks() - 1) as u16).to_le_bytes());
        bytes.extend_from_slice(&place.pack.to_le_bytes());
        bytes.extend_from_slice(&place.index().to_le_bytes());
    }
}

fn put_cells(runs: &[Piece], bytes: &mut Vec<u8>) {
    let mut at = 0;
    let zeros = |count: u32, bytes: &mut Vec<u8>| {
        for _ in 0..count {
            bytes.extend_from_slice(&NO_PACK.to_le_bytes());
            bytes.extend_from_slice(&[0; 4]);
        }
    };
    for run in runs {
        let place = run.place.expect("only what is mapped is a run");
        zeros(run.start - at, bytes);
        for block in 0..run.blocks() {
            bytes.extend_from_slice(&place.pack.to_le_bytes());
            bytes.extend_from_slice(&place.after(block).index().to_le_bytes());
        }
        at = run.end;
    }
    zeros(REGION_BLOCKS - at, bytes);
}

/// The checksum of these bytes.
pub fn sum_of(bytes: &[u8]) -> Sum {
    let hash = blake3::hash(bytes);
    *hash.as_bytes().first_chunk().expect("16 of 32 bytes")
}
