//! What a pack of a volume holds (docs/format/disk.md §1): how many slots there are and how long each is, the slots with up to
//! sixteen blocks each, and behind them sections: what the pack changes, leaves of the map, pages of the table, a root.

use std::ops::Range;

use super::cursor::Cursor;
use super::root::BLOCKS_MAX;
use super::{CommitError, PackNumber, Span};
use crate::extents::{Place, Run, SLOT_BLOCKS, SLOTS_MAX, Update};
use crate::journal::record::BLOCK_BYTES;

const MAGIC: &[u8; 8] = b"GBDISK\0\0";
const VERSION: u16 = 1;
/// Bytes before the list of slots.
pub const HEAD_BYTES: usize = 32;
/// Bytes of a slot in the list.
const SLOT_HEAD_BYTES: usize = 4;
/// Bytes of an update.
const UPDATE_BYTES: usize = 32;
/// Bytes before the updates.
pub const UPDATES_HEAD_BYTES: usize = 16;
/// Bytes of a slot as it is stored, at most.
const SLOT_BYTES_MAX: usize = SLOT_BLOCKS as usize * BLOCK_BYTES;
/// A slot is stored as it is unless packing it saves an eighth. Chosen: less is not worth the time of every reading.
const WORTH_SHARE: usize = 8;

// docs/format/disk.md §2
const KIND_MAP: u64 = 1;
const KIND_TRIM: u64 = 2;
const KIND_MOVE: u64 = 3;

const WHAT: &str = "A pack";
const WHAT_UPDATES: &str = "A list of changes";

// docs/format/disk.md §1: blocks - 1 in 4 bits, packed in 1 bit, bytes in 17 bits.
const BYTES_BITS: u32 = 17;
const PACKED_BIT: u32 = BYTES_BITS;
const BLOCKS_SHIFT: u32 = BYTES_BITS + 1;

/// A pack that is being filled.
pub struct Filling {
    number: PackNumber,
    commit: u64,
    room: usize,
    slots: Vec<u32>,
    stored: Vec<u8>,
    updates: Vec<Update>,
}

/// A pack with all its slots, to which sections are added.
pub struct Closed {
    number: PackNumber,
    room: usize,
    plain: Vec<u8>,
    /// Where its changes are listed.
    pub updates: Span,
    /// Blocks in its slots.
    pub blocks: u32,
    /// Bytes of its slots.
    pub slot_bytes: u32,
}

impl Filling {
    /// An empty pack of a commit, with room for so many bytes of plaintext.
    pub fn new(number: PackNumber, commit: u64, room: usize) -> Self {
        Self {
            number,
            commit,
            room,
            slots: Vec::new(),
            stored: Vec::new(),
            updates: Vec::new(),
        }
    }

    /// Bytes of plaintext so far, with the list of changes.
    pub fn len(&self) -> usize {
        HEAD_BYTES
            + self.slots.len() * SLOT_HEAD_BYTES
            + self.stored.len()
            + UPDATES_HEAD_BYTES
            + self.updates.len() * UPDATE_BYTES
    }

    /// Whether nothing was put into it.
    pub fn is_empty(&self) -> bool {
        self.updates.is_empty()
    }

    /// Puts in one to sixteen whole blocks that lie one after the other; false, and nothing done, if there is no room for them.
    pub fn push(&mut self, start: u64, blocks: &[u8]) -> bool {
        let Some(place) = self.store(blocks) else { return false };
        let count = (blocks.len() / BLOCK_BYTES) as u64;
        match self.updates.last_mut() {
            Some(Update::Map(run)) if run.end() == start && run.place.after(run.count as u32) == place => {
                run.count += count
            }
            _ => self.updates.push(Update::Map(Run { start, count, place })),
        }
        true
    }

    /// The same, of blocks that lie elsewhere: what was written over meanwhile stays so.
    pub fn push_move(&mut self, start: u64, blocks: &[u8], from: Place) -> bool {
        let Some(place) = self.store(blocks) else { return false };
        let count = (blocks.len() / BLOCK_BYTES) as u64;
        match self.updates.last_mut() {
            Some(Update::Move { to, from: first })
                if to.end() == start
                    && to.place.after(to.count as u32) == place
                    && first.pack == from.pack
                    && first.has_room(to.count + count)
                    && first.after(to.count as u32) == from =>
            {
                to.count += count
            }
            _ => self.updates.push(Update::Move {
                to: Run { start, count, place },
                from,
            }),
        }
        true
    }

