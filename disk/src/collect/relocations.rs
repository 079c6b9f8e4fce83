//! Where blocks went that snapshots name by the place that they had: a snapshot's map is never written again, so moving what it
//! names leaves a record, which stays as long as a snapshot from before it.

use std::collections::BTreeMap;

use super::moves::Place;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Relocation {
    count: u32,
    to: Place,
    commit: u64,
}

/// Records by the place that blocks had. They do not overlap: a place is left once, as numbers of packs
/// are not used again while a snapshot names them.
#[derive(Debug, Clone, Default)]
pub struct Relocations {
    records: BTreeMap<Place, Relocation>,
}

impl Relocations {
    /// Blocks that lay there went elsewhere with a commit.
    pub fn add(&mut self, from: Place, count: u32, to: Place, commit: u64) {
        if count > 0 {
            self.records.insert(from, Relocation { count, to, commit });
        }
    }

    /// How many records.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether nothing was ever moved, or everything was forgotten.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Where blocks lie now that lay there one after the other, in order.
    pub fn resolve(&self, place: Place, count: u32) -> Vec<(Place, u32)> {
        let mut resolved = Vec::new();
        let mut open = vec![(place, count)];
        while let Some((place, count)) = open.pop() {
            if count == 0 {
                continue;
            }
            match self.first_within(place, count) {
                None => resolved.push((place, count)),
                // What follows is put back first, as the last one is taken first.
                Some((from, record)) => {
                    let before = from.slot.saturating_sub(place.slot);
                    let skipped = place.slot.saturating_sub(from.slot);
                    let moved = (record.count - skipped).min(count - before);
                    open.push((place.skip(before + moved), count - before - moved));
                    open.push((record.to.skip(skipped), moved));
                    open.push((place, before));
                }
            }
        }
        resolved
    }

    /// Forgets what no snapshot needs: all records that the oldest snapshot's commit already knew.
    pub fn prune(&mut self, oldest_snapshot_commit: Option<u64>) {
        self.records
            .retain(|_, record| oldest_snapshot_commit.is_some_and(|oldest| record.commit > oldest));
    }

    /// The first record that has a part in these places.
    fn first_within(&self, place: Place, count: u32) -> Option<(Place, Relocation)> {
        let ends_after =
            |(from, record): &(Place, Relocation)| from.pack == place.pack && from.slot + record.count > place.slot;
        let before = self.records.range(..=place).next_back();
        let before = before.map(|(from, record)| (*from, *record)).filter(ends_after);
        before.or_else(|| {
            let within = self.records.range(place..place.skip(count)).next();
            within.map(|(from, record)| (*from, *record))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collect::table::PackId;

    fn place(pack: u32, slot: u32) -> Place {
        let pack = PackId(pack);
        Place { pack, slot }
    }

    #[test]
    fn places_are_followed_through_several_moves() {
        let mut relocations = Relocations::default();
        relocations.add(place(1, 10), 5, place(2, 0), 7);
        relocations.add(place(1, 20), 5, place(2, 5), 7);
        relocations.add(place(2, 3), 4, place(3, 0), 9);
        let resolved = relocations.resolve(place(1, 8), 15);
        let expected = [
            (place(1, 8), 2),
            (place(2, 0), 3),
            (place(3, 0), 2),
            (place(1, 15), 5),
            (place(3, 2), 2),
            (place(2, 7), 1),
        ];
        assert_eq!(resolved, expected);
    }

    #[test]
    fn a_record_is_forgotten_with_the_last_snapshot_from_before_it() {
        let mut relocations = Relocations::default();
        relocations.add(place(1, 0), 1, place(2, 0), 7);
        relocations.add(place(2, 0), 1, place(3, 0), 9);
        relocations.prune(Some(6));
        assert_eq!(relocations.len(), 2);
        relocations.prune(Some(7));
        assert_eq!(relocations.resolve(place(1, 0), 1), [(place(1, 0), 1)]);
        assert_eq!(relocations.resolve(place(2, 0), 1), [(place(3, 0), 1)]);
        relocations.prune(None);
        assert!(relocations.is_empty());
    }
}
