//! A volume that this machine writes: its folder, its journal, what is committed, and one commit after the other. How a commit is
//! accepted, and where packs are, is told from outside.
//!
//! The folder is worth what is not committed, and nothing else: without it the volume opens as of its last commit.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use durable::state_file;
use minicbor::{Decode, Encode};
use proto::head::RootRef;
use tokio::runtime::Handle;
use zeroize::Zeroizing;

use crate::commit::compose::{Committed, PackSink, Prepared, batch_bytes_max, compose};
use crate::commit::opening::{PackReader, open};
use crate::commit::pack_table::PackTable;
use crate::commit::root::Root;
use crate::committed::CommittedBlocks;
use crate::device::{Device, DeviceError};
use crate::extents::MapOptions;
use crate::journal::{JournalKey, JournalOptions};
use crate::volume::{Batch, Volume, VolumeOptions};

/// The version of the writer's file that is written, and the only one read.
const VERSION: u16 = 1;
/// Name of the writer's file.
const WRITER: &str = "writer";
/// Bytes of blocks that go into one commit. Chosen: a commit is sealed and sent in a minute, and the list of its changes is short.
const BATCH_BYTES: u64 = 256 << 20;
/// Bytes of committed blocks in memory.
const BLOCKS_CACHE_BYTES: usize = 64 << 20;
/// How long writers wait for a full journal from which nothing is released before they are told that there is no room.
const PATIENCE: Duration = Duration::from_secs(300);

/// A volume that is open for writing.
pub struct Running {
    volume: Arc<Volume>,
    blocks: Arc<CommittedBlocks>,
    folder: PathBuf,
    state: Mutex<State>,
}

struct State {
    writer: WriterFile,
    /// A commit whose packs were delivered, and that was not accepted yet: it is offered again, as it is.
    waiting: Option<(Batch, Prepared)>,
}

/// What the folder is of.
#[derive(Clone, Encode, Decode)]
struct WriterFile {
    #[n(0)]
    version: u16,
    /// The volume.
    #[cbor(n(1), with = "minicbor::bytes")]
    volume: [u8; 16],
    /// What the journal's keys are derived from.
    #[cbor(n(2), with = "minicbor::bytes")]
    secret: [u8; 32],
    /// The journal.
    #[cbor(n(3), with = "minicbor::bytes")]
    journal: [u8; 16],
    /// The last commit that was accepted, as far as it is known here.
    #[n(4)]
    commit: u64,
    /// Where its root lies.
    #[n(5)]
    at: RootRef,
}

/// What opening a volume comes to.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another machine has gone on with the volume, or a copy of this one.
    #[error(
        "Another machine has written to this disk since this one did: its commit {theirs} follows {ours}. What this machine has not \
         committed is in {} and stays there",
        folder.display()
    )]
    Overtaken {
        /// The last commit of this machine.
        ours: u64,
        /// The newest there is.
        theirs: u64,
        /// The folder.
        folder: PathBuf,
    },
    /// What peers have is older than what they had accepted before.
    #[error(
        "The newest commit of this disk that peers have is {theirs}, but {ours} was accepted: reach more peers. Opened as it is, what was \
         written between would be gone"
    )]
    TurnedBack {
        /// The last commit that this machine knows to have been accepted.
        ours: u64,
        /// The newest that was found.
        theirs: u64,
    },
    /// The folder is of another volume.
    #[error("{} belongs to another disk", folder.display())]
    OtherVolume {
        /// The folder.
        folder: PathBuf,
    },
    /// The writer's file cannot be read.
    #[error("{} is damaged: {reason}. Move the folder away to open the disk as of its last commit", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The system gave no randomness.
    #[error("The system gave no random bytes: {0}")]
    Random(String),
    /// Anything else.
    #[error(transparent)]
    Device(#[from] DeviceError),
}

impl From<std::io::Error> for OpenError {
    fn from(error: std::io::Error) -> Self {
        Self::Device(error.into())
    }
}

fn random<const N: usize>() -> Result<[u8; N], OpenError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| OpenError::Random(error.to_string()))?;
    Ok(bytes)
}

/// The first commit of a new volume, of nothing: there is a disk when it is accepted. Its voters are chosen here, for good
/// (`commit::lineage::are_voters`).
pub fn first_commit(
    volume: [u8; 16],
    name: String,
    size: u64,
    voters: Vec<[u8; 32]>,
    time_ns: i64,
    sink: &mut dyn PackSink,
) -> Result<Prepared, DeviceError> {
    let root = Root::first(volume, name, size, voters);
    // Whatever cannot be read again is refused here.
    Root::decode(&root.encode())?;
    let none = Committed::new(root, PackTable::default(), std::collections::BTreeMap::new());
    let nothing = Batch {
        seq: 0,
        pieces: Vec::new(),
    };
    compose(&none, &|_| Ok(None), &nothing, time_ns, sink)
}

