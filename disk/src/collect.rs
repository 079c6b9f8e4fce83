//! Garbage collection of a disk, as a policy without IO: which packs are collected and which are given up (`plan`), from counts
//! of what is committed (`table`); what becomes of a move when its block was written meanwhile (`moves`); when a pack
//! may be given up at all (`cycle`); and what snapshots hold on to (`snapshots`, `relocations`).
//!
//! A volume's committed blocks lie in packs, which are never changed. Overwriting leaves dead blocks behind. Collecting moves what is still
//! needed of a pack, its victim, into a new one, and gives the victim up once a commit without it is accepted.
//! `running` goes by `plan`, `policy` and `table`; all else is of the simulation alone. Leaves out reading, sealing and sending; docs/decisions/0065-collection-of-a-disk.md says why it is as it is.

pub mod cycle;
pub mod moves;
pub mod plan;
pub mod policy;
pub mod relocations;
#[doc(hidden)]
pub mod simulation;
pub mod snapshots;
pub mod table;
