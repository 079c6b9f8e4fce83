//! Snapshots as folders of this machine: over FUSE, and over WebDAV where there is no FUSE. Read-only. Beside them a virtual disk as
//! one file, which can be written.
//!
//! What is shown is `backup::view`'s, or a `disk::Device`'s; here it is only translated. Fetching is theirs.

mod attributes;
pub mod disk;
mod fuse;
mod listing;
mod session;
pub mod webdav;

pub use self::session::{FuseMount, MountError, MountOptions};
