//! The node as a library: what the `gridbackup` program and the tests are built from.

pub mod friendnet;
pub mod net;
pub mod peer;
