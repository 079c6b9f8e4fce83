use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::collect::table::PackId;

const BLOCKS: u64 = 12;

/// Where each block lies, and the commit that it was born by.
type State = BTreeMap<u64, (Place, u64)>;

#[derive(Debug, Clone)]
enum Step {
    Write { head: usize, start: u64, count: u64 },
    Trim { head: usize, start: u64, count: u64 },
    Snapshot { head: usize },
    Delete { snapshot: usize },
    Clone { snapshot: usize },
    End { head: usize },
    RollBack { head: usize, snapshot: usize },
    Relocate { pack: usize },
}

fn step() -> impl Strategy<Value = Step> {
    let head = 0..4_usize;
    let snapshot = 0..8_usize;
    let range = (head.clone(), 0..BLOCKS, 1..6_u64);
    prop_oneof![
        8 => range.clone().prop_map(|(head, start, count)| Step::Write { head, start, count }),
        2 => range.prop_map(|(head, start, count)| Step::Trim { head, start, count }),
        4 => head.clone().prop_map(|head| Step::Snapshot { head }),
        4 => snapshot.clone().prop_map(|snapshot| Step::Delete { snapshot }),
        1 => snapshot.clone().prop_map(|snapshot| Step::Clone { snapshot }),
        1 => head.clone().prop_map(|head| Step::End { head }),
        2 => (head, snapshot).prop_map(|(head, snapshot)| Step::RollBack { head, snapshot }),
        2 => (0..20_usize).prop_map(|pack| Step::Relocate { pack }),
    ]
}

/// Everything by single blocks, beside what is tried.
struct Model {
    tried: Snapshots,
    relocations: Relocations,
    heads: BTreeMap<LineId, State>,
    /// As they were taken: with the places that blocks had then.
    snapshots: BTreeMap<SnapshotId, (State, u64)>,
    taken: BTreeSet<Place>,
    commit: u64,
    next_pack: u32,
}

fn pick<K: Copy, V>(from: &BTreeMap<K, V>, number: usize) -> Option<K> {
    from.keys().nth(number.checked_rem(from.len())?).copied()
}

fn stretches(blocks: impl IntoIterator<Item = (Place, u64)>) -> Vec<Stretch> {
    let mut stretches: Vec<Stretch> = Vec::new();
    for (place, birth) in blocks {
        match stretches.last_mut() {
            Some(last) if last.birth == birth && last.place.skip(last.count) == place => last.count += 1,
            _ => stretches.push(Stretch { place, count: 1, birth }),
        }
    }
    stretches
}

impl Model {
    fn new() -> Self {
        let (tried, head) = Snapshots::new();
        Self {
            tried,
            relocations: Relocations::default(),
            heads: BTreeMap::from([(head, State::new())]),
            snapshots: BTreeMap::new(),
            taken: BTreeSet::new(),
            commit: 0,
            next_pack: 0,
        }
    }

    fn pack(&mut self) -> PackId {
        self.next_pack += 1;
        PackId(self.next_pack)
    }

    fn free(&mut self, freed: &[Stretch]) {
        for stretch in freed {
            for number in 0..stretch.count {
                assert!(
                    self.taken.remove(&stretch.place.skip(number)),
                    "freed twice: {stretch:?}"
                );
            }
        }
    }

    /// What a snapshot names, at the places of today.
    fn resolved(&self, state: &State) -> Vec<(Place, u64)> {
        let resolve = |&(place, birth): &(Place, u64)| {
            let places = self.relocations.resolve(place, 1);
            assert_eq!(places.len(), 1);
            (places[0].0, birth)
        };
        state.values().map(resolve).collect()
    }

    fn remove(&mut self, head: LineId, start: u64, count: u64) {
        let state = self.heads.get_mut(&head).unwrap();
        let dead: Vec<_> = (start..start + count)
            .filter_map(|block| state.remove(&block))
            .collect();
        for stretch in stretches(dead) {
            if self.tried.die(head, stretch).unwrap() == Fate::Freed {
                self.free(&[stretch]);
            }
        }
    }

