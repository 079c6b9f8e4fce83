//! Edits of a volume as a whole: snapshots, going back to one, another size; and what is made of a snapshot, a device to read, and the first
//! commit of a clone. Each edit is a commit.

use std::sync::{Arc, PoisonError, Weak};

use super::collector::Chosen;
use super::error::EditError;
use super::kept::Kept;
use super::{Accept, BLOCKS_CACHE_BYTES, Edited, Running, State, nothing};
use crate::commit::compose::{PackSink, Prepared, compose_work};
use crate::commit::lineage::{HELD_MAX, SNAPSHOTS_BYTES_MAX, SNAPSHOTS_MAX, SnapshotEntry, are_voters, bytes, is_name};
use crate::commit::opening::{open, state_at};
use crate::commit::root::{BLOCKS_MAX, Root};
use crate::commit::state::Committed;
use crate::commit::work::{Leaves, Work};
use crate::committed::CommittedBlocks;
use crate::device::{Device, DeviceError};
use crate::extents::MapOptions;
use crate::journal::record::BLOCK_BYTES;

/// Bytes that an entry is reckoned to grow by when its set is written.
const ENTRY_GROWTH: usize = 1024;

/// What is changed of a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Edit {
    /// What was written so far is kept under this name.
    Snapshot(String),
    /// A snapshot is deleted; refused while a clone of it is there, or somebody reads it.
    DeleteSnapshot(String),
    /// A snapshot is held for a volume that is cloned from it. Comes before the clone.
    Hold {
        /// The snapshot.
        snapshot: String,
        /// The volume.
        volume: [u8; 16],
    },
    /// The same undone: that volume is gone.
    LetGo {
        /// The snapshot.
        snapshot: String,
        /// The volume.
        volume: [u8; 16],
    },
    /// The volume is from now on what the snapshot is, its size with it. What it was is kept as a snapshot named `before-rollback-` and its
    /// commit. What is written while this is done comes on top, so no face serves the volume meanwhile.
    Rollback(String),
    /// Another size, in bytes; not a smaller one. The open device has it when the commit was accepted.
    Grow(u64),
    /// Another size, in bytes: what is beyond is trimmed first. The open device has it at once.
    Shrink(u64),
    /// Other voters. Those before are needed as well until `VotersTaken`; so this and that are to be accepted by majorities of both.
    Voters(Vec<[u8; 32]>),
    /// The voters before those that it has are needed no more: `Voters` was accepted.
    VotersTaken,
    /// Other voters, of which a majority is enough at once: a majority of those before is lost for good, whatever they said.
    VotersInstead(Vec<[u8; 32]>),
}

/// A volume that is to be made.
#[derive(Debug, Clone)]
pub struct NewVolume {
    /// Its id.
    pub volume: [u8; 16],
    /// Its name.
    pub name: String,
    /// Its voters.
    pub voters: Vec<[u8; 32]>,
}

impl Running {
    /// Makes an edit: first everything that was written before is committed, then the edit. If `accept` fails, the next `commit` goes on with
    /// what was offered; what was not offered yet is not made. Blocks.
    pub fn edit(
        &self,
        edit: &Edit,
        time_ns: i64,
        sink: &mut dyn PackSink,
        accept: &mut Accept<'_>,
    ) -> Result<(), EditError> {
        let mut state = self.lock();
        self.check_size(edit)?;
        if let Edit::Shrink(size) = edit {
            self.volume.resize(*size)?;
        }
        let written = self.volume.last_seq();
        self.find_offered(&mut state)?;
        while state.waiting.is_some() || self.root().journal < written {
            self.advance(&mut state, 0, time_ns, sink, accept)?;
        }
        let edited = self.edited(&mut state, edit, time_ns)?;
        let batch = nothing(self.root().journal);
        let chosen = Chosen::default();
        state.waiting = Some(self.prepare(&state, batch, chosen, edited, time_ns, sink)?);
        Ok(self.offer(&mut state, accept)?)
    }

