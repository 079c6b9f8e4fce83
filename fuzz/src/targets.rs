//! All targets.

pub mod api;
pub mod config;
pub mod formats;
pub mod objects;
pub mod restore;
pub mod roster;
pub mod s3;
pub mod ticket;
pub mod wire;

use crate::engine::Target;

/// All of them.
pub const ALL: &[&Target] = &[
    &formats::TARGET,
    &wire::TARGET,
    &ticket::TARGET,
    &roster::TARGET,
    &restore::TARGET,
    &objects::TARGET,
    &s3::TARGET,
    &api::TARGET,
    &config::TARGET,
];
