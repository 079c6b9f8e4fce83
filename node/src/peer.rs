//! Peers, seen from both sides: where our shares go, and what we keep for friends.

pub mod bucket;
pub mod folder;

pub mod lane;
pub mod remote;
pub mod silence;

pub mod guests;
pub mod heard;
pub mod kept;
pub mod offer;
pub mod partial;
pub mod passing;
pub mod serve;
