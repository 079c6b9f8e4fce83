//! A disk's device with another promise: what is flushed is on peers (`--sync grid`).

use std::sync::Arc;
use std::time::Duration;

use disk::{Change, Device, DeviceError, Extent};
use futures::future::BoxFuture;

use crate::open::OpenDisk;

/// How long a flush waits for peers before it fails. Chosen: as a kernel does that is told to (`nbd-client -timeout`).
const PATIENCE: Duration = Duration::from_secs(300);

/// The device of an open disk, whose flush is a commit.
pub struct OnPeers {
    device: Arc<dyn Device>,
    disk: Arc<OpenDisk>,
}

impl OnPeers {
    /// Of this disk.
    pub fn new(disk: Arc<OpenDisk>) -> Self {
        Self {
            device: disk.device(),
            disk,
        }
    }
}

impl Device for OnPeers {
    fn size(&self) -> u64 {
        self.device.size()
    }

    fn is_read_only(&self) -> bool {
        self.device.is_read_only()
    }

    fn apply(&self, changes: &[Change<'_>]) -> Result<(), DeviceError> {
        self.device.apply(changes)
    }

    fn ready(&self, bytes: u64) -> BoxFuture<'_, Result<(), DeviceError>> {
        self.device.ready(bytes)
    }

    fn flush(&self) -> BoxFuture<'_, Result<(), DeviceError>> {
        let disk = self.disk.clone();
        Box::pin(async move {
            let committed = disk.committed(PATIENCE).await;
            committed.map_err(|error| DeviceError::Unavailable(error.to_string()))
        })
    }

    fn read_now(&self, offset: u64, into: &mut [u8]) -> Result<bool, DeviceError> {
        self.device.read_now(offset, into)
    }

    fn read(&self, offset: u64, length: usize) -> BoxFuture<'_, Result<Vec<u8>, DeviceError>> {
        self.device.read(offset, length)
    }

    fn extents(&self, offset: u64, length: u64) -> Result<Vec<Extent>, DeviceError> {
        self.device.extents(offset, length)
    }

    fn prefetch(&self, offset: u64, length: u64) {
        self.device.prefetch(offset, length);
    }
}
