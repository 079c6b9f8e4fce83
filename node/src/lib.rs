//! gridbackup's command line, as a library so that tests can reach its parts.

pub mod cli;
mod render;
mod stderr;
