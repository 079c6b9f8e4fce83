//! A disk as of its last commit, for whoever is not its writer: no voter is asked, and nothing is written to any peer.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use api::failure::{Exit, Failure};
use disk::Device;
use disk::running::view::view;
use tokio::runtime::Handle;

use super::known::KnownDisk;
use crate::{Engine, failures};

/// What is read at once has scratch folders of its own.
static VIEWS: AtomicU64 = AtomicU64::new(0);

/// A disk, or a snapshot of it, to read.
pub(super) struct CommittedView {
    /// What is read.
    pub device: Arc<dyn Device>,
    scratch: PathBuf,
}

impl Drop for CommittedView {
    fn drop(&mut self) {
        let _scratch = std::fs::remove_dir_all(&self.scratch);
        // Of a disk of which nothing else is here.
        let _unless_used = self.scratch.parent().map(std::fs::remove_dir);
    }
}

impl Engine {
    /// The disk as of the newest commit that any head names which can be reached, or a snapshot of it.
    pub(super) async fn committed_view(
        &self,
        known: &KnownDisk,
        snapshot: Option<&str>,
    ) -> Result<CommittedView, Failure> {
        let head = known.head.as_ref().ok_or_else(|| super::claim::no_head(known))?;
        let root = self.root_at(known, &head.root).await?;
        let at = match snapshot {
            None => head.root.clone(),
            Some(name) => {
                let mut snapshots = root.snapshots.iter();
                let entry = snapshots.find(|entry| entry.name == name).ok_or_else(|| {
                    Failure::new(Exit::Failed, format!("`{}` has no snapshot `{name}`", known.name))
                        .hint("`gridbackup disk info` lists its snapshots")
                })?;
                entry.root.clone()
            }
        };
        let number = VIEWS.fetch_add(1, Ordering::Relaxed);
        let scratch = self
            .disk_records()
            .folder_of(known.volume)
            .join(format!("view-{number}"));
        // Of a process before this one.
        let _none = std::fs::remove_dir_all(&scratch);
        let (packs, volume, of) = (self.disk_packs().await?, known.volume, scratch.clone());
        let runtime = Handle::current();
        let opening = tokio::task::spawn_blocking(move || view(&at, &of, volume, packs, runtime));
        let device = opening.await.map_err(failures::worker)?.map_err(|error| {
            let _scratch = std::fs::remove_dir_all(&scratch);
            Failure::new(
                Exit::TooFewShares,
                format!("`{}` cannot be read now: {error}", known.name),
            )
            .hint("try again when more peers are up")
        })?;
        Ok(CommittedView { device, scratch })
    }
}