    fn write(&mut self, head: LineId, start: u64, count: u64) {
        let pack = self.pack();
        for number in 0..count {
            let place = Place {
                pack,
                slot: number as u32,
            };
            self.heads
                .get_mut(&head)
                .unwrap()
                .insert(start + number, (place, self.commit));
            self.taken.insert(place);
        }
    }

    fn delete(&mut self, id: SnapshotId) {
        let state = self.resolved(&self.snapshots[&id].0);
        match self.tried.delete(id, || stretches(state)) {
            Ok(freed) => {
                self.snapshots.remove(&id);
                self.free(&freed);
            }
            Err(error) => assert_eq!(error, SnapshotError::HasClones(id)),
        }
        self.prune();
    }

    fn prune(&mut self) {
        let commits = self.snapshots.values().map(|(_, commit)| *commit);
        self.relocations.prune(commits.min());
    }

    /// Moves what is needed of a pack, as collection does.
    fn relocate(&mut self, pack: PackId) {
        let lies: Vec<_> = self.taken.iter().copied().filter(|place| place.pack == pack).collect();
        let to = self.pack();
        let mut moved = Relocations::default();
        let new_of: BTreeMap<_, _> = lies
            .iter()
            .enumerate()
            .map(|(slot, place)| {
                (
                    *place,
                    Place {
                        pack: to,
                        slot: slot as u32,
                    },
                )
            })
            .collect();
        for (from, to) in &new_of {
            moved.add(*from, 1, *to, self.commit);
            self.relocations.add(*from, 1, *to, self.commit);
            self.taken.remove(from);
            self.taken.insert(*to);
        }
        for (place, _) in self.heads.values_mut().flat_map(|state| state.values_mut()) {
            *place = new_of.get(place).copied().unwrap_or(*place);
        }
        self.tried.relocate(&moved);
        self.prune();
    }

    fn take(&mut self, step: &Step) {
        // Snapshots are taken of the commit that was last, so that blocks born by it are just in them.
        if matches!(step, Step::Write { .. } | Step::Trim { .. } | Step::Relocate { .. }) {
            self.commit += 1;
        }
        match *step {
            Step::Write { head, start, count } | Step::Trim { head, start, count } => {
                let Some(head) = pick(&self.heads, head) else { return };
                self.remove(head, start, count);
                if matches!(step, Step::Write { .. }) {
                    self.write(head, start, count);
                }
            }
            Step::Snapshot { head } => {
                let Some(head) = pick(&self.heads, head) else { return };
                let id = self.tried.take(head, self.commit).unwrap();
                self.snapshots.insert(id, (self.heads[&head].clone(), self.commit));
            }
            Step::Delete { snapshot } => {
                let Some(id) = pick(&self.snapshots, snapshot) else {
                    return;
                };
                self.delete(id);
            }
            Step::Clone { snapshot } => {
                let Some(id) = pick(&self.snapshots, snapshot) else {
                    return;
                };
                let state = self.today(id);
                self.heads.insert(self.tried.clone_of(id).unwrap(), state);
            }
            Step::End { head } => {
                let Some(head) = pick(&self.heads, head) else { return };
                let state = self.heads.remove(&head).unwrap();
                let freed = self.tried.end(head, stretches(state.into_values())).unwrap();
                self.free(&freed);
            }
            Step::RollBack { head, snapshot } => {
                let heads = pick(&self.heads, head).zip(pick(&self.snapshots, snapshot));
                let Some((head, to)) = heads else { return };
                let (new, was) = self.tried.roll_back(head, to, self.commit).unwrap();
                let state = self.heads.remove(&head).unwrap();
                self.snapshots.insert(was, (state, self.commit));
                let state = self.today(to);
                self.heads.insert(new, state);
            }
            Step::Relocate { pack } => {
                let packs: BTreeMap<_, _> = self.taken.iter().map(|place| (place.pack, ())).collect();
                let Some(pack) = pick(&packs, pack) else { return };
                self.relocate(pack);
            }
        }
    }

