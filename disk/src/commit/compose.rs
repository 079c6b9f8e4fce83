//! From a batch of the journal to packs and a root (docs/format/disk.md §6). Nothing is visible by it: that is for whoever
//! has the root taken by peers. What was delivered and is then not named is an orphan.

use std::collections::BTreeSet;

use proto::cap_index::PackRecord;
use proto::head::RootRef;

use super::contents::{Closed, Filling};
use super::lineage::SnapshotEntry;
use super::pack_table::{PackFigures, PackTable};
use super::root::{LeafPage, PAGE_REGIONS, PENDING_MAX, Root};
use super::state::Committed;
use super::work::{Leaves, Work};
use super::{PackNumber, Span};
use crate::device::DeviceError;
use crate::extents::{LEAF_BYTES_MAX, SLOT_BLOCKS, Update};
use crate::journal::record::BLOCK_BYTES;
use crate::map::Piece;
use crate::volume::Batch;

/// Of the bytes of a commit, in hundredths, what leaves may take unless more of them are due. Chosen: research on such maps found that
/// two are enough when writes have some order.
const LEAVES_PERCENT: usize = 2;
/// Part of the smallest room that leaves may take however small a commit is. Chosen: most of that pack would be padding.
const LEAVES_SHARE: usize = 4;
/// Lists of changes above which leaves are due: half of what a root may name, so that a large commit has room for its own.
const PENDING_DUE: usize = PENDING_MAX / 2;
/// Room that is kept for pages of the table and the root. Chosen: some dozens of pages, and a root that has all it may.
const ROOT_ROOM: usize = 256 << 10;
/// Room that the largest shape has at least: for the longest leaf, and a root. The smallest large pack has five times as much (docs/format/pack.md §2).
pub const ROOM_BYTES_MIN: usize = LEAF_BYTES_MAX + ROOT_ROOM;
/// Packs of the largest shape that a batch comes to at most. Chosen: a piece may take twice the bytes in a pack that it counts in a batch, and
/// a pack is left by a slot that has no room; so this is well below what a root can name.
const BATCH_PACKS: u64 = PENDING_MAX as u64 / 4;

/// Where packs go. Waits.
pub trait PackSink {
    /// Bytes of plaintext that a pack of each shape holds, ascending; the largest has `ROOM_BYTES_MIN` at least.
    fn rooms(&self) -> Vec<usize>;
    /// Seals a pack with that room, and delivers it: durably, here or at peers.
    fn deliver(&mut self, plain: Vec<u8>, room: usize) -> Result<PackRecord, DeviceError>;
}

/// A commit that waits for being accepted.
pub struct Prepared {
    /// Where its root lies.
    pub at: RootRef,
    /// The volume once it is accepted.
    pub committed: Committed,
    /// What the map has to take in then.
    pub updates: Vec<Update>,
    /// Packs that it brings.
    pub made: Vec<(PackNumber, PackFigures)>,
    /// Bytes of these.
    pub bytes: u64,
}

/// The leaf of a region with all changes up to the last commit, and the commit that it says; none if the region is zeros. Waits.
pub type WriteLeaf<'a> = dyn Fn(u64) -> Result<Option<(u64, Vec<u8>)>, DeviceError> + 'a;

/// The most that a batch may have (`Volume::batch`) so that a root can name all packs of its commit.
pub fn batch_bytes_max(rooms: &[usize]) -> u64 {
    rooms.last().map_or(0, |room| BATCH_PACKS * *room as u64)
}

/// Makes the next commit out of all that a batch has.
pub fn compose(
    last: &Committed,
    write_leaf: &WriteLeaf<'_>,
    batch: &Batch,
    time_ns: i64,
    sink: &mut dyn PackSink,
) -> Result<Prepared, DeviceError> {
    compose_work(last, write_leaf, &Work::of(batch, time_ns), sink)
}

/// Makes the next commit.
pub fn compose_work(
    last: &Committed,
    write_leaf: &WriteLeaf<'_>,
    work: &Work<'_>,
    sink: &mut dyn PackSink,
) -> Result<Prepared, DeviceError> {
    let mut packer = Packer::new(last, sink)?;
    let mut window = Window::default();
    for piece in &work.batch.pieces {
        packer.take_piece(piece, &mut window)?;
    }
    window.flush(&mut packer)?;
    packer.take_moves(work)?;
    packer.finish(write_leaf, work)
}

