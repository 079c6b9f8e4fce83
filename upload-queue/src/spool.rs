//! Sealed shares on disk that still wait for their peer: one file a share, durable before the database names it.
//!
//! `<spool>/<share id>` holds the stored form. The folder is flat: it is bounded, and one sync of it then covers a pack.
//! The database says what is in here; files that it does not name are left over from a crash and are swept at start.

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use proto::id::ShareId;
use proto::shape::ShareSize;
use proto::share::Share;

use crate::space::{Disk, MinFree};

/// Ending of files that are being written.
const TEMP_SUFFIX: &str = ".new";

/// A file of the spool could not be used.
#[derive(Debug, thiserror::Error)]
#[error("The spool {path} failed: {source}")]
pub struct SpoolError {
    /// The file.
    pub path: PathBuf,
    /// What the system said.
    pub source: io::Error,
}

/// The folder of shares that wait.
#[derive(Clone, Debug)]
pub struct Spool {
    folder: PathBuf,
}

impl Spool {
    /// Opens the spool, making its folder if it is not there.
    pub fn open(folder: &Path) -> Result<Self, SpoolError> {
        durable::create_folders(folder).map_err(|source| failed(folder, source))?;
        Ok(Self {
            folder: folder.to_owned(),
        })
    }

    /// Writes shares; all are durable when this returns, or none is left behind. Equal shares are one file.
    pub fn write(&self, shares: &[(ShareId, Share)]) -> Result<(), SpoolError> {
        let written = self.write_and_rename(shares);
        if written.is_err() {
            for (id, _) in shares {
                let _ = std::fs::remove_file(self.temp_path(*id));
                self.remove(*id);
            }
        }
        written
    }

    fn write_and_rename(&self, shares: &[(ShareId, Share)]) -> Result<(), SpoolError> {
        let mut files = Vec::with_capacity(shares.len());
        let mut seen = HashSet::new();
        for (id, share) in shares.iter().filter(|(id, _)| seen.insert(*id)) {
            let path = self.temp_path(*id);
            let file = durable::write_unsynced(&path, &[&share.data, &share.tail]);
            files.push((
                path.clone(),
                file.map_err(|source| failed(&path, source))?,
                self.path(*id),
            ));
        }
        // Synced after all are written: the disk has been at it meanwhile.
        for (path, file, _) in &files {
            durable::sync(file, path).map_err(|source| failed(path, source))?;
        }
        for (temp, _, path) in &files {
            durable::rename_unsynced(temp, path).map_err(|source| failed(path, source))?;
        }
        // One sync for all: none of them counts if it fails.
        durable::sync_directory_of(&self.folder.join(TEMP_SUFFIX)).map_err(|source| failed(&self.folder, source))
    }

    /// Bytes that shares may still take of its disk: some of it stays free.
    pub fn free_bytes(&self, min_free: MinFree) -> Result<u64, SpoolError> {
        let disk = Disk::of(&self.folder).map_err(|source| failed(&self.folder, source))?;
        Ok(disk.takable(min_free))
    }

    /// Reads a share back and checks it. `None`: it is missing or damaged.
    pub fn read(&self, id: ShareId) -> Result<Option<Share>, SpoolError> {
        let path = self.path(id);
        let len = match std::fs::metadata(&path) {
            Ok(meta) => meta.len(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(failed(&path, source)),
        };
        if len > ShareSize::LARGEST.stored_bytes() as u64 {
            return Ok(None);
        }
        let stored = match std::fs::read(&path) {
            Ok(stored) => stored,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(failed(&path, source)),
        };
        let share = Share::from_stored(Bytes::from(stored)).ok();
        Ok(share.filter(|share| share.verify(id).is_ok()))
    }

    /// Whether a share's file is there with this length, without reading it. What cannot be told is taken to be there.
    pub fn has(&self, id: ShareId, stored_bytes: u64) -> bool {
        match std::fs::metadata(self.path(id)) {
            Ok(meta) => meta.len() == stored_bytes,
            Err(error) => error.kind() != io::ErrorKind::NotFound,
        }
    }

    /// Removes a share. One that stays because of an error is swept at the next start.
    pub fn remove(&self, id: ShareId) {
        let path = self.path(id);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(path = %path.display(), %error, "a delivered share stays in the spool");
            }
            _ => {}
        }
    }

    /// Removes all files but those of `keep`; returns how many.
    pub fn sweep(&self, keep: &HashSet<ShareId>) -> Result<usize, SpoolError> {
        let mut removed = 0;
        let entries = std::fs::read_dir(&self.folder).map_err(|source| failed(&self.folder, source))?;
        for entry in entries {
            let entry = entry.map_err(|source| failed(&self.folder, source))?;
            let name = entry.file_name();
            let name = name.to_string_lossy();
            let ours = name.strip_suffix(TEMP_SUFFIX).unwrap_or(&name).parse::<ShareId>();
            // Files that were never ours are left alone: the folder is named in a config file.
            let Ok(id) = ours else { continue };
            if name.ends_with(TEMP_SUFFIX) || !keep.contains(&id) {
                match std::fs::remove_file(entry.path()) {
                    Ok(()) => removed += 1,
                    // A delivery that an uploader dropped just now had begun.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(source) => return Err(failed(&entry.path(), source)),
                }
            }
        }
        Ok(removed)
    }

    fn path(&self, id: ShareId) -> PathBuf {
        self.folder.join(id.to_string())
    }

    fn temp_path(&self, id: ShareId) -> PathBuf {
        self.folder.join(format!("{id}{TEMP_SUFFIX}"))
    }
}

