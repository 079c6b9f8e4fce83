//! The thread that makes the journal's next file, so that no writer waits until all of one is written.

use std::io;
use std::sync::Arc;
use std::thread;

use super::shared::Shared;

/// The thread; it ends when this is dropped.
pub struct FileMaker {
    shared: Arc<Shared>,
    thread: Option<thread::JoinHandle<()>>,
}

impl FileMaker {
    /// Starts it.
    pub fn start(shared: Arc<Shared>) -> io::Result<Self> {
        let making = shared.clone();
        let thread = thread::Builder::new()
            .name("disk-files".to_owned())
            .spawn(move || making.make_files())?;
        Ok(Self {
            shared,
            thread: Some(thread),
        })
    }
}

impl Drop for FileMaker {
    fn drop(&mut self) {
        self.shared.make_no_files();
        if let Some(thread) = self.thread.take() {
            // It has nothing to say.
            let _ = thread.join();
        }
    }
}
