//! Looking after what was stored: which peers still answer, what to ask them for as proof, which shares to build anew.
//!
//! Pure state machines: time, randomness, answers and listings come in as arguments, plans come out. The daemon and the
//! simulation run exactly this code. Only `ledger` knows the database. Leaves out how a proof
//! is fetched and how a share is rebuilt.

pub mod alarm;
pub mod audit;
pub mod helper;
pub mod ledger;
pub mod rebuild;
pub mod repair;
pub mod standing;

mod matching;

#[cfg(test)]
mod churn;
