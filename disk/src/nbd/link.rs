//! A connection as it was accepted: both its ways, and who is at the other end.
//!
//! TLS goes in here, between the socket and the two ways: what is above sees bytes only.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite};

use crate::nbd::sessions::Client;

/// The way from the client.
pub type Reader = Box<dyn AsyncRead + Send + Unpin>;
/// The way to the client.
pub type Writer = Box<dyn AsyncWrite + Send + Unpin>;

/// The system's side of a connection, of no runtime yet.
#[derive(Debug)]
pub(super) enum Socket {
    /// A Unix socket.
    Unix(std::os::unix::net::UnixStream),
    /// A TCP connection.
    Tcp(std::net::TcpStream),
}

/// A connection.
#[derive(Debug)]
pub struct Link {
    pub(super) socket: Socket,
    pub(super) client: Client,
}

impl Link {
    /// A second handle, for asking whether the client is gone while the first one is busy.
    pub(super) fn line(&self) -> io::Result<Arc<OwnedFd>> {
        let socket = match &self.socket {
            Socket::Unix(socket) => socket.as_fd(),
            Socket::Tcp(socket) => socket.as_fd(),
        };
        socket.try_clone_to_owned().map(Arc::new)
    }

    /// Both ways, in the runtime that this is called in.
    pub(super) fn open(self) -> io::Result<(Reader, Writer)> {
        Ok(match self.socket {
            Socket::Unix(socket) => {
                let (reader, writer) = tokio::net::UnixStream::from_std(socket)?.into_split();
                (Box::new(reader), Box::new(writer))
            }
            Socket::Tcp(socket) => {
                // Replies are written whole; waiting for more of them costs 40 ms.
                socket.set_nodelay(true)?;
                let (reader, writer) = tokio::net::TcpStream::from_std(socket)?.into_split();
                (Box::new(reader), Box::new(writer))
            }
        })
    }
}
