//! How far a backup is: by what peers have acknowledged, not by what was read.

use std::convert::Infallible;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use api::message::{Phase, Problem, Progress};
use api::output::Sink;
use backup::writer::WriteEvent;
use upload_queue::peers::PeerSet;
use upload_queue::uploader::{Sent, Uploader};

/// How often progress is said.
const TICK: Duration = Duration::from_millis(250);

/// Counts for one backup.
pub(super) struct Meter {
    uploader: Uploader,
    peers: PeerSet,
    sink: Sink,
    /// Files and bytes in the queue when it began.
    total: (u64, u64),
    /// What had been delivered by then.
    delivered_before: u64,
    /// Bytes that may be read and not sealed yet.
    read_ahead_max: u64,
    files: AtomicU64,
    read: AtomicU64,
}

impl Meter {
    pub(super) fn new(uploader: Uploader, peers: PeerSet, sink: Sink, total: (u64, u64), read_ahead_max: u64) -> Self {
        Self {
            delivered_before: uploader.sent().delivered_bytes,
            uploader,
            peers,
            sink,
            total,
            read_ahead_max,
            files: AtomicU64::new(0),
            read: AtomicU64::new(0),
        }
    }

    /// Takes note of what the write side did.
    pub(super) fn note(&self, event: WriteEvent) {
        match event {
            WriteEvent::BytesRead(bytes) => self.read.store(bytes, Ordering::Relaxed),
            WriteEvent::FileDone { .. } => {
                self.files.fetch_add(1, Ordering::Relaxed);
            }
            WriteEvent::FileFailed { path, reason } => {
                // Whoever reads may be gone; the file is counted in the summary all the same.
                let _nobody_reads = self.sink.send_blocking(Problem::of_path(path.as_path(), reason));
            }
            WriteEvent::Posted { seq, peers } => tracing::info!(seq, peers, "head posted"),
        }
    }

    /// Says how far it is, until it is dropped.
    pub(super) async fn say_for_ever(&self) -> Infallible {
        loop {
            self.sink.progress(self.progress());
            tokio::time::sleep(TICK).await;
        }
    }

    fn progress(&self) -> Progress {
        let mut sent = self.uploader.sent();
        sent.delivered_bytes -= self.delivered_before;
        let read = self.read.load(Ordering::Relaxed);
        let (files_total, bytes_total) = self.total;
        let slowest = sent.slowest.as_ref().map(|(key, bytes)| {
            let name = self.peers.get(key).map_or_else(|| key.0.clone(), |peer| peer.name);
            (name, *bytes)
        });
        Progress {
            phase: Phase::Upload,
            files_done: self.files.load(Ordering::Relaxed),
            files_total: Some(files_total),
            bytes_done: arrived(read, bytes_total, self.read_ahead_max, &sent),
            bytes_total: Some(bytes_total),
            current: None,
            bytes_delivered: Some(sent.delivered_bytes),
            bytes_to_deliver: Some(sent.waiting_bytes),
            slowest: slowest.as_ref().map(|(name, _)| name.clone()),
            bytes_to_slowest: slowest.map(|(_, bytes)| bytes),
        }
    }
}

/// The part of what was read that has arrived. What is read but not sealed is not counted, unless it must have been known
/// already; of what is sealed, the part that peers have acknowledged.
fn arrived(read: u64, total: u64, read_ahead_max: u64, sent: &Sent) -> u64 {
    let stored = sent.delivered_bytes + sent.waiting_bytes;
    if stored == 0 {
        return read.saturating_sub(read_ahead_max);
    }
    let sealed = if read >= total {
        total
    } else {
        read.saturating_sub(read_ahead_max.min(read / 2))
    };
    (u128::from(sealed) * u128::from(sent.delivered_bytes) / u128::from(stored)) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn at(read: u64, delivered: u64, waiting: u64) -> u64 {
        let sent = Sent {
            delivered_bytes: delivered * MIB,
            waiting_bytes: waiting * MIB,
            slowest: None,
        };
        arrived(read * MIB, 28 * MIB, 48 * MIB, &sent) / MIB
    }

    /// The story: 28.6 of 28.6 MiB, 100 %, "0s left" from second 3 to second 54: everything was read, and nothing sent.
    #[test]
    fn what_was_read_has_not_arrived() {
        assert_eq!(at(28, 0, 0), 0, "read, not sealed yet");
        assert_eq!(at(28, 0, 48), 0);
        assert_eq!(at(28, 24, 24), 14);
        assert_eq!(at(28, 47, 1), 27);
        assert_eq!(at(28, 48, 0), 28);
        assert!(at(14, 10, 0) < 14, "the rest of what was read is not sealed yet");
    }
}
