//! Who belongs to the grid, how they are reached, and what they say to each other: identities, tickets, the roster that all members hold
//! and merge, libp2p, and shares by way of it.
//!
//! The only crate that names libp2p. Leaves out: disks (`stores`), the catalog, printing.

pub mod identity;
pub mod invite;
pub mod join;
pub mod members;
pub mod roster;

pub mod net;
pub mod share;

pub mod given_up;
pub mod steward;

mod blocking;

pub use libp2p::{Multiaddr, PeerId, multiaddr};
