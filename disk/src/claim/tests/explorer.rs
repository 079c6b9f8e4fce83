//! Every order of steps, by a search over all states that can be reached; and single long runs, by a seed.

use std::collections::{HashMap, HashSet, VecDeque};

use super::world::{Action, Scenario, World};

/// What was found out.
#[derive(Debug)]
pub struct Explored {
    /// Different states.
    pub states: usize,
    /// Steps that were tried.
    pub steps: usize,
}

/// Tries all. An error is a broken invariant.
pub fn explore(scenario: &Scenario, mut look: impl FnMut(&World) -> Result<(), String>) -> Result<Explored, String> {
    let first = World::new(scenario);
    let mut visited = HashSet::from([first.fingerprint(scenario)]);
    let mut open = vec![first];
    let mut steps = 0;
    while let Some(world) = open.pop() {
        look(&world)?;
        for action in world.actions(scenario) {
            let mut next = world.clone();
            next.step(scenario, action)?;
            steps += 1;
            if visited.insert(next.fingerprint(scenario)) {
                open.push(next);
            }
        }
    }
    Ok(Explored {
        states: visited.len(),
        steps,
    })
}

/// The shortest way to a broken invariant, and which; none, if there is none in so many states.
pub fn counterexample(scenario: &Scenario, states_max: usize) -> Option<(Vec<String>, String)> {
    let first = World::new(scenario);
    let mut came_by: HashMap<u64, (u64, String)> = HashMap::new();
    let print = first.fingerprint(scenario);
    came_by.insert(print, (0, String::new()));
    let mut open = VecDeque::from([(print, first)]);
    while let Some((print, world)) = open.pop_front() {
        for action in world.actions(scenario) {
            let mut next = world.clone();
            if let Err(broken) = next.step(scenario, action) {
                let mut way = vec![said(&world, action)];
                let mut at = print;
                while let Some((before, step)) = came_by.get(&at).filter(|(before, _)| *before != 0) {
                    way.push(step.clone());
                    at = *before;
                }
                way.reverse();
                return Some((way, broken));
            }
            let next_print = next.fingerprint(scenario);
            if came_by.len() < states_max && !came_by.contains_key(&next_print) {
                came_by.insert(next_print, (print, said(&world, action)));
                open.push_back((next_print, next));
            }
        }
    }
    None
}

/// One run of random steps; where an invariant breaks, the steps to it and which.
pub fn walk(scenario: &Scenario, seed: u64, steps: usize) -> Result<(World, usize), (Vec<String>, String)> {
    let (mut world, mut random, mut way) = (World::new(scenario), Random::new(seed), Vec::new());
    for taken in 0..steps {
        let is_rare = |action: &Action| {
            !matches!(
                action,
                Action::Deliver { .. } | Action::Hear { .. } | Action::Wake { .. }
            )
        };
        let (rare, usual): (Vec<_>, Vec<_>) = world.actions(scenario).into_iter().partition(is_rare);
        let takes_rare = usual.is_empty() || (!rare.is_empty() && random.below(24) == 0);
        let choice = if takes_rare { rare } else { usual };
        if choice.is_empty() {
            return Ok((world, taken));
        }
        let action = choice[random.below(choice.len())];
        way.push(said(&world, action));
        world.step(scenario, action).map_err(|broken| (way.clone(), broken))?;
    }
    Ok((world, steps))
}

/// SplitMix64: the same numbers for the same seed, for ever.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % limit as u64) as usize
    }
}

/// A step in words.
pub fn said(world: &World, action: Action) -> String {
    match action {
        Action::Deliver { voter, at } => format!("voter {voter} gets {:?}", world.voters[voter].requests[at]),
        Action::Hear { voter, at } => format!("voter {voter} is heard: {:?}", world.voters[voter].replies[at]),
        other => format!("{other:?}"),
    }
}
