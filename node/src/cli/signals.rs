//! Ctrl-C and SIGTERM: the first asks for a clean stop, the second ends the process at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use api::failure::{Exit, Failure};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// The word to stop, and which signal gave it.
#[derive(Clone, Debug)]
pub struct Signals {
    /// Cancelled at the first signal.
    pub stop: CancellationToken,
    interrupted: Arc<AtomicBool>,
}

impl Signals {
    /// Listens from now on.
    pub fn listen() -> Result<Self, Failure> {
        let failed = |error: std::io::Error| Failure::context("Signals cannot be caught", &error);
        let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
        let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
        let signals = Self {
            stop: CancellationToken::new(),
            interrupted: Arc::default(),
        };
        let seen = signals.clone();
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    _ = interrupt.recv() => seen.interrupted.store(true, Ordering::SeqCst),
                    _ = terminate.recv() => {}
                }
                if seen.stop.is_cancelled() {
                    // Crash-safe is clean enough for who asks twice.
                    std::process::exit(Exit::Interrupted.code().into());
                }
                seen.stop.cancel();
            }
        });
        Ok(signals)
    }

    /// Was one of them Ctrl-C?
    pub fn interrupted(&self) -> bool {
        self.interrupted.load(Ordering::SeqCst)
    }
}
