//! gridbackup's daemon and command line, as a library so that tests can reach its parts.

pub mod friendnet;
pub mod net;
pub mod peer;

pub mod care;

pub mod api;
pub mod cli;
pub mod config;
pub mod engine;
pub mod failure;
pub mod home;
pub mod human;
pub mod message;
pub mod mount;
pub mod output;
mod render;
pub mod request;
mod stderr;
mod verdict;
