//! Who belongs to the grid: identities, tickets, and the roster that all members hold and merge.

pub mod identity;

pub mod invite;
pub mod join;
pub mod members;
pub mod roster;
pub mod state_file;
