//! Prints what collecting a disk costs and saves, as in docs/decisions/0065-collection-of-a-disk.md:
//! `cargo run -p disk --example collection`

use disk::collect::policy::Policy;
use disk::collect::simulation::host::Pattern;
use disk::collect::simulation::report::{Scenario, run};

fn main() {
    println!(
        "| | writes | WA busy | WA in all | stored, mean | peak | settled | with pinned | within | packs | relocations |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|---|");
    let patterns = [
        Pattern::Uniform,
        Pattern::Skewed,
        Pattern::Sequential,
        Pattern::Database,
    ];
    for has_snapshot in [false, true] {
        for pattern in patterns {
            let scenario = Scenario {
                has_snapshot,
                ..Scenario::new(pattern)
            };
            let figures = run(scenario, Policy::default());
            let name = if has_snapshot { "with a snapshot" } else { "" };
            println!(
                "| {pattern:?} {name} | {} | {:.2} | {:.2} | {:.2} | {:.2} | {:.2} | {:.2} | {} s | {} | {} |",
                figures.overwrites,
                figures.busy_amplification,
                figures.amplification,
                figures.busy_stored_mean,
                figures.busy_stored_peak,
                figures.settled_stored,
                figures.settled_stored_with_pinned,
                figures.settle_secs,
                figures.packs,
                figures.relocations,
            );
        }
    }
}
