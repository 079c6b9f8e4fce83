//! A volume that is written to for hours of simulated time, collected as the policy says, block for block: for the tests and
//! the table in docs/decisions/0065-collection-of-a-disk.md. Everything comes from a seed.

pub mod dense;
pub mod host;
pub mod report;
pub mod volume;
