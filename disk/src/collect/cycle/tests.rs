use super::*;

const KEPT: PackId = PackId(1);
const VICTIM: PackId = PackId(2);
const MADE: [PackId; 2] = [PackId(3), PackId(4)];

fn set(packs: &[PackId]) -> BTreeSet<PackId> {
    packs.iter().copied().collect()
}

fn head_before() -> BTreeSet<PackId> {
    set(&[KEPT, VICTIM])
}

fn head_after() -> BTreeSet<PackId> {
    set(&[KEPT, MADE[0], MADE[1]])
}

/// Everything there is: packs at peers, the head that counts, a head that may come to count, who does what.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct World {
    present: BTreeSet<PackId>,
    head: BTreeSet<PackId>,
    in_flight: bool,
    /// Another writer's claim is with a majority: what is in flight arrives nowhere.
    is_fenced: bool,
    writer: Writer,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Writer {
    Commits(Cycle),
    Abandoned(Vec<PackId>),
    Dead,
    /// A writer that has adopted the head that it found, with what it then found to be orphans.
    Adopted(Vec<PackId>),
}

impl World {
    fn start() -> Self {
        Self {
            present: head_before(),
            head: head_before(),
            in_flight: false,
            is_fenced: false,
            writer: Writer::Commits(Cycle::new(MADE.to_vec(), vec![VICTIM])),
        }
    }

    fn with(&self, change: impl FnOnce(&mut Self)) -> Self {
        let mut next = self.clone();
        change(&mut next);
        next
    }

    /// All that may happen next, with the calls in whatever order the machine lets through.
    fn next(&self) -> Vec<Self> {
        let mut next = Vec::new();
        if self.in_flight && !self.is_fenced {
            next.push(self.with(|world| (world.head, world.in_flight) = (head_after(), false)));
        }
        next.push(self.with(|world| world.is_fenced = true));
        match &self.writer {
            Writer::Commits(cycle) => self.commits(cycle, &mut next),
            Writer::Abandoned(packs) | Writer::Adopted(packs) => next.extend(self.without(packs)),
            Writer::Dead => {
                // The claim fences; then the head is adopted; then one looks around.
                let named = self.head.clone();
                next.extend(self.is_fenced.then(|| {
                    self.with(|world| world.writer = Writer::Adopted(orphans(self.present.iter().copied(), &named)))
                }));
            }
        }
        if !matches!(self.writer, Writer::Adopted(_)) {
            next.push(self.with(|world| world.writer = Writer::Dead));
        }
        next.retain(|world| world != self);
        next
    }

    fn commits(&self, cycle: &Cycle, next: &mut Vec<Self>) {
        if cycle.stage() == Stage::Planned {
            next.extend(MADE.iter().map(|pack| self.with(|world| world.present.extend([*pack]))));
        }
        let landed = self.head == head_after();
        let mut call = |is_true: bool, call: &dyn Fn(&mut Cycle) -> Result<(), WrongStage>| {
            let mut after = cycle.clone();
            if is_true && call(&mut after).is_ok() {
                next.push(self.with(|world| world.writer = Writer::Commits(after)));
            }
        };
        call(
            head_after().iter().all(|pack| self.present.contains(pack)),
            &Cycle::stored,
        );
        call(true, &Cycle::offering);
        call(landed, &|cycle| cycle.answered(Answer::Accepted));
        call(!landed && self.is_fenced, &|cycle| cycle.answered(Answer::Refused));
        call(true, &|cycle| cycle.answered(Answer::Unknown));
        if cycle.stage() == Stage::Offered && !landed {
            next.push(self.with(|world| world.in_flight = true));
        }
        next.extend(self.without(cycle.give_up().unwrap_or_default()));
        if let Ok(packs) = cycle.clone().abandon() {
            next.push(self.with(|world| world.writer = Writer::Abandoned(packs)));
        }
    }

    /// One pack given up at a time: a crash may come between.
    fn without(&self, packs: &[PackId]) -> Vec<Self> {
        let each = packs
            .iter()
            .map(|pack| self.with(|world| world.present.retain(|other| other != pack)));
        each.collect()
    }

    fn has_no_hole(&self) -> bool {
        self.head.is_subset(&self.present)
    }
}

#[test]
fn no_order_of_steps_and_crashes_makes_a_hole() {
    let mut seen = BTreeSet::new();
    let mut open = vec![World::start()];
    let (mut ends, mut with_orphans) = (0, 0);
    while let Some(world) = open.pop() {
        if !seen.insert(world.clone()) {
            continue;
        }
        assert!(world.has_no_hole(), "{world:#?}");
        with_orphans += usize::from(world.present != world.head);
        let next = world.next();
        if next.is_empty() {
            ends += 1;
            assert_eq!(world.present, world.head, "whoever opens the volume cleans up");
        }
        open.extend(next);
    }
    assert!(seen.len() >= 50, "only {} states", seen.len());
    assert!(ends >= 2, "with the head from before and with the one after");
    assert!(with_orphans > 0);
}

#[test]
fn steps_out_of_turn_are_refused() {
    let mut cycle = Cycle::new(MADE.to_vec(), vec![VICTIM]);
    assert_eq!(cycle.offering(), Err(WrongStage(Stage::Planned)));
    assert_eq!(cycle.answered(Answer::Accepted), Err(WrongStage(Stage::Planned)));
    assert_eq!(cycle.give_up(), Err(WrongStage(Stage::Planned)));
    cycle.stored().unwrap();
    assert_eq!(cycle.clone().abandon(), Ok(MADE.to_vec()));
    cycle.offering().unwrap();
    cycle.answered(Answer::Unknown).unwrap();
    assert_eq!(cycle.clone().abandon(), Err(WrongStage(Stage::Offered)));
    assert_eq!(cycle.give_up(), Err(WrongStage(Stage::Offered)));
    cycle.answered(Answer::Accepted).unwrap();
    assert_eq!(cycle.give_up(), Ok([VICTIM].as_slice()));
    assert_eq!(cycle.stored(), Err(WrongStage(Stage::Accepted)));
}
