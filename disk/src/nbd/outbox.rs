//! The way of replies to one client, which its connection and the tasks beside it share. Each reply goes out whole.

use std::io;
use std::sync::Arc;

use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::{Mutex, MutexGuard, Semaphore};

use crate::device::Device;
use crate::nbd::request::Terms;

/// Longest part of a reply that is made in one piece: above what the kernel asks for at once (1,280 KiB).
pub const UNCUT_BYTES_MAX: usize = 2 << 20;
/// Most bytes of replies that the tasks beside a connection hold.
const REPLY_BYTES_MAX: usize = 2 * UNCUT_BYTES_MAX;

/// The connection ends now, and what is under way is dropped.
#[derive(Clone, Copy, Debug)]
pub struct Cut;

impl From<io::Error> for Cut {
    fn from(_: io::Error) -> Self {
        Self
    }
}

/// Where replies go, and what they are made from.
pub struct Outbox {
    /// The export's device.
    pub device: Arc<dyn Device>,
    /// What was agreed on.
    pub terms: Terms,
    /// Room for replies of tasks.
    pub reply_room: Semaphore,
    writer: Mutex<Box<dyn AsyncWrite + Send + Unpin>>,
}

impl Outbox {
    /// An outbox for a client.
    pub fn new(device: Arc<dyn Device>, terms: Terms, writer: Box<dyn AsyncWrite + Send + Unpin>) -> Self {
        Self {
            device,
            terms,
            reply_room: Semaphore::new(REPLY_BYTES_MAX),
            writer: Mutex::new(writer),
        }
    }

    /// Sends what may follow and precede anything else: whole replies, or whole chunks. Waits while the client does not take them.
    /// When dropped, the connection has to be closed.
    pub async fn send(&self, parts: &[&[u8]]) -> Result<(), Cut> {
        self.turn().await.send(parts).await
    }

    /// The way alone, for a reply that is sent bit by bit. Whoever has it must not wait for room: those that have room wait for it.
    pub async fn turn(&self) -> Turn<'_> {
        Turn(self.writer.lock().await)
    }
}

/// The way, while no other reply goes out.
pub struct Turn<'a>(MutexGuard<'a, Box<dyn AsyncWrite + Send + Unpin>>);

impl Turn<'_> {
    /// As [`Outbox::send`].
    pub async fn send(&mut self, parts: &[&[u8]]) -> Result<(), Cut> {
        for part in parts {
            self.0.write_all(part).await?;
        }
        Ok(())
    }
}
