//! The daemon's API: hypertext over HTTP, on the home's socket and, when asked for, on a loopback port.
//!
//! One entry, `GET /`, lists what can be asked: rel, method, URI template (RFC 6570) and fields. Answers are messages, as
//! server-sent events or JSON lines. Every request is safe to repeat: reads by nature, the others by the client's
//! `Idempotency-Key`, which is known for a week. Refusals are problem documents (RFC 9457). Nothing here knows what a request does; see `Executor`.

use std::sync::Arc;

use futures::future::BoxFuture;

pub mod client;
#[doc(hidden)]
pub mod fuzzing;
mod gate;
mod keys;
mod problem;
mod replay;
mod resource;
mod server;
mod stream;
pub mod template;
#[cfg(test)]
mod tests;

pub use server::{ApiServer, Ends, LoopbackToken};

use crate::failure::{Exit, Failure};
use crate::output::Sink;
use crate::request::Request;

/// Whoever executes requests.
pub trait Executor: Send + Sync + 'static {
    /// Executes one request; answers go to `sink`. Dropping the future must leave nothing half-done.
    fn execute(self: Arc<Self>, request: Request, sink: Sink) -> BoxFuture<'static, Result<Exit, Failure>>;
}
