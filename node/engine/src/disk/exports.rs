//! What an NBD server shows of a disk: itself, and each of its snapshots as `NAME@SNAPSHOT`, which is only read.

use std::sync::Arc;

use disk::Device;
use disk::nbd::exports::{Export, Exports};
use disks::open::OpenDisk;

/// Between the names of a disk and of its snapshot.
const OF: char = '@';

/// The exports of a disk.
pub(super) struct DiskExports {
    pub name: String,
    pub disk: Arc<OpenDisk>,
    /// As it is served for writing.
    pub device: Arc<dyn Device>,
}

impl Exports for DiskExports {
    fn names(&self) -> Vec<String> {
        let snapshots = self.disk.root().snapshots;
        let of = snapshots
            .iter()
            .map(|snapshot| format!("{}{OF}{}", self.name, snapshot.name));
        std::iter::once(self.name.clone()).chain(of).collect()
    }

    fn find(&self, name: &str) -> Option<Export> {
        if name.is_empty() || name == self.name {
            return Some(Export {
                name: self.name.clone(),
                description: "a disk of gridbackup".to_owned(),
                device: self.device.clone(),
            });
        }
        let (of, snapshot) = name.split_once(OF)?;
        if of != self.name {
            return None;
        }
        match self.disk.snapshot(snapshot) {
            Ok(device) => Some(Export {
                name: name.to_owned(),
                description: "a snapshot of a disk of gridbackup".to_owned(),
                device,
            }),
            Err(error) => {
                tracing::info!("A client asked for {name}: {error}");
                None
            }
        }
    }
}