fn failed(path: &Path, source: io::Error) -> SpoolError {
    SpoolError {
        path: path.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use durable::power_cut::{Found, Trial};

    use super::*;
    use crate::fixture::pack;

    fn spool() -> (tempfile::TempDir, Spool) {
        let folder = tempfile::tempdir().unwrap();
        let spool = Spool::open(&folder.path().join("spool")).unwrap();
        (folder, spool)
    }

    fn files(spool: &Spool) -> usize {
        std::fs::read_dir(&spool.folder).unwrap().count()
    }

    #[test]
    fn a_share_comes_back_as_it_was_until_it_is_removed() {
        let (_folder, spool) = spool();
        let shares = pack(1, 2, 3).shares;
        spool.write(&shares).unwrap();
        for (id, share) in &shares {
            assert!(spool.read(*id).unwrap().as_ref() == Some(share));
        }
        spool.remove(shares[0].0);
        assert!(spool.read(shares[0].0).unwrap().is_none());
        assert_eq!(files(&spool), 2);
    }

    #[test]
    fn equal_shares_are_one_file() {
        let (_folder, spool) = spool();
        spool.write(&pack(1, 1, 3).shares).unwrap();
        assert_eq!(files(&spool), 1);
    }

    #[test]
    fn a_damaged_or_cut_off_share_is_not_given_out() {
        let (_folder, spool) = spool();
        let shares = pack(1, 1, 1).shares;
        let id = shares[0].0;
        spool.write(&shares).unwrap();
        let whole = std::fs::read(spool.path(id)).unwrap();
        for at in [0, whole.len() / 2, whole.len() - 1] {
            let mut flipped = whole.clone();
            flipped[at] ^= 1;
            std::fs::write(spool.path(id), &flipped).unwrap();
            assert!(spool.read(id).unwrap().is_none(), "bit flipped at {at}");
        }
        for len in [0, 1, whole.len() - 1] {
            std::fs::write(spool.path(id), &whole[..len]).unwrap();
            assert!(spool.read(id).unwrap().is_none(), "cut off at {len}");
        }
    }

    #[test]
    fn a_write_that_fails_leaves_nothing_behind() {
        let (_folder, spool) = spool();
        let shares = pack(1, 2, 3).shares;
        // The last of the three cannot be made: a folder has its name.
        std::fs::create_dir(spool.temp_path(shares[2].0)).unwrap();
        let error = spool.write(&shares).unwrap_err();
        assert_eq!(error.path, spool.temp_path(shares[2].0));
        assert_eq!(files(&spool), 1);
    }

    #[test]
    fn shares_that_were_said_to_be_durable_survive_a_power_cut_after_any_step() {
        // Two, of which each can be there without the other.
        let shares = pack(1, 2, 3).shares[..2].to_vec();
        let spool_in = |root: &Path| Spool {
            folder: root.join("spool"),
        };
        let row = Trial {
            name: "Spool::write",
            ready: &|root| drop(Spool::open(&root.join("spool")).unwrap()),
            act: &|root| spool_in(root).write(&shares).map_err(|error| error.to_string()),
            found: &|root| {
                let spool = spool_in(root);
                let mut found = Found::New;
                for (id, share) in &shares {
                    match spool.read(*id) {
                        Ok(Some(read)) if read == *share => {}
                        Ok(None) if !spool.path(*id).exists() => found = Found::Old,
                        _ => return Found::Neither(format!("{id} is not whole")),
                    }
                }
                found
            },
        };
        println!("{}", row.run(tempfile::tempdir().unwrap().path()));
    }

    #[test]
    fn the_sweep_removes_what_no_row_names_and_what_was_half_written() {
        let (_folder, spool) = spool();
        let shares = pack(1, 2, 3).shares;
        spool.write(&shares).unwrap();
        std::fs::write(spool.temp_path(shares[1].0), b"half").unwrap();
        std::fs::write(spool.folder.join("notes.txt"), b"not ours").unwrap();
        assert_eq!(spool.sweep(&HashSet::from([shares[1].0])).unwrap(), 3);
        assert!(spool.read(shares[1].0).unwrap().is_some());
        assert_eq!(files(&spool), 2);
    }
}
