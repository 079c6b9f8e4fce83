//! Peers, seen from both sides: where our shares go, and what we keep for friends.

pub mod folder;

pub mod lane;
pub mod remote;

pub mod kept;
pub mod partial;
pub mod serve;
