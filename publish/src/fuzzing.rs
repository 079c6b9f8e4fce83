//! What reads the objects that others may put into a bucket: for the targets in `fuzz`, and nobody else.

use crate::lock::Document;
use crate::mark::Mark;

/// The document of the lock, as it would be written again.
pub fn lock_document(bytes: &[u8]) -> Option<bytes::Bytes> {
    Document::parse(bytes).map(|document| document.bytes())
}

/// A mark, as it would be written again.
pub fn mark(text: &str) -> Option<String> {
    Mark::parse(text).map(|mark| mark.to_string())
}
