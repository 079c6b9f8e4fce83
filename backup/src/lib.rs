//! Files to sealed content and back: scan, backup log, catalog, chunk, pack, seal, post the head; restore, recover.
//!
//! Never opens a socket and never prints: peers come in as `PeerSet`, progress goes out as events.

pub mod archive;
pub mod catalog;
pub mod exclude;
pub mod said;
mod source;

pub mod scan;

mod chunk;

pub mod writer;

pub mod prepare;

pub mod heads;
pub mod recover;
pub mod restore;
pub mod view;

pub mod prune;
pub mod retention;
