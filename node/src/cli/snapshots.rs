//! `snapshots`: the list.

use crate::request::Request;

/// As a request.
pub fn request() -> Request {
    Request::Snapshots
}
