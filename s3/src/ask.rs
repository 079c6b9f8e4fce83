//! What is asked and what is answered: the words of `client` and of everyone who goes through it.

use bytes::Bytes;
use hyper::Method;
use hyper::header::HeaderMap;

/// One request; made again as it is when it has to be.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ask<'a> {
    pub method: Method,
    /// None: the bucket.
    pub key: Option<&'a [u8]>,
    pub query: Vec<(&'a str, &'a [u8])>,
    pub headers: HeaderMap,
    pub body: Bytes,
    /// S3 answers long requests with 200 before they have succeeded, and says in the body how they ended.
    pub may_fail_late: bool,
}

/// An answer that is no refusal, its body read.
#[derive(Debug)]
pub(crate) struct Answer {
    pub headers: HeaderMap,
    pub body: Bytes,
    /// `METHOD s3://…`, for errors.
    pub target: String,
}
