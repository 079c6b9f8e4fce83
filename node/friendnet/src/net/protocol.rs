//! What a protocol is to the transport: an id, who may speak it, and what becomes of its streams.
//!
//! The transport gets a list of these (`start`) and knows none of them by name. What holds for all, greetings and limits, is the
//! acceptor's.

use std::sync::Arc;

use futures::future::BoxFuture;
use libp2p::Stream;
use proto::wire::greeting::Refusal;

use super::greet::Caller;

/// Who may speak a protocol.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Audience {
    /// Devices that count as a member's.
    Members,
    /// Whoever shows a certificate: the protocol itself says whom it serves.
    Everybody,
}

/// Goes on with a stream after the welcome, for as long as both ends like. May be dropped.
pub type Conversation = Box<dyn FnOnce(Stream) -> BoxFuture<'static, ()> + Send>;

/// A protocol, from the side that is called.
pub trait Protocol: Send + Sync {
    /// What both ends name when a stream is opened, such as `/gridbackup/member/1`. No two protocols have the same.
    fn id(&self) -> &'static str;

    /// Who is let in at all; others are refused by the acceptor.
    fn audience(&self) -> Audience {
        Audience::Members
    }

    /// Welcomes a caller whose hello was read, or says why not: the acceptor tells the caller. Until this ends the stream counts among
    /// those that nobody was greeted on, which are few and may be dropped at any time; so what takes long is for the
    /// conversation. None: all is said.
    fn accept<'a>(
        self: Arc<Self>,
        stream: &'a mut Stream,
        caller: &'a Caller,
    ) -> BoxFuture<'a, Result<Option<Conversation>, Refusal>>;
}
