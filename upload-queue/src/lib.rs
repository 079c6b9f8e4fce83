//! What is still owed to the grid, in what order, and delivering it: jobs, priority, leases, placement, spool, uploader.
//!
//! Never sees plaintext or a key, and names no network library: peers are `proto::share_store::PeerStore`s.

pub mod schema;
pub mod space;

pub mod job;
pub mod priority;
pub mod queue;

pub mod packs;
pub mod peers;
pub mod placement;
pub mod planner;
pub mod spool;
pub mod steward;
pub mod uploader;

pub mod bandwidth;
pub mod care;
pub mod simulate;

#[cfg(test)]
mod fixture;
