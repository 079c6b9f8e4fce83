//! Places that keep shares: folders and removable disks, buckets, and what this node keeps for friends.
//!
//! Leaves out: how friends are reached (`friendnet`), and whatever a share says: all is ciphertext here.

pub mod bucket;
pub mod folder;
pub mod removable;
pub mod silence;

pub mod guests;
pub mod heard;
pub mod kept;
pub mod offer;
pub mod partial;
pub mod passing;
pub mod room;
pub mod scrub;
pub mod shelf;