/// Blocks one after the other that may share a slot: they lie in the same aligned sixteen, so that what is written over and over in one piece
/// stays one slot.
#[derive(Default)]
struct Window {
    start: u64,
    blocks: Vec<u8>,
}

impl Window {
    fn end(&self) -> u64 {
        self.start + (self.blocks.len() / BLOCK_BYTES) as u64
    }

    fn push(&mut self, block: u64, bytes: &[u8], packer: &mut Packer<'_>) -> Result<(), DeviceError> {
        let goes_on = block == self.end() && !block.is_multiple_of(u64::from(SLOT_BLOCKS));
        if !goes_on {
            self.flush(packer)?;
            self.start = block;
        }
        self.blocks.extend_from_slice(bytes);
        Ok(())
    }

    fn flush(&mut self, packer: &mut Packer<'_>) -> Result<(), DeviceError> {
        if !self.blocks.is_empty() {
            packer.slot(self.start, &self.blocks)?;
            self.blocks.clear();
        }
        Ok(())
    }
}

/// Regions whose leaf may be written, each with the first commit that its leaf does not have: 0 if it has to be, because it lies in a victim.
fn leaves_in_question(committed: &Committed, work: &Work<'_>) -> Vec<(u64, u64)> {
    if work.leaves == Leaves::Kept {
        return Vec::new();
    }
    let is_victim = |region: &u64| {
        let leaf = committed.leaves.get(region);
        leaf.is_some_and(|(_, span)| work.victims.contains(&span.pack))
    };
    let in_victims = committed.leaves.keys().filter(|region| is_victim(region));
    let mut regions: Vec<(u64, u64)> = in_victims.map(|region| (0, *region)).collect();
    regions.extend(committed.due().into_iter().filter(|(_, region)| !is_victim(region)));
    regions
}

struct Packer<'a> {
    last: &'a Committed,
    sink: &'a mut dyn PackSink,
    rooms: Vec<usize>,
    /// The room of the largest.
    room: usize,
    commit: u64,
    packs: PackTable,
    filling: Filling,
    updates: Vec<Update>,
    lists: Vec<(u64, Span)>,
    made: Vec<(PackNumber, PackFigures)>,
    bytes: usize,
}

impl<'a> Packer<'a> {
    fn new(last: &'a Committed, sink: &'a mut dyn PackSink) -> Result<Self, DeviceError> {
        let rooms = sink.rooms();
        let room = rooms.last().copied().filter(|room| *room >= ROOM_BYTES_MIN);
        let room = room.ok_or_else(|| DeviceError::Unavailable("packs are too small for a disk".to_owned()))?;
        let commit = last.root.commit + 1;
        let packs = last.packs.clone();
        Ok(Self {
            last,
            sink,
            rooms,
            room,
            commit,
            filling: Filling::new(packs.next(), commit, room),
            packs,
            updates: Vec::new(),
            lists: Vec::new(),
            made: Vec::new(),
            bytes: 0,
        })
    }

    fn take_piece(&mut self, piece: &Piece, window: &mut Window) -> Result<(), DeviceError> {
        let Some(_) = &piece.place else {
            window.flush(self)?;
            return self.trim(piece.start, piece.count);
        };
        let mut at = piece.start;
        let end = piece.start + piece.count;
        let mut blocks = Vec::new();
        while at < end {
            // A bounded part at a time: a piece may be as long as a file of the journal.
            let count = (end - at).min(u64::from(SLOT_BLOCKS) - at % u64::from(SLOT_BLOCKS));
            blocks.resize(count as usize * BLOCK_BYTES, 0);
            piece.read_part(at, &mut blocks)?;
            for (number, block) in (at..).zip(blocks.chunks_exact(BLOCK_BYTES)) {
                match block.iter().all(|byte| *byte == 0) {
                    true => {
                        window.flush(self)?;
                        self.trim(number, 1)?;
                    }
                    false => window.push(number, block, self)?,
                }
            }
            at += count;
        }
        Ok(())
    }

    /// Blocks that are moved, in packs of their own if they are many: they have not changed for longer.
    fn take_moves(&mut self, work: &Work<'_>) -> Result<(), DeviceError> {
        let blocks: u64 = work.moves.iter().map(|run| run.count).sum();
        if blocks * BLOCK_BYTES as u64 >= self.room as u64 / 2 && !self.filling.is_empty() {
            self.next_pack()?;
        }
        for run in work.moves {
            if let Some(blocks) = (work.read)(run)? {
                self.put(|filling| filling.push_move(run.start, &blocks, run.place))?;
            }
        }
        Ok(())
    }

