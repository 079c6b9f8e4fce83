//! A disk's device for as long as this machine is its writer: nothing is acknowledged that another machine's writes could contradict.

use std::sync::Arc;
use std::time::Duration;

use disk::claim::writer::Service;
use disk::{Change, Device, DeviceError, Extent};
use futures::future::BoxFuture;

use crate::voting::Voting;

/// Between two looks whether writes may be acknowledged again.
const LOOK: Duration = Duration::from_millis(100);

/// A device that acknowledges for as long as this machine is the disk's writer.
pub struct Claimed {
    device: Arc<dyn Device>,
    voting: Voting,
}

impl Claimed {
    /// Of this device.
    pub fn new(device: Arc<dyn Device>, voting: Voting) -> Self {
        Self { device, voting }
    }

    /// Whether writes may go on; false: they wait.
    fn may_go_on(&self) -> Result<bool, DeviceError> {
        match self.voting.service() {
            Service::Open => Ok(true),
            Service::Stalled | Service::NotYet => Ok(false),
            Service::Failing => Err(DeviceError::Unavailable(
                "for minutes no majority of the disk's voters has answered".to_owned(),
            )),
            Service::Fenced => Err(DeviceError::Unavailable(
                "another machine has taken the disk over".to_owned(),
            )),
        }
    }

    async fn wait(&self) -> Result<(), DeviceError> {
        while !self.may_go_on()? {
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }
}

impl Device for Claimed {
    fn size(&self) -> u64 {
        self.device.size()
    }

    fn is_read_only(&self) -> bool {
        self.device.is_read_only()
    }

    fn apply(&self, changes: &[Change<'_>]) -> Result<(), DeviceError> {
        // Most wait in `ready`; here does who was let in just before.
        while !self.may_go_on()? {
            std::thread::sleep(LOOK);
        }
        self.device.apply(changes)
    }

    fn ready(&self, bytes: u64) -> BoxFuture<'_, Result<(), DeviceError>> {
        Box::pin(async move {
            self.wait().await?;
            self.device.ready(bytes).await
        })
    }

    fn flush(&self) -> BoxFuture<'_, Result<(), DeviceError>> {
        Box::pin(async move {
            self.device.flush().await?;
            self.wait().await
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
