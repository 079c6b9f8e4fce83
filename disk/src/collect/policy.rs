//! The numbers that collection goes by, and the credit that bounds what it costs.

/// Of needed blocks in a pack's blocks, in hundredths, up to which it is moved for credit. Measured (the simulation's table in
/// docs/decisions/0065-collection-of-a-disk.md): a higher one moves more to gain less.
pub const VICTIM_PERCENT: u32 = 70;

/// The same for packs with blocks that snapshots pin. Moving those takes a relocation record that stays as long as the snapshots do,
/// so it has to gain much. Chosen.
pub const PINNED_PERCENT: u32 = 25;

/// Stored over needed blocks, in hundredths, at which nothing more is moved. Specified: "stored ≤ 1.1 × live after settling".
pub const SETTLED_PERCENT: u32 = 110;

/// Seconds without writes after which a volume is idle. Chosen: longer than a file system's own write-back.
pub const IDLE_SECS: u32 = 5 * 60;

/// Seconds without a death in a pack after which it is write-cold, and settles though others are written. Chosen: what did not
/// change for an hour will hardly free more by waiting.
pub const COLD_SECS: u32 = 60 * 60;

/// Most blocks that may be owed to collection: 128 MiB. Chosen: the largest pack (32 × 4 MiB), which could not always be
/// moved otherwise, and little enough to be gone within minutes.
pub const CREDIT_BLOCKS_MAX: u64 = 32 * 1024;

/// Blocks that packs are padded to. Specified: a share of 64 KiB, for k = 1.
pub const PADDED_BLOCKS: u32 = 16;

/// Most packs that one plan names of a kind. Chosen: a plan stays small; the next one goes on.
pub const PLAN_PACKS_MAX: usize = 4096;

/// What a plan goes by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// [`VICTIM_PERCENT`], at most 100.
    pub victim_percent: u32,
    /// [`PINNED_PERCENT`], at most 100.
    pub pinned_percent: u32,
    /// [`SETTLED_PERCENT`], above 100.
    pub settled_percent: u32,
    /// [`COLD_SECS`].
    pub cold_secs: u32,
    /// [`PADDED_BLOCKS`], times k.
    pub padded_blocks: u32,
    /// [`PLAN_PACKS_MAX`].
    pub plan_packs_max: usize,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            victim_percent: VICTIM_PERCENT,
            pinned_percent: PINNED_PERCENT,
            settled_percent: SETTLED_PERCENT,
            cold_secs: COLD_SECS,
            padded_blocks: PADDED_BLOCKS,
            plan_packs_max: PLAN_PACKS_MAX,
        }
    }
}

impl Policy {
    /// Of needed blocks in a pack's blocks, in hundredths, up to which it is moved to settle down: as long as a volume is not settled, it has such
    /// packs.
    pub fn settling_percent(&self) -> u32 {
        (100_u32 * 100).div_ceil(self.settled_percent)
    }
}

/// Blocks that may be moved. One kind is earned by what the host writes, a block for a block, so that a disk never sends more than
/// twice of what was written to it; another by the time that passes, at a rate that the caller gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Credit {
    blocks: u64,
    blocks_max: u64,
}

impl Credit {
    /// None yet. What is not spent is kept up to `blocks_max`.
    pub fn new(blocks_max: u64) -> Self {
        Self { blocks: 0, blocks_max }
    }

    /// How many blocks may be moved now.
    pub fn blocks(&self) -> u64 {
        self.blocks
    }

    /// Adds what was earned. It may be above the bound until the plan that it is for has been made: a commit is often larger.
    pub fn earn(&mut self, blocks: u64) {
        self.blocks = self.blocks.saturating_add(blocks);
    }

    /// Takes away what a plan moves, and keeps of the rest what the bound allows.
    pub fn spend(&mut self, blocks: u64) {
        self.blocks = self.blocks.saturating_sub(blocks).min(self.blocks_max);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credit_outlives_a_plan_only_up_to_its_bound() {
        let mut credit = Credit::new(10);
        credit.earn(100);
        assert_eq!(credit.blocks(), 100, "all of a commit counts for the plan after it");
        credit.spend(95);
        assert_eq!(credit.blocks(), 5);
        credit.earn(100);
        credit.spend(0);
        assert_eq!(credit.blocks(), 10, "the rest is kept up to the bound");
    }
}
