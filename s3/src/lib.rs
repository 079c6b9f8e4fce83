//! A small client for any S3-compatible endpoint, and for CloudFront in front of it: signed, pooled, retried within a budget,
//! every answer bounded.
//!
//! Leaves out: files, indexes, the grid, and what objects mean. Keys are bytes; what an endpoint makes of bytes that are not
//! UTF-8 is its own affair. docs/decisions/0018-s3-client.md says why these libraries.

mod ask;
mod client;
mod cloudfront;
mod credentials;
mod delete;
mod download;
mod endpoint;
mod error;
#[cfg(test)]
mod fixtures;
#[doc(hidden)]
pub mod fuzzing;
mod headers;
mod key;
mod list;
mod location;
mod multipart;
mod object;
mod object_lock;
mod retry;
mod sign;
mod time;
mod transport;
mod xml;

pub use client::{Client, Options, Window, Windows};
pub use cloudfront::{Distribution, INVALIDATION_PATHS_MAX, INVALIDATION_WILDCARDS_MAX, Origin};
pub use delete::{Doomed, NotDeleted};
pub use download::Download;
pub use error::{Error, Refusal, Region};
pub use headers::{Headers, Meta};
pub use key::{decode, encode, shown};
pub use list::{BATCH_KEYS_MAX, Batch, ListOptions, Listed};
pub use location::Location;
pub use multipart::{PART_BYTES_MIN, Parts, SentParts, part_bytes};
pub use object::{Condition, Object, Stored, etag_of};
pub use object_lock::{DeleteMarker, Lock, LockMode, MarkersAfter};
