//! Where committed blocks lie: a pack, a slot of it, a block of that slot; and runs of blocks that lie one after the other.

/// Blocks that a slot has room for: 64 KiB. Chosen: a slot is what is compressed at once, and what a read has to unpack.
pub const SLOT_BLOCKS: u32 = 16;
/// Slots that a pack may have: 28 bits of 32 are left for them.
pub const SLOTS_MAX: u32 = 1 << 28;
/// Blocks of a region: 256 MiB. Chosen: a leaf of the usual kind is tens of kilobytes, and 16 bits name a block of it.
pub const REGION_BLOCKS: u32 = 1 << 16;
/// The number that is no pack's: where it stands blocks are zeros.
pub(super) const NO_PACK: u32 = u32::MAX;
/// Blocks that a volume may have: 2^63 bytes.
pub const VOLUME_BLOCKS_MAX: u64 = 1 << 51;

/// Where a block lies. The block behind it in a run is the next one of its slot, or, when its sixteen are over, the first of the
/// next slot: so a long write is one run, whether its slots are compressed or not. A slot with fewer blocks ends a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// A number in the volume's table of packs.
    pub pack: u32,
    /// 16 × slot + block.
    index: u32,
}

impl Place {
    /// A block of a slot of a pack; none if there can be no such.
    pub fn new(pack: u32, slot: u32, block: u8) -> Option<Self> {
        let is_valid = pack != NO_PACK && slot < SLOTS_MAX && u32::from(block) < SLOT_BLOCKS;
        is_valid.then(|| Self {
            pack,
            index: slot * SLOT_BLOCKS + u32::from(block),
        })
    }

    /// Which slot of the pack.
    pub fn slot(self) -> u32 {
        self.index / SLOT_BLOCKS
    }

    /// Which block of the slot.
    pub fn block(self) -> u8 {
        (self.index % SLOT_BLOCKS) as u8
    }

    /// Where the block lies that comes so many later in its run, which has that many.
    pub fn after(self, blocks: u32) -> Self {
        let index = self.index.wrapping_add(blocks);
        Self { index, ..self }
    }

    /// Whether a run of so many blocks can begin here.
    pub fn has_room(self, blocks: u64) -> bool {
        self.pack != NO_PACK && blocks > 0 && u64::from(self.index) + blocks - 1 <= u64::from(u32::MAX)
    }

    /// As leaves have it.
    pub(super) fn from_index(pack: u32, index: u32) -> Self {
        Self { pack, index }
    }

    pub(super) fn index(self) -> u32 {
        self.index
    }
}

/// Blocks of the volume, one after the other, that lie so in a pack too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// The first block of the volume.
    pub start: u64,
    /// How many.
    pub count: u64,
    /// Where the first one lies.
    pub place: Place,
}

impl Run {
    /// The block behind it.
    pub fn end(&self) -> u64 {
        self.start + self.count
    }

    /// The part of it that lies in a range; it does lie there in part.
    pub(super) fn within(&self, start: u64, end: u64) -> Self {
        let from = self.start.max(start);
        Self {
            start: from,
            count: self.end().min(end) - from,
            place: self.place.after((from - self.start) as u32),
        }
    }
}

/// Blocks of one region, by their number in it, and where they lie; none: they are zeros.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Piece {
    pub start: u32,
    pub end: u32,
    pub place: Option<Place>,
}

impl Piece {
    /// The part of it that lies in a range; it does lie there in part.
    pub fn within(&self, start: u32, end: u32) -> Self {
        let from = self.start.max(start);
        Self {
            start: from,
            end: self.end.min(end),
            place: self.place.map(|place| place.after(from - self.start)),
        }
    }

    /// Whether the other one goes on where this one ends, here and in the pack.
    pub fn goes_on_in(&self, next: &Self) -> bool {
        let follows = match (self.place, next.place) {
            (None, None) => true,
            (Some(place), Some(next)) => {
                place.pack == next.pack && place.index.checked_add(self.end - self.start) == Some(next.index)
            }
            _ => false,
        };
        self.end == next.start && follows
    }

    pub fn blocks(&self) -> u32 {
        self.end - self.start
    }
}

/// Adds a piece behind the others, as part of the last one if that goes on in it.
pub(super) fn push(pieces: &mut Vec<Piece>, piece: Piece) {
    match pieces.last_mut() {
        Some(last) if last.goes_on_in(&piece) => last.end = piece.end,
        _ => pieces.push(piece),
    }
}
