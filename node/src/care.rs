//! Looking after shares, ours and our friends': building them anew, reading them again, asking for proofs.
//!
//! What is to be done is planned by `upload_queue::care`; here are the hands. When it is done is the engine's.

pub mod challenge;
pub mod pass_on;
pub mod rebuild;
pub mod scrub;
