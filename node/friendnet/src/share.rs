//! Shares by way of the network: asking a friend for them, answering friends, and proofs that they are kept.

pub mod challenge;
pub mod lane;
pub mod remote;
pub mod serve;