    /// Puts blocks into a slot; none, and nothing done, if there is no room for them and a change.
    fn store(&mut self, blocks: &[u8]) -> Option<Place> {
        let count = blocks.len() / BLOCK_BYTES;
        debug_assert!((1..=SLOT_BLOCKS as usize).contains(&count) && blocks.len().is_multiple_of(BLOCK_BYTES));
        let packed = lz4_flex::block::compress(blocks);
        let is_worth_it = packed.len() <= blocks.len() - blocks.len() / WORTH_SHARE;
        let stored = if is_worth_it { &packed } else { blocks };
        if self.len() + SLOT_HEAD_BYTES + stored.len() + UPDATE_BYTES > self.room {
            return None;
        }
        let place = Place::new(self.number, self.slots.len() as u32, 0)?;
        let head = ((count as u32 - 1) << BLOCKS_SHIFT) | (u32::from(is_worth_it) << PACKED_BIT) | stored.len() as u32;
        self.slots.push(head);
        self.stored.extend_from_slice(stored);
        Some(place)
    }

    /// Lists blocks that are zeros from now on; false, and nothing done, if there is no room for that.
    pub fn trim(&mut self, from: u64, blocks: u64) -> bool {
        match self.updates.last_mut() {
            Some(Update::Trim { start, count }) if *start + *count == from => {
                *count += blocks;
                true
            }
            _ => self.update(Update::Trim {
                start: from,
                count: blocks,
            }),
        }
    }

    /// Lists another change; false, and nothing done, if there is no room for it.
    pub fn update(&mut self, update: Update) -> bool {
        let has_room = self.len() + UPDATE_BYTES <= self.room;
        if has_room {
            self.updates.push(update);
        }
        has_room
    }

    /// What it changes.
    pub fn updates(&self) -> &[Update] {
        &self.updates
    }

    /// No more slots.
    pub fn close(self) -> Closed {
        let mut plain = Vec::with_capacity(self.len());
        plain.extend_from_slice(MAGIC);
        plain.extend_from_slice(&VERSION.to_le_bytes());
        plain.extend_from_slice(&[0; 2]);
        plain.extend_from_slice(&(self.slots.len() as u32).to_le_bytes());
        plain.extend_from_slice(&self.commit.to_le_bytes());
        plain.extend_from_slice(&[0; 8]);
        self.slots
            .iter()
            .for_each(|slot| plain.extend_from_slice(&slot.to_le_bytes()));
        plain.extend_from_slice(&self.stored);
        let mut closed = Closed {
            number: self.number,
            room: self.room,
            plain,
            updates: Span {
                pack: self.number,
                offset: 0,
                len: 0,
            },
            blocks: self.slots.iter().map(|head| (head >> BLOCKS_SHIFT) + 1).sum(),
            slot_bytes: self.stored.len() as u32,
        };
        closed.updates = closed.put(&encode_updates(self.commit, &self.updates));
        closed
    }
}

impl Closed {
    /// Bytes of plaintext so far.
    pub fn len(&self) -> usize {
        self.plain.len()
    }

    /// Never: there is a head.
    pub fn is_empty(&self) -> bool {
        self.plain.is_empty()
    }

    /// Whether a section of so many bytes has room.
    pub fn has_room(&self, bytes: usize) -> bool {
        self.plain.len() + bytes <= self.room
    }

    /// Adds a section, whether or not it has room: who fills the pack chooses its shape.
    pub fn put(&mut self, section: &[u8]) -> Span {
        let offset = self.plain.len() as u32;
        self.plain.extend_from_slice(section);
        Span {
            pack: self.number,
            offset,
            len: section.len() as u32,
        }
    }

    /// The plaintext.
    pub fn finish(self) -> Vec<u8> {
        self.plain
    }
}

fn put_place(bytes: &mut Vec<u8>, place: Option<Place>) {
    let (pack, slot, block) = place.map_or((0, 0, 0), |place| (place.pack, place.slot(), u32::from(place.block())));
    bytes.extend_from_slice(&pack.to_le_bytes());
    bytes.extend_from_slice(&(slot * SLOT_BLOCKS + block).to_le_bytes());
}

