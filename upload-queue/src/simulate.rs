//! Years of a grid in a second: friends come and go, lose disks, lie; the real placing, watching, auditing and repairing
//! code acts on what it sees of that, and every event is checked against what must never happen.
//!
//! Discrete events, no clock, no IO; a run follows from its scenario and its seed. docs/simulation.md states the model and
//! what it leaves out: bytes, keys, the network beyond line speed.

pub mod habit;
pub mod random;
pub mod report;
pub mod scenario;

mod check;
mod events;
mod friend;
mod grid;
mod helpers;
mod owner;
mod state;
mod transfer;

#[cfg(test)]
mod tests;

use crate::simulate::random::seed_of_run;
use crate::simulate::report::Report;
use crate::simulate::scenario::Scenario;
use crate::simulate::state::Grid;

/// Simulates one grid.
pub fn run(scenario: &Scenario, seed: u64) -> Report {
    Grid::new(scenario, seed).run()
}

/// Simulates the grids with these seeds on all processors; the reports come in the order of their numbers.
pub fn run_all(runs: u64, series: u64, scenario: impl Fn(u64) -> Scenario + Sync) -> Vec<Report> {
    let threads = std::thread::available_parallelism().map_or(1, |count| count.get() as u64);
    let one = |number: u64| {
        let seed = seed_of_run(series, number);
        run(&scenario(seed), seed)
    };
    let part = |first: u64| -> Vec<Report> { (first..runs).step_by(threads as usize).map(one).collect() };
    let mut parts: Vec<_> = std::thread::scope(|scope| {
        let started: Vec<_> = (0..threads).map(|first| scope.spawn(move || part(first))).collect();
        let joined = started.into_iter().map(|thread| thread.join());
        joined
            .map(|part| {
                part.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
                    .into_iter()
            })
            .collect()
    });
    (0..runs)
        .filter_map(|number| parts[(number % threads) as usize].next())
        .collect()
}
