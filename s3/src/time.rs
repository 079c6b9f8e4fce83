//! The time in a header.

use hyper::header::{HeaderMap, HeaderName};
use jiff::Timestamp;

/// A time in a header (RFC 9110 §5.6.7).
pub(crate) fn time(headers: &HeaderMap, name: HeaderName) -> Option<Timestamp> {
    let text = headers.get(name)?.to_str().ok()?;
    let zoned = jiff::fmt::rfc2822::parse(text).ok()?;
    Some(zoned.timestamp())
}