    fn slot(&mut self, start: u64, blocks: &[u8]) -> Result<(), DeviceError> {
        self.put(|filling| filling.push(start, blocks))
    }

    fn put(&mut self, push: impl Fn(&mut Filling) -> bool) -> Result<(), DeviceError> {
        if !push(&mut self.filling) {
            self.next_pack()?;
            if !push(&mut self.filling) {
                return Err(DeviceError::Unavailable("packs are too small for a slot".to_owned()));
            }
        }
        Ok(())
    }

    fn trim(&mut self, start: u64, count: u64) -> Result<(), DeviceError> {
        if !self.filling.trim(start, count) {
            self.next_pack()?;
            self.filling.trim(start, count);
        }
        Ok(())
    }

    /// The pack is full: it goes out, and another one is begun.
    fn next_pack(&mut self) -> Result<(), DeviceError> {
        // This one, and the one with the root.
        if self.lists.len() + 2 > PENDING_MAX {
            return Err(DeviceError::Unavailable(
                "a commit has more packs than a root can name".to_owned(),
            ));
        }
        let next = Filling::new(self.packs.next() + 1, self.commit, self.room);
        let filling = std::mem::replace(&mut self.filling, next);
        let closed = self.close(filling);
        self.deliver(closed)
    }

    fn close(&mut self, filling: Filling) -> Closed {
        self.updates.extend_from_slice(filling.updates());
        let closed = filling.close();
        self.lists.push((self.commit, closed.updates));
        closed
    }

    fn deliver(&mut self, closed: Closed) -> Result<(), DeviceError> {
        let room = self.room_for(closed.len())?;
        let figures = self.figures(&closed, room);
        let record = self.send(closed, room)?;
        self.number(Some(record), figures).map(drop)
    }

    fn room_for(&self, bytes: usize) -> Result<usize, DeviceError> {
        let fits = self.rooms.iter().copied().find(|room| *room >= bytes);
        fits.ok_or_else(|| DeviceError::Unavailable("a commit is too large for its last pack".to_owned()))
    }

    fn figures(&self, closed: &Closed, room: usize) -> PackFigures {
        PackFigures {
            room: room as u32,
            blocks: closed.blocks,
            slot_bytes: closed.slot_bytes,
            commit: self.commit,
        }
    }

    fn send(&mut self, closed: Closed, room: usize) -> Result<PackRecord, DeviceError> {
        self.bytes += room;
        self.sink.deliver(closed.finish(), room)
    }

    fn number(&mut self, record: Option<PackRecord>, figures: PackFigures) -> Result<PackNumber, DeviceError> {
        let number = self.packs.push(record, figures);
        let number = number
            .ok_or_else(|| DeviceError::Unavailable("the disk has used up the numbers of its packs".to_owned()))?;
        self.made.push((number, figures));
        Ok(number)
    }

    /// The last pack: behind its slots leaves that are due, pages, and the root.
    fn finish(mut self, write_leaf: &WriteLeaf<'_>, work: &Work<'_>) -> Result<Prepared, DeviceError> {
        let filling = std::mem::replace(&mut self.filling, Filling::new(0, 0, 0));
        let mut closed = self.close(filling);
        let mut committed = self.last.without_packs();
        let mut pages = BTreeSet::new();
        let in_victims = committed
            .root
            .pages
            .iter()
            .filter(|(_, span)| work.victims.contains(&span.pack));
        pages.extend(in_victims.map(|(page, _)| u64::from(*page)));
        let budget = ((self.bytes + closed.len()) * LEAVES_PERCENT / 100).max(self.rooms[0] / LEAVES_SHARE);
        let due_up_to = self.due_up_to();
        let mut spent = 0;
        for (first, region) in leaves_in_question(&committed, work) {
            // As long as it was: one that has grown, or that is new, may take more once.
            let expected = committed.leaves.get(&region).map_or(0, |(_, span)| span.len as usize);
            if spent + expected > budget && first > due_up_to {
                continue;
            }
            let leaf = write_leaf(region)?;
            let bytes = leaf.as_ref().map_or(0, |(_, leaf)| leaf.len());
            self.make_room(&mut closed, bytes)?;
            match leaf {
                Some((commit, leaf)) => committed.leaves.insert(region, (commit, closed.put(&leaf))),
                None => committed.leaves.remove(&region),
            };
            committed.is_written(region);
            pages.insert(region / PAGE_REGIONS);
            spent += bytes;
        }
        committed.note(self.commit, &self.updates);
        self.put_root(committed, closed, &pages, work)
    }

