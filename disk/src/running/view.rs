//! A volume as of a commit, for whoever is not its writer: to read. Nothing of it is changed, and nothing of the writer's is asked for.

use std::path::Path;
use std::sync::Arc;

use proto::head::RootRef;
use tokio::runtime::Handle;

use super::BLOCKS_CACHE_BYTES;
use super::kept::Kept;
use crate::commit::opening::{PackReader, open};
use crate::committed::CommittedBlocks;
use crate::device::{Device, DeviceError};
use crate::extents::MapOptions;

/// The volume whose root lies at `at`. `scratch` is a folder for a map, which may be removed afterwards.
pub fn view(
    at: &RootRef,
    scratch: &Path,
    volume: [u8; 16],
    reader: Arc<dyn PackReader>,
    runtime: Handle,
) -> Result<Arc<dyn Device>, DeviceError> {
    let opened = open(at, reader, MapOptions::new(scratch.join("map"), volume), false)?;
    let blocks = CommittedBlocks::new(opened, BLOCKS_CACHE_BYTES, runtime);
    Ok(Arc::new(Kept::new(blocks)))
}
