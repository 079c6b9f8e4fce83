//! What nodes say to each other: one file per message family (docs/protocol/).
//!
//! Only shapes, bounds and signatures are here. Who may say what, and when, is the node's.

pub mod frame;

pub mod audit;
pub mod greeting;
pub mod member;
pub mod pass_on;
pub mod share;

pub mod by_device;
pub mod grid_limits;
pub mod receipt;
pub mod removal;
pub mod roster;
pub mod ticket;
pub mod word;

mod signed;

/// Version of everything said on the wire. A node that hears another one says so and hangs up.
pub const VERSION: u16 = 1;

/// Stream protocol for shares, heads and space.
pub const SHARE_PROTOCOL: &str = "/gridbackup/share/1";
/// Stream protocol for joining and for the roster.
pub const MEMBER_PROTOCOL: &str = "/gridbackup/member/1";

#[cfg(test)]
mod frozen;
