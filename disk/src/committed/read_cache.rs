//! Slots that were read, in a file on this disk: what does not fit in memory need not come from peers again.
//!
//! Each block is sealed with a key that is in memory alone, and the file has no name: nothing of it outlives the process. It is a cache and no
//! more: what cannot be written or opened again is fetched as if it had never been there. Reading does not wait for writing.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use rustix::fs::{FallocateFlags, fallocate, fstatvfs};

use crate::commit::PackNumber;
use crate::extents::SLOT_BLOCKS;
use crate::journal::record::{BLOCK_BYTES, SEALED_BYTES};
use crate::journal::{BlockCipher, Cipher};

/// Bytes of a line: a slot, sealed.
const LINE_BYTES: u64 = SLOT_BLOCKS as u64 * SEALED_BYTES;
/// Lines that the file grows by: 64 MiB.
const GROWTH: usize = 1024;
/// Bytes of the disk that are left to others. Chosen: twice the usual journal, which has to find its room.
const LEFT_FREE_BYTES: u64 = 4 << 30;
/// Slots that wait for being written; more are not kept. Chosen: what is read ahead at a time, twice.
const WAITING_MAX: usize = 128;
/// The file's name, for a moment.
const NAME: &str = "read-cache";

type Key = (PackNumber, u32);

/// The cache. Its thread ends with it.
pub(super) struct ReadCache {
    lines: Arc<Lines>,
    waiting: SyncSender<(Key, Arc<Vec<u8>>)>,
}

struct Lines {
    file: File,
    cipher: BlockCipher,
    lines_max: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    lines: Vec<Line>,
    by_key: HashMap<Key, usize>,
    /// Lines that the file has room for.
    room: usize,
    /// The next line that is looked at for being used again.
    hand: usize,
    /// How often a line was written: no place is sealed twice with one nonce.
    round: u64,
}

struct Line {
    /// What is in it; none while it is written.
    key: Option<Key>,
    round: u64,
    blocks: usize,
    was_asked_for: bool,
}

impl ReadCache {
    /// An empty one of at most so many bytes, in this folder.
    pub fn new(folder: &Path, bytes_max: u64) -> io::Result<Self> {
        let path = folder.join(NAME);
        let file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .mode(0o600)
            .truncate(true)
            .open(&path)?;
        fs::remove_file(&path)?;
        let mut key = [0; 32];
        getrandom::fill(&mut key).map_err(|error| io::Error::other(error.to_string()))?;
        let lines = Arc::new(Lines {
            file,
            cipher: BlockCipher::new(Cipher::of_this_machine(), &key),
            lines_max: usize::try_from(bytes_max / LINE_BYTES).unwrap_or(usize::MAX),
            state: Mutex::default(),
        });
        let (waiting, slots) = sync_channel(WAITING_MAX);
        let writing = lines.clone();
        thread::Builder::new()
            .name("disk-read-cache".to_owned())
            .spawn(move || writing.write_all(&slots))?;
        Ok(Self { lines, waiting })
    }

    /// Keeps a slot, soon; or not, if too much waits.
    pub fn put(&self, pack: PackNumber, slot: u32, blocks: &Arc<Vec<u8>>) {
        let _or_it_is_fetched_again = self.waiting.try_send(((pack, slot), blocks.clone()));
    }

    /// Reads blocks of a slot, from one of them on; false if they are not here.
    pub fn read(&self, pack: PackNumber, slot: u32, from: usize, into: &mut [u8]) -> bool {
        self.lines.read((pack, slot), from, into)
    }

    /// Whether a slot is here.
    pub fn has(&self, pack: PackNumber, slot: u32) -> bool {
        self.lines.lock().by_key.contains_key(&(pack, slot))
    }
}

impl Lines {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_all(&self, slots: &Receiver<(Key, Arc<Vec<u8>>)>) {
        let mut sealed = Vec::new();
        for (key, blocks) in slots {
            if let Err(error) = self.write(key, &blocks, &mut sealed) {
                tracing::debug!(%error, "a slot of a disk is not kept");
            }
        }
    }

    fn write(&self, key: Key, blocks: &[u8], sealed: &mut Vec<u8>) -> io::Result<()> {
        let Some((at, round)) = self.take_line(key)? else {
            return Ok(());
        };
        sealed.clear();
        for (block, number) in blocks.chunks_exact(BLOCK_BYTES).zip(0..) {
            self.cipher.seal(block, nonce(round, number), sealed);
        }
        self.file.write_all_at(sealed, at as u64 * LINE_BYTES)?;
        let mut state = self.lock();
        state.lines[at] = Line {
            key: Some(key),
            round,
            blocks: blocks.len() / BLOCK_BYTES,
            was_asked_for: false,
        };
        state.by_key.insert(key, at);
        Ok(())
    }

    /// A line that nothing is in, and the number of this writing; none if the slot is here, or there is no line to be had.
    fn take_line(&self, key: Key) -> io::Result<Option<(usize, u64)>> {
        let mut state = self.lock();
        if state.by_key.contains_key(&key) || self.lines_max == 0 {
            return Ok(None);
        }
        state.round += 1;
        let round = state.round;
        if state.lines.len() == state.room && state.room < self.lines_max {
            drop(state);
            let grown = self.grow();
            state = self.lock();
            // Without room it stays as large as it is, until the next slot tries.
            if let Err(error) = grown.map(|room| state.room = room)
                && state.lines.is_empty()
            {
                return Err(error);
            }
        }
        if state.lines.len() < state.room {
            state.lines.push(Line {
                key: None,
                round,
                blocks: 0,
                was_asked_for: false,
            });
            return Ok(Some((state.lines.len() - 1, round)));
        }
        // CLOCK: who was asked for since the hand came by last stays. It ends, as one round of it leaves nobody who was.
        loop {
            let at = state.hand % state.lines.len();
            state.hand = at + 1;
            let line = &mut state.lines[at];
            if std::mem::take(&mut line.was_asked_for) {
                continue;
            }
            if let Some(old) = line.key.take() {
                state.by_key.remove(&old);
            }
            return Ok(Some((at, round)));
        }
    }

