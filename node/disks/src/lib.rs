//! The virtual disks of a machine: what is known of each here (`record`), one that is open (`open`), its commits (`commits`) and what its device promises (`claimed`,
//! `on_peers`), and
//! who may write it (`voting`, and `voters`, who decide that), the way of its packs to peers (`outgoing`) and back (`incoming`), by the write side and the read side of backups.
//!
//! What is in packs, and how a device works, is the `disk` crate's; what is asked of disks, and what is said of them, the engine's.

pub mod claimed;
pub mod commits;
pub mod incoming;
pub mod on_peers;
pub mod open;
pub mod outgoing;
pub mod record;
pub mod voters;
pub mod voting;

#[cfg(test)]
mod tests;