fn take_place(cursor: &mut Cursor<'_>) -> Result<Place, CommitError> {
    let (pack, index) = (cursor.take_u32()?, cursor.take_u32()?);
    let block = (index % SLOT_BLOCKS) as u8;
    Place::new(pack, index / SLOT_BLOCKS, block)
        .ok_or_else(|| CommitError::malformed(WHAT_UPDATES, "there is no such place"))
}

/// Bytes of the list of changes that begins with these, of which there are `UPDATES_HEAD_BYTES`.
pub fn updates_bytes(head: &[u8]) -> Result<u32, CommitError> {
    let mut cursor = Cursor::new(WHAT_UPDATES, head);
    let (_commit, count) = (cursor.take_u64()?, cursor.take_u32()?);
    let bytes = u64::from(count) * UPDATE_BYTES as u64 + UPDATES_HEAD_BYTES as u64;
    u32::try_from(bytes).map_err(|_| CommitError::malformed(WHAT_UPDATES, "it is longer than any pack"))
}

// docs/format/disk.md §2
fn encode_updates(commit: u64, updates: &[Update]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(UPDATES_HEAD_BYTES + updates.len() * UPDATE_BYTES);
    bytes.extend_from_slice(&commit.to_le_bytes());
    bytes.extend_from_slice(&(updates.len() as u32).to_le_bytes());
    bytes.extend_from_slice(&[0; 4]);
    for update in updates {
        let (start, count, kind, to, from) = match update {
            Update::Map(run) => (run.start, run.count, KIND_MAP, Some(run.place), None),
            Update::Trim { start, count } => (*start, *count, KIND_TRIM, None, None),
            Update::Move { to, from } => (to.start, to.count, KIND_MOVE, Some(to.place), Some(*from)),
        };
        bytes.extend_from_slice(&start.to_le_bytes());
        bytes.extend_from_slice(&(count << 8 | kind).to_le_bytes());
        put_place(&mut bytes, to);
        put_place(&mut bytes, from);
    }
    bytes
}

/// Reads a list of changes: of which commit, and which.
pub fn decode_updates(bytes: &[u8]) -> Result<(u64, Vec<Update>), CommitError> {
    let mut cursor = Cursor::new(WHAT_UPDATES, bytes);
    let (commit, count, _reserved) = (cursor.take_u64()?, cursor.take_u32()?, cursor.take_u32()?);
    if cursor.rest().len() as u64 != u64::from(count) * UPDATE_BYTES as u64 {
        return Err(CommitError::malformed(WHAT_UPDATES, "it is not as long as it says"));
    }
    let mut updates = Vec::with_capacity(count as usize);
    // Of a block that is changed twice in a list one change is a move: what a list costs is bounded by the disk.
    let mut left = Some(2 * BLOCKS_MAX);
    for _ in 0..count {
        let (start, count_and_kind) = (cursor.take_u64()?, cursor.take_u64()?);
        let (count, kind) = (count_and_kind >> 8, count_and_kind & 0xff);
        let (to, from) = (take_place(&mut cursor)?, take_place(&mut cursor)?);
        let to_run = Run {
            start,
            count,
            place: to,
        };
        let is_within = start.checked_add(count).is_some_and(|end| end <= BLOCKS_MAX);
        let has_room = match kind {
            KIND_TRIM => true,
            KIND_MOVE => to.has_room(count) && from.has_room(count),
            _ => to.has_room(count),
        };
        left = left.and_then(|left| left.checked_sub(count));
        updates.push(match kind {
            _ if count == 0 || !is_within || !has_room || left.is_none() => {
                return Err(CommitError::malformed(
                    WHAT_UPDATES,
                    "it changes blocks that no disk has",
                ));
            }
            KIND_MAP => Update::Map(to_run),
            KIND_TRIM => Update::Trim { start, count },
            KIND_MOVE => Update::Move { to: to_run, from },
            kind => return Err(CommitError::malformed(WHAT_UPDATES, format!("there is no kind {kind}"))),
        });
    }
    Ok((commit, updates))
}

