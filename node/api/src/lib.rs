//! Everything that can be asked of gridbackup and everything it says, as data: requests, messages, failures, the pipe between who asks and
//! who answers; and hypertext over HTTP for them (`http`).
//!
//! Leaves out: what a request does, how an answer looks.

pub mod failure;
pub mod human;
pub mod message;
pub mod output;
pub mod request;

pub mod clock;
pub mod http;
mod named;
