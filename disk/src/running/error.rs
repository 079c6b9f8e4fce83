//! What opening and editing a volume come to.

use std::path::PathBuf;

use crate::commit::CommitError;
use crate::device::DeviceError;

/// What opening a volume comes to.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another machine has gone on with the volume, or a copy of this one.
    #[error(
        "Another machine, or a copy of this one, has written to this disk since this one did: commit {theirs} is its, and {ours} was the \
         last of this one. What this machine has not committed is in {} and stays there",
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

/// What an edit of a volume comes to.
#[derive(Debug, thiserror::Error)]
pub enum EditError {
    /// There is no snapshot of that name.
    #[error("The disk has no snapshot {0}")]
    NoSuchSnapshot(String),
    /// Another snapshot has the name.
    #[error("The disk has a snapshot {0} already")]
    NameTaken(String),
    /// No snapshot can have the name.
    #[error("{0:?} is no name for a snapshot")]
    NoName(String),
    /// A disk was cloned from it and is there.
    #[error("Another disk was cloned from the snapshot {0}: delete that one first")]
    Held(String),
    /// The snapshot has to be held for a clone before that is made.
    #[error("The snapshot {0} is not held for the clone")]
    NotHeld(String),
    /// Somebody reads it.
    #[error("The snapshot {0} is open: close it first")]
    IsOpen(String),
    /// There is no room for another one.
    #[error("The disk has as many snapshots, or clones of one, as it can have: delete one first")]
    TooMany,
    /// The disk would be smaller.
    #[error("The disk has {from} bytes, and would have {to}: what is beyond would be gone")]
    Smaller {
        /// Bytes of the disk.
        from: u64,
        /// What was asked for.
        to: u64,
    },
    /// No disk can have that size.
    #[error("A disk cannot have {0} bytes: it has to be a multiple of 4096, and not too large")]
    NoSize(u64),
    /// No disk can have these voters.
    #[error("A disk has one, three or five voters, each once")]
    NoVoters,
    /// The voters before are still needed.
    #[error("The disk's voters are being replaced already")]
    Replacing,
    /// Anything else.
    #[error(transparent)]
    Device(#[from] DeviceError),
}

impl From<CommitError> for EditError {
    fn from(error: CommitError) -> Self {
        Self::Device(error.into())
    }
}