    /// A snapshot's state, at the places of today.
    fn today(&self, id: SnapshotId) -> State {
        let state = &self.snapshots[&id].0;
        state.keys().copied().zip(self.resolved(state)).collect()
    }

    /// What was not freed is what is named, no more and no less.
    fn check(&self) {
        let of_heads = self.heads.values().flat_map(|state| state.values().copied());
        let of_snapshots = self.snapshots.values().flat_map(|(state, _)| self.resolved(state));
        let named: BTreeSet<_> = of_heads.chain(of_snapshots).map(|(place, _)| place).collect();
        assert_eq!(self.taken, named);
    }

    fn delete_all(&mut self) {
        let heads: Vec<_> = self.heads.keys().copied().collect();
        for (number, _) in heads.iter().enumerate().skip(1) {
            self.take(&Step::End {
                head: heads.len() - number,
            });
            self.check();
        }
        // Origins cannot go before their clones, which may take several rounds.
        for _ in 0..=self.snapshots.len() {
            for id in self.snapshots.keys().copied().collect::<Vec<_>>() {
                self.delete(id);
                self.check();
            }
        }
        assert_eq!(self.snapshots.len(), 0, "{:#?}", self.tried);
        assert!(self.relocations.is_empty());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn what_is_not_freed_is_what_is_named(steps in prop::collection::vec(step(), 1..60)) {
        let mut model = Model::new();
        for step in &steps {
            model.take(step);
            model.check();
        }
        model.delete_all();
        let named: usize = model.heads.values().map(State::len).sum();
        prop_assert_eq!(model.taken.len(), named, "nothing is left of what snapshots held");
    }
}

#[test]
fn a_block_from_before_the_snapshot_is_pinned_and_a_later_one_freed() {
    let (mut snapshots, head) = Snapshots::new();
    let at = |slot, birth| Stretch {
        place: Place { pack: PackId(1), slot },
        count: 1,
        birth,
    };
    let id = snapshots.take(head, 5).unwrap();
    assert_eq!(snapshots.take(head, 4), Err(SnapshotError::Older(4)));
    assert_eq!(snapshots.die(head, at(0, 5)), Ok(Fate::Pinned));
    assert_eq!(snapshots.die(head, at(1, 6)), Ok(Fate::Freed));
    assert_eq!(
        snapshots.delete(id, || unreachable!("the head tells")),
        Ok(vec![at(0, 5)])
    );
    assert_eq!(snapshots.delete(id, Vec::new), Err(SnapshotError::NoSnapshot(id)));
}

#[test]
fn an_origin_stays_as_long_as_its_clone() {
    let (mut snapshots, head) = Snapshots::new();
    let origin = snapshots.take(head, 1).unwrap();
    let clone = snapshots.clone_of(origin).unwrap();
    assert_eq!(
        snapshots.delete(origin, Vec::new),
        Err(SnapshotError::HasClones(origin))
    );
    assert_eq!(snapshots.end(clone, Vec::new()), Ok(Vec::new()));
    assert_eq!(snapshots.end(clone, Vec::new()), Err(SnapshotError::NoHead(clone)));
    assert_eq!(snapshots.delete(origin, Vec::new), Ok(Vec::new()));
}

#[test]
fn after_the_states_it_turned_away_from_a_rollback_leaves_nothing_behind() {
    let (mut snapshots, head) = Snapshots::new();
    let to = snapshots.take(head, 1).unwrap();
    let (head, was) = snapshots.roll_back(head, to, 2).unwrap();
    assert_eq!(snapshots.delete(to, Vec::new), Err(SnapshotError::HasClones(to)));
    assert_eq!(snapshots.delete(was, Vec::new), Ok(Vec::new()));
    assert_eq!(snapshots.delete(to, Vec::new), Ok(Vec::new()));
    assert_eq!(snapshots.lines.keys().collect::<Vec<_>>(), [&head]);
}
