//! One writer of a volume, over several peers that vote: taking over, committing, and for how long a writer may acknowledge what it
//! has not committed (docs/decisions/0064-one-writer.md). Pure: times and answers come in, questions and events go out. What a
//! voter does is `proto::epoch::Verdict`; how it stores its promise and how it is reached are not here.

pub mod quorum;
pub mod times;
pub mod writer;

#[cfg(test)]
mod tests;
