//! The transport: one swarm, the streams on it, and who is at their other ends.
//!
//! ```text
//! start::prepare(TransportConfig, …) ─► Transport   listens; nobody is answered yet
//!   .core                            ─► Core        what all share: open a stream to a device, the links, the budget
//!   .run(protocols)                                 accepts and dials until `Core::stop`
//! ```
//!
//! Below it: `driver` owns the swarm, `acceptor` lets streams in and hands each to its `protocol::Protocol`. Never here: what is
//! said on streams after the greeting. Who speaks is above: membership is `join`'s, shares are `share`'s.

pub(crate) mod core;
pub mod counters;
pub mod reach;
pub mod relays;
pub mod swarm;

pub(crate) mod back_off;
pub(crate) mod frames;
pub(crate) mod greet;
pub(crate) mod links;
pub(crate) mod protocol;
pub(crate) mod start;

mod acceptor;
mod candidates;
mod crowd;
mod dial_back;
mod dialing;
mod doors;
mod driver;
mod resolve;

#[cfg(test)]
mod tests;
