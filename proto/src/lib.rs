//! What is written and what is said: ids, keys, formats, wire messages, the erasure code, and the `ShareStore` trait.
//!
//! Nothing here does IO, reads a clock, draws randomness or needs an async runtime: all of that comes in as arguments,
//! so that every format can be pinned by golden files and every protocol run in a simulation.

pub mod id;
pub mod size;

pub mod keys;
pub mod phrase;
mod signed;

pub mod erasure;
pub mod hash_tree;
pub mod keep_days;
pub mod manifest;
pub mod pack;
pub mod shape;
pub mod share;

pub mod cap_index;
pub mod discard;
pub mod epoch;
pub mod head;
pub mod log_record;
pub mod promise;
pub mod record;
pub mod root;
pub mod section;
pub mod section_kind;

pub mod share_store;
pub mod wire;

#[cfg(test)]
mod fixtures;
#[cfg(test)]
#[path = "tests/limits.rs"]
mod limits;
#[cfg(test)]
mod metadata_golden;
