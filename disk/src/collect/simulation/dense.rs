//! A map with an entry for every block.

use crate::collect::moves::{Place, Places, Run};

/// Where each block lies, by its number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DenseMap {
    places: Vec<Option<Place>>,
}

impl DenseMap {
    /// No block of so many lies anywhere.
    pub fn new(blocks: usize) -> Self {
        Self {
            places: vec![None; blocks],
        }
    }

    /// Where a block lies.
    pub fn get(&self, block: u64) -> Option<Place> {
        self.places[block as usize]
    }

    /// All blocks that lie somewhere.
    pub fn iter(&self) -> impl Iterator<Item = (u64, Place)> {
        let blocks = self.places.iter().enumerate();
        blocks.filter_map(|(block, place)| Some((block as u64, (*place)?)))
    }
}

impl Places for DenseMap {
    fn find(&self, start: u64, count: u32) -> Vec<Run> {
        let mut runs: Vec<Run> = Vec::new();
        for block in start..start + u64::from(count) {
            let Some(place) = self.get(block) else { continue };
            match runs.last_mut() {
                Some(run) if run.start + u64::from(run.count) == block && run.place.skip(run.count) == place => {
                    run.count += 1;
                }
                _ => runs.push(Run {
                    start: block,
                    count: 1,
                    place,
                }),
            }
        }
        runs
    }

    fn set(&mut self, run: Run) {
        for skipped in 0..run.count {
            self.places[(run.start + u64::from(skipped)) as usize] = Some(run.place.skip(skipped));
        }
    }
}
