//! Group commit: one thread that syncs, and answers all who waited when it began.

use std::sync::mpsc;
use std::thread;

use futures::channel::oneshot;

/// Why it was not done; those who waited together are told the same.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct FlushError(pub String);

type Waiter = oneshot::Sender<Result<(), FlushError>>;

/// The thread; it ends when this is dropped, after those who wait.
pub struct Flusher {
    waiters: Option<mpsc::Sender<Waiter>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Flusher {
    /// Starts the thread that calls `sync`, which makes all durable that was there when it was called.
    pub fn start(mut sync: impl FnMut() -> Result<(), FlushError> + Send + 'static) -> std::io::Result<Self> {
        let (waiters, waiting) = mpsc::channel::<Waiter>();
        let thread = thread::Builder::new().name("disk-flush".to_owned()).spawn(move || {
            while let Ok(first) = waiting.recv() {
                let all: Vec<_> = std::iter::once(first).chain(waiting.try_iter()).collect();
                let done = sync();
                for waiter in all {
                    // Who does not wait any more needs no answer.
                    let _ = waiter.send(done.clone());
                }
            }
        })?;
        Ok(Self {
            waiters: Some(waiters),
            thread: Some(thread),
        })
    }

    /// Done when all is durable that was there before the call. May be dropped.
    pub fn flush(&self) -> impl Future<Output = Result<(), FlushError>> + Send + use<> {
        let (waiter, answer) = oneshot::channel();
        if let Some(waiters) = &self.waiters {
            // Without the thread the answer is that there is none.
            let _ = waiters.send(waiter);
        }
        async {
            answer
                .await
                .unwrap_or_else(|_| Err(FlushError("The flushing thread ended".to_owned())))
        }
    }
}

impl Drop for Flusher {
    fn drop(&mut self) {
        self.waiters = None;
        if let Some(thread) = self.thread.take() {
            // It has nothing to say.
            let _ = thread.join();
        }
    }
}