    /// Begins another pack unless a section of so many bytes has room.
    fn make_room(&mut self, closed: &mut Closed, bytes: usize) -> Result<(), DeviceError> {
        if closed.has_room(bytes) {
            return Ok(());
        }
        let next = Filling::new(self.packs.next() + 1, self.commit, self.room).close();
        let full = std::mem::replace(closed, next);
        self.deliver(full)
    }

    /// The last commit whose list may not be kept, so that its changes have to be in leaves; 0 if all may.
    fn due_up_to(&self) -> u64 {
        let pending = &self.last.root.pending;
        let over = (pending.len() + self.lists.len()).saturating_sub(PENDING_DUE);
        let last = over
            .min(pending.len())
            .checked_sub(1)
            .and_then(|last| pending.get(last));
        last.map_or(0, |(commit, _)| *commit)
    }

    fn put_root(
        mut self,
        mut committed: Committed,
        mut closed: Closed,
        pages: &BTreeSet<u64>,
        work: &Work<'_>,
    ) -> Result<Prepared, DeviceError> {
        let root = &mut committed.root;
        for page in pages {
            let first = page * PAGE_REGIONS;
            let leaves = committed.leaves.range(first..first + PAGE_REGIONS);
            let leaves = leaves.map(|(region, (commit, span))| ((region - first) as u16, *commit, *span));
            let leaves = LeafPage {
                leaves: leaves.collect(),
            };
            root.pages.retain(|(number, _)| u64::from(*number) != *page);
            if !leaves.leaves.is_empty() {
                let encoded = leaves.encode();
                self.make_room(&mut closed, encoded.len())?;
                root.pages.push((*page as u32, closed.put(&encoded)));
            }
        }
        self.put_sets(&mut root.snapshots, &mut closed, work)?;
        self.make_room(&mut closed, ROOT_ROOM)?;
        root.pages.sort_unstable_by_key(|(number, _)| *number);
        // Until its shape is known: no number takes more bytes than this one.
        let figures = self.figures(&closed, u32::MAX as usize);
        self.number(None, figures)?;
        self.packs.write(&mut |page| closed.put(&page));
        root.set_packs(&self.packs);
        (root.commit, root.time_ns, root.journal) = (self.commit, work.time_ns, work.batch.seq);
        committed.root.floor = committed.floor();
        let floor = committed.root.floor;
        let root = &mut committed.root;
        root.pending.extend(std::mem::take(&mut self.lists));
        root.pending.retain(|(commit, _)| *commit > floor);
        let room = self.room_for(closed.len() + root.encode().len())?;
        self.packs.set_own_room(room as u32);
        root.set_packs(&self.packs);
        let encoded = root.encode();
        // What nobody reads must not be accepted by anybody.
        Root::decode(&encoded)?;
        let span = closed.put(&encoded);
        let pack = self.send(closed, room)?;
        self.packs.name_own(&pack);
        committed.packs = self.packs;
        if let Some((_, own)) = self.made.last_mut() {
            own.room = room as u32;
        }
        let (offset, len) = (span.offset, span.len);
        Ok(Prepared {
            at: RootRef { pack, offset, len },
            committed,
            updates: self.updates,
            made: self.made,
            bytes: self.bytes as u64,
        })
    }

    /// Writes sets of packs that snapshots need.
    fn put_sets(
        &mut self,
        snapshots: &mut [SnapshotEntry],
        closed: &mut Closed,
        work: &Work<'_>,
    ) -> Result<(), DeviceError> {
        for (commit, set) in work.sets {
            let mut spans = Vec::new();
            for section in set.encode() {
                self.make_room(closed, section.len())?;
                spans.push(closed.put(&section));
            }
            let mut entries = snapshots.iter_mut();
            if let Some(entry) = entries.find(|entry| entry.commit == *commit) {
                entry.pinned = spans;
            }
        }
        Ok(())
    }
}