    fn check_size(&self, edit: &Edit) -> Result<(), EditError> {
        let (Edit::Grow(size) | Edit::Shrink(size)) = edit else {
            return Ok(());
        };
        let (size, block) = (*size, BLOCK_BYTES as u64);
        if !size.is_multiple_of(block) || size == 0 || size / block > BLOCKS_MAX {
            return Err(EditError::NoSize(size));
        }
        let from = self.root().size;
        match edit {
            Edit::Grow(_) if size < from => Err(EditError::Smaller { from, to: size }),
            Edit::Shrink(_) if size > from => Err(EditError::NoSize(size)),
            _ => Ok(()),
        }
    }

    /// The last commit with the edit.
    fn edited(&self, state: &mut State, edit: &Edit, time_ns: i64) -> Result<Edited, EditError> {
        let mut last = self.blocks.committed();
        let snapshots = &mut last.root.snapshots;
        let mut leaves = Leaves::Due;
        match edit {
            Edit::Snapshot(name) => self.keep_head(state, &mut last, name, time_ns)?,
            Edit::DeleteSnapshot(name) => {
                let entry = entry_of(snapshots, name)?.clone();
                if entry.is_held() {
                    return Err(EditError::Held(name.clone()));
                }
                if self.is_open(entry.commit) {
                    return Err(EditError::IsOpen(name.clone()));
                }
                snapshots.retain(|other| other.commit != entry.commit);
                self.remove_folder(entry.commit);
            }
            Edit::Hold { snapshot, volume } => {
                let held = &mut entry_of(snapshots, snapshot)?.held;
                if let Err(place) = held.binary_search(volume) {
                    held.insert(place, *volume);
                }
                if held.len() > HELD_MAX {
                    return Err(EditError::TooMany);
                }
            }
            Edit::LetGo { snapshot, volume } => entry_of(snapshots, snapshot)?.held.retain(|held| held != volume),
            Edit::Rollback(name) => {
                let entry = entry_of(snapshots, name)?.clone();
                let kept = format!("before-rollback-{}", last.root.commit);
                self.keep_head(state, &mut last, &kept, time_ns)?;
                let snapshot = self.state_of(&entry)?;
                last = last.going_back(snapshot);
                leaves = Leaves::Kept;
            }
            Edit::Grow(size) | Edit::Shrink(size) => last.root.size = *size,
            Edit::Voters(_) if !last.root.leaving.is_empty() => return Err(EditError::Replacing),
            Edit::Voters(voters) => last.root.leaving = std::mem::replace(&mut last.root.voters, checked(voters)?),
            Edit::VotersTaken => last.root.leaving.clear(),
            Edit::VotersInstead(voters) => {
                last.root.voters = checked(voters)?;
                last.root.leaving.clear();
            }
        }
        let head = self.root().commit;
        let is_kept = last.root.snapshots.iter().any(|entry| entry.commit == head);
        let sets = is_kept.then(|| (head, state.collector.head_set(&self.blocks)));
        if bytes(&last.root.snapshots) + ENTRY_GROWTH > SNAPSHOTS_BYTES_MAX {
            return Err(EditError::TooMany);
        }
        Ok(Edited {
            last,
            sets: sets.into_iter().collect(),
            leaves,
        })
    }

    /// The last commit becomes a snapshot. What it needs has to be known for that.
    fn keep_head(&self, state: &mut State, last: &mut Committed, name: &str, time_ns: i64) -> Result<(), EditError> {
        let snapshots = &mut last.root.snapshots;
        if !is_name(name) {
            return Err(EditError::NoName(name.to_owned()));
        }
        if snapshots.iter().any(|entry| entry.name == name) {
            return Err(EditError::NameTaken(name.to_owned()));
        }
        if snapshots.len() >= SNAPSHOTS_MAX {
            return Err(EditError::TooMany);
        }
        state.collector.count(&self.blocks)?;
        let root = state.writer.at.clone();
        snapshots.push(SnapshotEntry {
            name: name.to_owned(),
            commit: last.root.commit,
            time_ns,
            root: root.ok_or_else(|| DeviceError::Damaged("the last commit is not known".to_owned()))?,
            pinned: Vec::new(),
            held: Vec::new(),
        });
        Ok(())
    }

