//! Who belongs to the grid, how they are reached, and what they say to each other: identities, tickets, the roster that all members hold
//! and merge, libp2p, and shares by way of it.
//!
//! The only crate that names libp2p. Leaves out: disks (`stores`), the catalog, printing.

pub mod identity;
pub mod invite;
pub mod members;
pub mod roster;

mod blocking;
pub mod net;

pub mod join;
mod keeper;
pub mod share;

pub mod handle;
pub mod start;

pub mod given_up;
pub mod steward;

pub use libp2p::{Multiaddr, PeerId, multiaddr};