/// Where the slots of a pack lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slots {
    /// The commit that made the pack.
    pub commit: u64,
    /// Each with the offset of its first byte.
    slots: Vec<(u32, u32)>,
}

/// Bytes from the start of a pack's plaintext that `Slots` are read from, as its first `HEAD_BYTES` say.
pub fn slots_bytes(head: &[u8]) -> Result<usize, CommitError> {
    let (_, count) = decode_head(head)?;
    Ok(HEAD_BYTES + count as usize * SLOT_HEAD_BYTES)
}

/// The commit, and the number of slots.
fn decode_head(bytes: &[u8]) -> Result<(u64, u32), CommitError> {
    let mut cursor = Cursor::new(WHAT, bytes);
    if cursor.take()? != *MAGIC {
        return Err(CommitError::malformed(WHAT, "it does not begin with GBDISK"));
    }
    let (version, _reserved, count, commit) = (
        cursor.take_u16()?,
        cursor.take_u16()?,
        cursor.take_u32()?,
        cursor.take_u64()?,
    );
    match (version, count) {
        (VERSION, ..SLOTS_MAX) => Ok((commit, count)),
        (VERSION, _) => Err(CommitError::malformed(WHAT, "it has too many slots")),
        (version, _) => Err(CommitError::Version { what: WHAT, version }),
    }
}

impl Slots {
    /// Reads the first `slots_bytes` of a pack's plaintext.
    pub fn decode(bytes: &[u8]) -> Result<Self, CommitError> {
        let (commit, count) = decode_head(bytes)?;
        let mut cursor = Cursor::new(WHAT, bytes.get(HEAD_BYTES..).unwrap_or_default());
        let mut offset = HEAD_BYTES as u64 + u64::from(count) * SLOT_HEAD_BYTES as u64;
        let mut slots = Vec::with_capacity(cursor.rest().len().min(count as usize * SLOT_HEAD_BYTES) / SLOT_HEAD_BYTES);
        for _ in 0..count {
            let head = cursor.take_u32()?;
            let is_valid = head >> (BLOCKS_SHIFT + 4) == 0 && stored_bytes(head) <= SLOT_BYTES_MAX as u32;
            let begin = u32::try_from(offset).ok().filter(|_| is_valid);
            slots.push((
                begin.ok_or_else(|| CommitError::malformed(WHAT, "a slot is longer than any"))?,
                head,
            ));
            offset += u64::from(stored_bytes(head));
        }
        Ok(Self { commit, slots })
    }

    /// Where the slots end: the list of changes begins there.
    pub fn end(&self) -> u32 {
        let last = self.slots.last();
        last.map_or(HEAD_BYTES as u32, |(begin, head)| {
            begin.saturating_add(stored_bytes(*head))
        })
    }

    /// Bytes that it takes in memory.
    pub fn bytes(&self) -> usize {
        size_of::<Self>() + self.slots.capacity() * size_of::<(u32, u32)>()
    }

    /// Which bytes of the plaintext a slot takes; none if there is no such slot.
    pub fn range(&self, slot: u32) -> Option<Range<u32>> {
        let (begin, head) = *self.slots.get(slot as usize)?;
        Some(begin..begin.saturating_add(stored_bytes(head)))
    }

    /// The blocks of a slot, from the bytes of its `range`.
    pub fn unpack(&self, slot: u32, stored: &[u8]) -> Result<Vec<u8>, CommitError> {
        let (_, head) = *self
            .slots
            .get(slot as usize)
            .ok_or_else(|| CommitError::malformed(WHAT, format!("there is no slot {slot}")))?;
        let bytes = ((head >> BLOCKS_SHIFT) as usize + 1) * BLOCK_BYTES;
        let blocks = match head >> PACKED_BIT & 1 {
            0 => stored.to_vec(),
            _ => lz4_flex::block::decompress(stored, bytes)
                .map_err(|error| CommitError::malformed(WHAT, format!("slot {slot} does not unpack: {error}")))?,
        };
        match blocks.len() == bytes && stored.len() == stored_bytes(head) as usize {
            true => Ok(blocks),
            false => Err(CommitError::malformed(
                WHAT,
                format!("slot {slot} is not as long as it says"),
            )),
        }
    }
}

fn stored_bytes(head: u32) -> u32 {
    head & ((1 << BYTES_BITS) - 1)
}