impl Running {
    /// Opens the volume whose newest accepted commit has its root at `at`. The folder is made if it is not there.
    pub fn open(
        folder: &Path,
        volume: [u8; 16],
        commit: u64,
        at: &RootRef,
        reader: Arc<dyn PackReader>,
        runtime: Handle,
    ) -> Result<Self, OpenError> {
        for part in ["journal", "map"] {
            durable::create_folders(&folder.join(part))?;
        }
        let known = read_writer(folder, volume)?;
        // The journal has given up what is in accepted commits: an older one must not be gone on from.
        if let Some(ours) = known.as_ref().map(|writer| writer.commit).filter(|ours| commit < *ours) {
            return Err(OpenError::TurnedBack { ours, theirs: commit });
        }
        let opened = open(
            at,
            reader.clone(),
            MapOptions::new(folder.join("map"), volume),
            known.is_some(),
        )?;
        let root = &opened.committed.root;
        if root.volume != volume || root.commit != commit {
            return Err(DeviceError::Damaged("what the head names is not the root of this disk".to_owned()).into());
        }
        let writer = match known {
            Some(writer) if root.journal_id == writer.journal || root.commit == writer.commit => writer,
            Some(writer) => {
                return Err(OpenError::Overtaken {
                    ours: writer.commit,
                    theirs: commit,
                    folder: folder.to_owned(),
                });
            }
            None => WriterFile {
                version: VERSION,
                volume,
                secret: random()?,
                journal: random()?,
                commit,
                at: at.clone(),
            },
        };
        write_writer(folder, &writer)?;
        let options = VolumeOptions {
            journal: JournalOptions::new(folder.join("journal")),
            size: root.size,
            is_read_only: false,
            patience: PATIENCE,
        };
        let key = JournalKey::new(&writer.secret, writer.journal);
        let blocks = Arc::new(CommittedBlocks::new(opened, BLOCKS_CACHE_BYTES, runtime));
        blocks.write_with(writer.journal);
        let volume = Arc::new(Volume::open(options, key, blocks.clone())?);
        Ok(Self {
            volume,
            blocks,
            folder: folder.to_owned(),
            state: Mutex::new(State { writer, waiting: None }),
        })
    }

    /// What faces serve.
    pub fn device(&self) -> Arc<dyn Device> {
        self.volume.clone()
    }

    /// Of what is committed.
    pub fn root(&self) -> Root {
        self.blocks.committed().root
    }

    /// The number of the last record: a commit up to it has all that was written before.
    pub fn last_seq(&self) -> u64 {
        self.volume.last_seq()
    }

    /// Bytes that the journal holds, and may hold at most.
    pub fn usage(&self) -> (u64, u64) {
        self.volume.usage()
    }

    /// Whether something waits for a commit.
    pub fn is_dirty(&self) -> bool {
        self.volume.last_seq() > self.root().journal
    }

    /// Commits what there is, as much as one commit takes; whether there was anything. `accept` has the root taken by peers, and returns only
    /// when it is taken for good. If it fails, the next call offers the same commit again. Blocks; one at a time.
    pub fn commit(
        &self,
        time_ns: i64,
        sink: &mut dyn PackSink,
        accept: &mut dyn FnMut(&Prepared) -> Result<(), DeviceError>,
    ) -> Result<bool, DeviceError> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (batch, prepared) = match state.waiting.take() {
            Some(waiting) => waiting,
            None => {
                // Files of the journal are released as far as they are durable.
                futures::executor::block_on(self.volume.flush())?;
                let batch = self.volume.batch(BATCH_BYTES.min(batch_bytes_max(&sink.rooms())))?;
                if batch.seq <= self.root().journal {
                    return Ok(false);
                }
                let prepared = self.blocks.prepare(&batch, time_ns, sink)?;
                (batch, prepared)
            }
        };
        let taken_in = accept(&prepared).and_then(|()| {
            state.writer.commit = prepared.committed.root.commit;
            state.writer.at = prepared.at.clone();
            write_writer(&self.folder, &state.writer)?;
            self.blocks.accept(&prepared)
        });
        if let Err(error) = taken_in {
            state.waiting = Some((batch, prepared));
            return Err(error);
        }
        drop(prepared);
        drop(batch);
        self.volume.release(self.root().journal);
        Ok(true)
    }

    /// Makes all durable here, and says in the journal that this was its end. Commits nothing.
    pub async fn end(&self) -> Result<(), DeviceError> {
        self.volume.end().await
    }
}

fn read_writer(folder: &Path, volume: [u8; 16]) -> Result<Option<WriterFile>, OpenError> {
    let path = folder.join(WRITER);
    let decode = |bytes: &[u8]| {
        let file: WriterFile = minicbor::decode(bytes).map_err(|error| error.to_string())?;
        match file.version {
            VERSION => Ok(file),
            version => Err(format!("version {version} is not known to this gridbackup")),
        }
    };
    match state_file::read(&path, decode) {
        (Some(file), _) if file.volume == volume => Ok(Some(file)),
        (Some(_), _) => Err(OpenError::OtherVolume {
            folder: folder.to_owned(),
        }),
        // Its journal cannot be read without the file, and may be all that there is of what was written last.
        (None, None) if has_journal(folder)? => Err(OpenError::Damaged {
            path,
            reason: "it is missing".to_owned(),
        }),
        (None, None) => Ok(None),
        (None, Some(lost)) => Err(OpenError::Damaged {
            path,
            reason: lost.to_string(),
        }),
    }
}

fn has_journal(folder: &Path) -> Result<bool, OpenError> {
    Ok(fs::read_dir(folder.join("journal"))?.next().is_some())
}

fn write_writer(folder: &Path, writer: &WriterFile) -> Result<(), DeviceError> {
    let bytes = Zeroizing::new(proto::record::to_cbor(writer));
    Ok(state_file::replace(&folder.join(WRITER), &bytes)?)
}

#[cfg(test)]
mod tests;