    /// Makes the file longer, and says how many lines it has room for. The room is taken at once: a disk that runs full later takes nothing from
    /// what is kept.
    fn grow(&self) -> io::Result<usize> {
        let lines = self.lock().room;
        let more = GROWTH.min(self.lines_max - lines);
        let stat = fstatvfs(&self.file)?;
        let bytes = more as u64 * LINE_BYTES;
        if stat.f_bavail.saturating_mul(stat.f_frsize) < bytes + LEFT_FREE_BYTES {
            return Err(io::ErrorKind::StorageFull.into());
        }
        fallocate(&self.file, FallocateFlags::empty(), lines as u64 * LINE_BYTES, bytes)?;
        Ok(lines + more)
    }

    fn read(&self, key: Key, from: usize, into: &mut [u8]) -> bool {
        let count = into.len() / BLOCK_BYTES;
        let (at, round) = {
            let mut state = self.lock();
            let Some(at) = state.by_key.get(&key).copied() else {
                return false;
            };
            let line = &mut state.lines[at];
            if from + count > line.blocks {
                return false;
            }
            line.was_asked_for = true;
            (at, line.round)
        };
        // The line may be written anew by now: then nothing of it opens.
        let mut sealed = [0; LINE_BYTES as usize];
        let sealed = &mut sealed[..count * SEALED_BYTES as usize];
        let offset = at as u64 * LINE_BYTES + from as u64 * SEALED_BYTES;
        if self.file.read_exact_at(sealed, offset).is_err() {
            return false;
        }
        let mut blocks = into
            .chunks_exact_mut(BLOCK_BYTES)
            .zip(sealed.chunks_exact_mut(SEALED_BYTES as usize))
            .zip(from as u32..);
        blocks.all(|((block, sealed), number)| self.cipher.open(sealed, nonce(round, number), block))
    }
}

/// Of a block of a line, in one writing of it.
fn nonce(round: u64, block: u32) -> [u8; 12] {
    let mut nonce = [0; 12];
    nonce[..8].copy_from_slice(&round.to_le_bytes());
    nonce[8..].copy_from_slice(&block.to_le_bytes());
    nonce
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot(fill: u8, blocks: usize) -> Arc<Vec<u8>> {
        Arc::new(
            (0..blocks)
                .flat_map(|block| [fill ^ block as u8; BLOCK_BYTES])
                .collect(),
        )
    }

    fn keep(cache: &ReadCache, slot: u32, blocks: &[u8]) {
        cache.lines.write((1, slot), blocks, &mut Vec::new()).unwrap();
    }

    #[test]
    fn slots_come_back_as_they_were_and_the_least_wanted_make_room() {
        let dir = tempfile::tempdir().unwrap();
        let cache = ReadCache::new(dir.path(), LINE_BYTES * 10).unwrap();
        assert!(fs::read_dir(dir.path()).unwrap().next().is_none(), "it has no name");
        let mut block = vec![0; 2 * BLOCK_BYTES];
        for number in 0..100 {
            keep(&cache, number, &slot(number as u8, 3));
            assert!(cache.read(1, 0, 0, &mut block), "the first is wanted again and again");
            assert!(block == slot(0, 2)[..]);
        }
        let here: Vec<_> = (0..100).filter(|number| cache.has(1, *number)).collect();
        assert_eq!(here.len(), 10);
        for number in here {
            assert!(cache.read(1, number, 1, &mut block) && block == slot(number as u8, 3)[BLOCK_BYTES..]);
            assert!(!cache.read(1, number, 2, &mut block), "it has three blocks");
        }
        assert!(!cache.read(2, 0, 0, &mut block), "another pack's");
    }

    #[test]
    fn what_rotted_or_was_written_over_meanwhile_is_as_if_it_were_not_here() {
        let dir = tempfile::tempdir().unwrap();
        let cache = ReadCache::new(dir.path(), LINE_BYTES).unwrap();
        keep(&cache, 7, &slot(7, 16));
        let mut block = vec![0; BLOCK_BYTES];
        cache.lines.file.write_all_at(&[1], SEALED_BYTES + 5).unwrap();
        assert!(!cache.read(1, 7, 1, &mut block));
        assert!(cache.read(1, 7, 0, &mut block) && block == slot(7, 1)[..]);
        // Another slot's bytes, as a reader finds them that looked for its line before that was used again.
        let (mut sealed, round) = (Vec::new(), cache.lines.lock().round + 1);
        cache.lines.cipher.seal(&block, nonce(round, 0), &mut sealed);
        cache.lines.file.write_all_at(&sealed, 0).unwrap();
        assert!(!cache.read(1, 7, 0, &mut block));
    }

    #[test]
    fn what_is_put_is_here_soon() {
        let dir = tempfile::tempdir().unwrap();
        let cache = ReadCache::new(dir.path(), 1 << 20).unwrap();
        cache.put(1, 7, &slot(7, 16));
        while !cache.has(1, 7) {
            thread::yield_now();
        }
        let mut blocks = vec![0; 16 * BLOCK_BYTES];
        assert!(cache.read(1, 7, 0, &mut blocks) && blocks == *slot(7, 16));
    }
}
