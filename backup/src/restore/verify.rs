//! Reading back what was written, from the disk and not from memory, and comparing it with the chunk ids.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use proto::cap_index::Extent;
use rustix::fs::Advice;

use crate::restore::{Reader, RestoreError};

impl Reader {
    /// Checks every chunk of a file that was just written.
    pub(super) fn read_back(&self, file: &File, extents: &[Extent]) -> Result<(), RestoreError> {
        let failed = |source: io::Error| RestoreError::Target {
            path: "What was written".into(),
            source,
        };
        drop_cache(file).map_err(failed)?;
        let mut offset = 0;
        let mut buffer = Vec::new();
        for extent in extents {
            match extent {
                Extent::Hole(len) => offset += len,
                Extent::Chunk(id, len) => {
                    buffer.resize(*len as usize, 0);
                    file.read_exact_at(&mut buffer, offset).map_err(failed)?;
                    if self.keys.put.chunk_id(&buffer) != *id {
                        return Err(differs(offset));
                    }
                    offset += u64::from(*len);
                }
            }
        }
        Ok(())
    }
}

/// Checks a file whose content is at hand.
pub(super) fn read_back_whole(file: &File, content: &[u8]) -> io::Result<()> {
    drop_cache(file)?;
    let mut found = vec![0; content.len()];
    file.read_exact_at(&mut found, 0)?;
    match found == content {
        true => Ok(()),
        false => Err(io::Error::other(differs(0))),
    }
}

fn drop_cache(file: &File) -> io::Result<()> {
    file.sync_data()?;
    Ok(rustix::fs::fadvise(file, 0, None, Advice::DontNeed)?)
}

fn differs(offset: u64) -> RestoreError {
    RestoreError::Damaged {
        what: "What was written".to_owned(),
        reason: format!("it reads back different from byte {offset} on; check the disk"),
    }
}
