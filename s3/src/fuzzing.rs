//! What reads an endpoint's answers, without an endpoint: for the targets in `fuzz`, and nobody else.

use bytes::Bytes;
use hyper::HeaderMap;

use crate::ask::Answer;
use crate::error::Error;
use crate::list::{Batch, ListOptions, batch};
use crate::xml;

fn answer(body: &[u8]) -> Answer {
    Answer {
        headers: HeaderMap::new(),
        body: Bytes::copy_from_slice(body),
        target: "GET s3://fuzz".to_owned(),
    }
}

/// A batch of a listing.
pub fn listing(body: &[u8], options: &ListOptions) -> Result<Batch, Error> {
    batch(&answer(body), options)
}

/// Every other answer, each by its name.
pub fn others(body: &[u8]) -> [(&'static str, Result<(), Error>); 8] {
    let answer = answer(body);
    [
        ("deleted", xml::parse::<xml::Deleted>(&answer).map(drop)),
        ("begun", xml::parse::<xml::Begun>(&answer).map(drop)),
        ("completed", xml::parse::<xml::Completed>(&answer).map(drop)),
        ("copied", xml::parse::<xml::Copied>(&answer).map(drop)),
        ("distribution", xml::parse::<xml::DistributionConfig>(&answer).map(drop)),
        ("invalidation", xml::parse::<xml::Invalidation>(&answer).map(drop)),
        ("lock", xml::parse::<xml::LockConfiguration>(&answer).map(drop)),
        ("versions", xml::parse::<xml::Versions>(&answer).map(drop)),
    ]
}

/// A refusal with this status.
pub fn refusal(status: u16, body: &[u8]) -> Option<Error> {
    let mut refusal = xml::refusal(body)?;
    refusal.status = status;
    Some(refusal.into_error())
}
