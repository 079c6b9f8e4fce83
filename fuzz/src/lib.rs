//! Mutated input for everything that reads what others wrote: one file a target below `targets`, what they begin with in
//! `corpus/TARGET/` and in proto's golden files.
//!
//! ```text
//! cargo test --release -p fuzz                                   each target for a few seconds
//! GRIDBACKUP_FUZZ_SECS=300 cargo test --release -p fuzz roster   one target for five minutes
//! GRIDBACKUP_FUZZ_INPUT=FILE cargo test … TARGET                 one input again
//! GRIDBACKUP_FUZZ_SEED=N …                                       the same mutations again
//! ```
//!
//! docs/decisions/0047-fuzzing.md says why this engine and no other. `guided/` is the same targets under libFuzzer.

pub mod engine;
pub mod heap;
pub mod heard;
pub mod keys;
pub mod mutate;
pub mod targets;
