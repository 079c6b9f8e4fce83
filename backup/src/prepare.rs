//! Who reads files for the writer: jobs are leased, files read and cut, and their chunks brought to a run.
//!
//! `conduct` tells the story of a backup from beginning to end.

mod conduct;

mod changed;
pub mod lost;
mod preparer;

#[cfg(test)]
mod tests;
