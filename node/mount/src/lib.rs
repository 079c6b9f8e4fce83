//! Snapshots as folders of this machine: over FUSE, and over WebDAV where there is no FUSE. Read-only.
//!
//! What is shown is `backup::view`'s; here it is only translated. Fetching is the read side's.

mod attributes;
mod fuse;
mod listing;
mod session;
pub mod webdav;

pub use self::session::{FuseMount, MountError, MountOptions};
