//! What went over the network since the node started.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counters; only ever growing.
#[derive(Default, Debug)]
pub struct Counters {
    bytes_received: AtomicU64,
    bytes_sent: AtomicU64,
    shares_kept: AtomicU64,
    streams_refused: AtomicU64,
}

/// The counters at one moment.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Counted {
    /// Bytes of frames received on share streams.
    pub bytes_received: u64,
    /// Bytes of frames sent on share streams.
    pub bytes_sent: u64,
    /// Shares that became durable here for friends.
    pub shares_kept: u64,
    /// Streams refused: strangers, wrong certificates, wrong versions.
    pub streams_refused: u64,
}

impl Counters {
    /// The counters now.
    pub fn read(&self) -> Counted {
        Counted {
            bytes_received: self.bytes_received.load(Ordering::Relaxed),
            bytes_sent: self.bytes_sent.load(Ordering::Relaxed),
            shares_kept: self.shares_kept.load(Ordering::Relaxed),
            streams_refused: self.streams_refused.load(Ordering::Relaxed),
        }
    }

    /// Counts bytes in.
    pub fn received(&self, bytes: usize) {
        self.bytes_received.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Counts bytes out.
    pub fn sent(&self, bytes: usize) {
        self.bytes_sent.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Counts a share kept.
    pub fn kept(&self) {
        self.shares_kept.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a stream refused.
    pub fn refused(&self) {
        self.streams_refused.fetch_add(1, Ordering::Relaxed);
    }
}
