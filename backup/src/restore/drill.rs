//! A drill: files of a snapshot are read from the grid, as after a loss, and compared with those on the disk. Nothing is
//! written. Which files is for the caller's randomness to say.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;

use proto::log_record::{Content, Entry, EntryKind, Meta};
use proto::size::KIB;
use rustix::fs::OFlags;

use crate::catalog::tree;
use crate::restore::{Reader, RestoreError};
use crate::source::long_path;

/// A file to be read.
#[derive(Clone, Debug, PartialEq)]
pub struct Picked {
    /// Absolute.
    pub path: Vec<u8>,
    /// As the snapshot has it.
    pub meta: Meta,
}

/// How a file that could be read compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compared {
    /// The disk has the same bytes.
    Identical,
    /// On the disk it is gone, or has another length or modification time.
    ChangedSince,
    /// The disk says it is the same, and has other bytes.
    Differs,
}

impl Reader {
    /// Picks up to `count` files of a snapshot, each as likely as any other: those that have content on the grid, of at
    /// most `bytes_max`. `below(n)` gives a random number below `n`.
    pub fn pick(
        &self,
        snapshot: u64,
        count: usize,
        bytes_max: u64,
        below: &mut dyn FnMut(u64) -> u64,
    ) -> Result<Vec<Picked>, RestoreError> {
        let mut picked: Vec<Picked> = Vec::new();
        let mut seen = 0;
        let eligible = |entry: &Entry| {
            let is_file = entry.kind == EntryKind::File && matches!(entry.content, Content::Version(_));
            is_file && entry.meta.size <= bytes_max
        };
        self.db.read(|conn| {
            tree::walk(conn, snapshot, b"/", &mut |path, entry| {
                if !eligible(entry) {
                    return Ok::<_, RestoreError>(true);
                }
                // Reservoir sampling: the n-th replaces one of those kept with probability count / n.
                seen += 1;
                let slot = if picked.len() < count {
                    picked.len()
                } else {
                    below(seen) as usize
                };
                if slot < count {
                    let found = Picked {
                        path: path.to_vec(),
                        meta: entry.meta.clone(),
                    };
                    match picked.get_mut(slot) {
                        Some(place) => *place = found,
                        None => picked.push(found),
                    }
                }
                Ok(true)
            })
        })?;
        Ok(picked)
    }

    /// Reads a file from the grid, every chunk checked against its id, and compares it with the disk's. Blocking.
    pub fn drill(&self, snapshot: u64, picked: &Picked) -> Result<(Compared, u64), RestoreError> {
        let mut beside = Beside::open(picked);
        let bytes = self.cat(snapshot, &picked.path, &mut beside)?;
        Ok((beside.result(picked), bytes))
    }
}

/// Takes content and holds the disk's against it.
struct Beside {
    live: Option<File>,
    buffer: Vec<u8>,
    differs: bool,
}

impl Beside {
    fn open(picked: &Picked) -> Self {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let live = long_path::open(&picked.path, flags).ok().map(File::from);
        let live = live.filter(|file| is_same(file, &picked.meta));
        Self {
            live,
            buffer: vec![0; 64 * KIB],
            differs: false,
        }
    }

    fn result(mut self, picked: &Picked) -> Compared {
        // A file that was written meanwhile proves nothing.
        let Some(live) = self.live.take().filter(|file| is_same(file, &picked.meta)) else {
            return Compared::ChangedSince;
        };
        let ended = (&live).read(&mut self.buffer).is_ok_and(|more| more == 0);
        match self.differs || !ended {
            true => Compared::Differs,
            false => Compared::Identical,
        }
    }
}

fn is_same(file: &File, meta: &Meta) -> bool {
    file.metadata().is_ok_and(|found| {
        let mtime_ns = found
            .mtime()
            .saturating_mul(1_000_000_000)
            .saturating_add(found.mtime_nsec());
        found.is_file() && found.len() == meta.size && mtime_ns == meta.mtime_ns
    })
}

impl Write for Beside {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let now = bytes.len().min(self.buffer.len());
        if let Some(live) = &mut self.live
            && !self.differs
        {
            let read = live.read_exact(&mut self.buffer[..now]);
            self.differs = read.is_err() || self.buffer[..now] != bytes[..now];
        }
        Ok(now)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStrExt;
    use std::path::Path;

    use super::*;

    fn beside(path: &Path, meta: &Meta, content: &[u8]) -> Compared {
        let picked = Picked {
            path: path.as_os_str().as_bytes().to_vec(),
            meta: meta.clone(),
        };
        let mut beside = Beside::open(&picked);
        beside.write_all(content).unwrap();
        beside.result(&picked)
    }

    #[test]
    fn the_disk_is_held_against_what_was_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let content = vec![7; 200_000];
        std::fs::write(&path, &content).unwrap();
        let found = std::fs::metadata(&path).unwrap();
        let meta = Meta {
            size: found.len(),
            mtime_ns: found.mtime() * 1_000_000_000 + found.mtime_nsec(),
            ..Meta::default()
        };
        assert_eq!(beside(&path, &meta, &content), Compared::Identical);
        let mut other = content.clone();
        other[150_000] = 8;
        assert_eq!(beside(&path, &meta, &other), Compared::Differs);
        assert_eq!(beside(&path, &meta, &content[1..]), Compared::Differs);
        let older = Meta {
            mtime_ns: 5,
            ..meta.clone()
        };
        assert_eq!(beside(&path, &older, &content), Compared::ChangedSince);
        assert_eq!(beside(folder.path(), &meta, &content), Compared::ChangedSince);
        std::fs::remove_file(&path).unwrap();
        assert_eq!(beside(&path, &meta, &content), Compared::ChangedSince);
    }
}
