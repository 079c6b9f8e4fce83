//! What a machine has of a volume that another one took over: its last commit, and on top what it had not committed. To read, for a new volume to
//! be made of it; nothing is changed by that.

use std::path::Path;
use std::sync::Arc;

use tokio::runtime::Handle;

use super::error::OpenError;
use super::{BLOCKS_CACHE_BYTES, PATIENCE, writer};
use crate::commit::opening::{PackReader, open};
use crate::committed::CommittedBlocks;
use crate::device::{Device, DeviceError};
use crate::extents::MapOptions;
use crate::journal::{JournalKey, JournalOptions};
use crate::volume::{Volume, VolumeOptions};

/// Opens what the folder has, as of the last commit that was this machine's. `scratch` is a folder for a map, which may be removed afterwards.
pub fn salvage(
    folder: &Path,
    scratch: &Path,
    volume: [u8; 16],
    reader: Arc<dyn PackReader>,
    runtime: Handle,
) -> Result<Arc<dyn Device>, OpenError> {
    let nothing = || OpenError::Damaged {
        path: folder.to_owned(),
        reason: "it has nothing of this disk".to_owned(),
    };
    durable::create_folders(&folder.join("journal"))?;
    let writer = writer::read(folder, volume)?.ok_or_else(nothing)?.file;
    let at = writer.at.as_ref().ok_or_else(nothing)?;
    let opened = open(at, reader, MapOptions::new(scratch.join("map"), volume), false)?;
    let root = &opened.committed.root;
    if root.volume != volume || root.commit != writer.commit {
        return Err(DeviceError::Damaged("what the folder names is not the root of this disk".to_owned()).into());
    }
    let options = VolumeOptions {
        journal: JournalOptions::new(folder.join("journal")),
        size: root.size,
        is_read_only: true,
        patience: PATIENCE,
    };
    let key = JournalKey::new(&writer.secret, writer.journal);
    let blocks = Arc::new(CommittedBlocks::new(opened, BLOCKS_CACHE_BYTES, runtime));
    // The journal of a writer that had committed begins behind its commit; of one that had not, at its own beginning.
    blocks.write_with(writer.journal);
    Ok(Arc::new(Volume::open(options, key, blocks)?))
}
