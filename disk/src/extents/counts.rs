//! How many blocks refer to each pack. Packs are numbered from zero on without gaps, or nearly.

use std::collections::BTreeMap;

/// Packs whose numbers lie side by side. Chosen: 4 KiB, so that a pack far from the others costs no more.
const ROW: u32 = 1024;

/// A number for each pack; zero for most.
#[derive(Default)]
pub(super) struct Counts {
    rows: BTreeMap<u32, Box<[u32; ROW as usize]>>,
}

impl Counts {
    pub fn get(&self, pack: u32) -> u32 {
        let row = self.rows.get(&(pack / ROW));
        row.map_or(0, |row| row[(pack % ROW) as usize])
    }

    pub fn set(&mut self, pack: u32, blocks: u32) {
        if blocks != self.get(pack) {
            let row = self
                .rows
                .entry(pack / ROW)
                .or_insert_with(|| Box::new([0; ROW as usize]));
            row[(pack % ROW) as usize] = blocks;
        }
    }

    pub fn add(&mut self, pack: u32, blocks: u32) {
        self.set(pack, self.get(pack).saturating_add(blocks));
    }

    pub fn sub(&mut self, pack: u32, blocks: u32) {
        self.set(pack, self.get(pack).saturating_sub(blocks));
    }

    /// Packs with blocks, by number.
    pub fn iter(&self) -> impl Iterator<Item = (u32, u32)> {
        let all = self.rows.iter().flat_map(|(row, blocks)| {
            let first = row * ROW;
            blocks.iter().zip(first..).map(|(blocks, pack)| (pack, *blocks))
        });
        all.filter(|(_, blocks)| *blocks > 0)
    }
}
