//! What the host writes.

use std::collections::BTreeSet;

/// Which blocks are overwritten.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pattern {
    /// Any block, all alike.
    Uniform,
    /// Nine of ten writes go to a tenth of the blocks.
    Skewed,
    /// All blocks in order, again and again.
    Sequential,
    /// A database and a journal file: half of the writes go round in a thirtieth of the blocks, the others anywhere in a third. The rest
    /// is never written again.
    Database,
}

/// Numbers that look random: SplitMix64 (Steele, Lea, Flood, 2014).
pub struct Random(u64);

impl Random {
    /// The same seed gives the same numbers.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A number below a bound far below 2^32.
    pub fn below(&mut self, bound: u32) -> u32 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((u64::from((mixed ^ (mixed >> 31)) as u32) * u64::from(bound)) >> 32) as u32
    }
}

/// One that writes to all blocks of a volume by a pattern.
pub struct Host {
    pattern: Pattern,
    blocks: u32,
    random: Random,
    /// How often it has written in order.
    written: u32,
}

impl Host {
    /// One that has written nothing.
    pub fn new(pattern: Pattern, blocks: u32, seed: u64) -> Self {
        Self {
            pattern,
            blocks,
            random: Random::new(seed),
            written: 0,
        }
    }

    /// The blocks of one commit, sorted: several writes of a block are committed once.
    pub fn commit(&mut self, writes: u32) -> Vec<u32> {
        let blocks: BTreeSet<_> = (0..writes).map(|_| self.write()).collect();
        blocks.into_iter().collect()
    }

    fn write(&mut self) -> u32 {
        match self.pattern {
            Pattern::Uniform => self.random.below(self.blocks),
            Pattern::Skewed if self.random.below(10) > 0 => self.random.below(self.blocks / 10),
            Pattern::Skewed => self.blocks / 10 + self.random.below(self.blocks - self.blocks / 10),
            Pattern::Sequential => self.in_order(self.blocks),
            Pattern::Database if self.random.below(2) > 0 => self.in_order(self.blocks / 30),
            Pattern::Database => self.blocks / 30 + self.random.below(self.blocks / 3),
        }
    }

    fn in_order(&mut self, blocks: u32) -> u32 {
        self.written = (self.written + 1) % blocks;
        self.written
    }
}
