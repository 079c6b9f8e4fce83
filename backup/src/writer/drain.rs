//! The end of a run: waiting for what is on its way, and posting meanwhile.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use upload_queue::uploader::DrainReport;

use super::WriteError;
use super::run::{Run, TICK};

/// How long a run that was asked to stop waits for shares on their way.
const STOP_GRACE: Duration = Duration::from_secs(5);

impl Run<'_> {
    /// Waits for what is on its way, posting meanwhile.
    pub fn drain(&self) -> Result<DrainReport, WriteError> {
        let runtime = &self.writer.runtime;
        let uploader = self.writer.uploader.clone();
        let mut drained = runtime.spawn(async move { uploader.drain().await });
        let (mut last, mut stopped_at) = (Instant::now(), None);
        loop {
            if let Ok(joined) = runtime.block_on(async { tokio::time::timeout(TICK, &mut drained).await }) {
                return Ok(joined.map_err(|error| WriteError::Thread(error.to_string()))??);
            }
            if self.stop.load(Ordering::Relaxed) && stopped_at.get_or_insert_with(Instant::now).elapsed() > STOP_GRACE {
                drained.abort();
                return Ok(DrainReport::default());
            }
            if last.elapsed() >= self.post_interval() {
                self.checkpoint()?;
                last = Instant::now();
            }
        }
    }
}
