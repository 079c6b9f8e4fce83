//! A server of the Network Block Device protocol, fixed newstyle.
//!
//! The protocol is the NBD project's `doc/proto.md`; comments cite its sections by name. Bytes come in at [`server`], are made sense of
//! by [`option`] and [`negotiation`] until an export is chosen, and by [`request`] and [`transmission`] from then on; [`sessions`] says
//! who may use an export beside whom. What only computes knows no sockets, and is tested with bytes alone.
//!
//! Leaves out TLS, extended headers, resizing, and where exports come from.

pub mod address;
pub mod exports;
mod handshake;
mod inbox;
pub mod link;
pub mod negotiation;
pub mod option;
mod outbox;
mod reading;
pub mod reply;
pub mod request;
pub mod server;
mod sessions;
mod transmission;
mod wire;