    fn state_of(&self, entry: &SnapshotEntry) -> Result<Committed, EditError> {
        let state = state_at(&entry.root, self.blocks.places().reader())?;
        match state.root.commit == entry.commit {
            true => Ok(state),
            false => Err(DeviceError::Damaged("what a snapshot names is not its root".to_owned()).into()),
        }
    }

    fn snapshot(&self, name: &str) -> Result<SnapshotEntry, EditError> {
        Ok(entry_of(&mut self.root().snapshots, name)?.clone())
    }

    /// A snapshot to read. Opened again it is the same device as long as somebody has that.
    pub fn open_snapshot(&self, name: &str) -> Result<Arc<dyn Device>, EditError> {
        // So that nobody deletes it meanwhile.
        let _state = self.lock();
        let entry = self.snapshot(name)?;
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(device) = kept.get(&entry.commit).and_then(Weak::upgrade) {
            return Ok(device);
        }
        let folder = self.folder.join(format!("snapshot-{}", entry.commit)).join("map");
        let map = MapOptions::new(folder, self.root().volume);
        let opened = open(&entry.root, self.blocks.places().reader(), map, true)?;
        let blocks = CommittedBlocks::new(opened, BLOCKS_CACHE_BYTES / 4, self.runtime.clone());
        let device = Arc::new(Kept::new(blocks));
        kept.insert(entry.commit, Arc::downgrade(&device));
        Ok(device)
    }

    fn is_open(&self, commit: u64) -> bool {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.get(&commit).is_some_and(|device| device.strong_count() > 0)
    }

    /// What reading a snapshot left on this disk.
    fn remove_folder(&self, commit: u64) {
        let folder = self.folder.join(format!("snapshot-{commit}"));
        if let Err(error) = std::fs::remove_dir_all(&folder) {
            tracing::debug!(%error, "the map of a snapshot that is deleted");
        }
    }

    /// The first commit of a volume that begins as a snapshot of this one, and reads its packs; nothing is copied. The snapshot is held for it
    /// (`Edit::Hold`). There is a disk when the commit is accepted: its number follows the snapshot's.
    pub fn clone_of(
        &self,
        snapshot: &str,
        new: NewVolume,
        time_ns: i64,
        sink: &mut dyn PackSink,
    ) -> Result<Prepared, EditError> {
        let entry = self.snapshot(snapshot)?;
        if !entry.held.contains(&new.volume) {
            return Err(EditError::NotHeld(snapshot.to_owned()));
        }
        let mut state = self.state_of(&entry)?;
        state.root = state
            .root
            .of_clone(new.volume, new.name, new.voters, snapshot.to_owned());
        Root::decode(&state.root.encode())?;
        let nothing = nothing(0);
        let work = Work {
            leaves: Leaves::Kept,
            ..Work::of(&nothing, time_ns)
        };
        Ok(compose_work(&state, &|_| Ok(None), &work, sink)?)
    }
}

/// Voters that a volume can have.
fn checked(voters: &[[u8; 32]]) -> Result<Vec<[u8; 32]>, EditError> {
    match are_voters(voters) && !voters.is_empty() {
        true => Ok(voters.to_vec()),
        false => Err(EditError::NoVoters),
    }
}

fn entry_of<'a>(snapshots: &'a mut [SnapshotEntry], name: &str) -> Result<&'a mut SnapshotEntry, EditError> {
    let mut entries = snapshots.iter_mut();
    let entry = entries.find(|entry| entry.name == name);
    entry.ok_or_else(|| EditError::NoSuchSnapshot(name.to_owned()))
}
