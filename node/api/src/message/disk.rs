//! What is said of virtual disks.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::named::named;

/// A disk.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Disk {
    /// Its name.
    pub name: String,
    /// Its id.
    pub id: String,
    /// Bytes of the device; none: not known here before it was opened.
    pub size: Option<u64>,
    /// How it is.
    pub state: DiskState,
    /// The number of its last commit.
    pub commit: Option<u64>,
    /// When that was made.
    pub committed: Option<Timestamp>,
    /// Bytes of its shares that peers hold, as far as this machine looks after them.
    #[serde(default)]
    pub held_bytes: Option<u64>,
    /// The machine of this account that wrote it last, if it is another.
    pub machine: Option<String>,
    /// Where it is served.
    #[serde(default)]
    pub served_at: Vec<String>,
    /// Bytes in its journal that wait for a commit, or for their file to be free.
    pub journal_bytes: Option<u64>,
    /// Bytes that its journal may take.
    pub journal_bytes_max: Option<u64>,
    /// Seconds since when something waits for a commit.
    pub waiting_secs: Option<u64>,
    /// Folder of its journal and map on this machine.
    pub cache: Option<String>,
    /// What is wrong with it.
    pub problem: Option<String>,
    /// Who decides which machine writes it, where that is known.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub voters: Vec<DiskVoter>,
    /// Its snapshots, oldest first, where they are known.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub snapshots: Vec<DiskSnapshot>,
    /// The disk and the snapshot that it was cloned from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<String>,
    /// Of a disk that is served: what it takes, and what it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub figures: Option<DiskFigures>,
}

/// A state of a disk that is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskSnapshot {
    /// Its name.
    pub name: String,
    /// When it was taken.
    pub time: Timestamp,
    /// Disks that were cloned from it and are there.
    pub clones: u64,
}

/// What an open disk takes, in bytes, and what it did since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskFigures {
    /// Blocks that are not zeros; none before they were counted.
    pub live_bytes: Option<u64>,
    /// What packs have room for, before redundancy; none before they were counted.
    pub stored_bytes: Option<u64>,
    /// How many packs these are.
    pub packs: Option<u64>,
    /// Commits.
    pub commits: u64,
    /// Blocks that these took from the host.
    pub host_bytes: u64,
    /// Packs that these sent, with padding, before redundancy.
    pub sent_bytes: u64,
    /// Blocks among these that were moved.
    pub moved_bytes: u64,
    /// In memory: blocks, leaves of the map, changes of it.
    pub memory_bytes: u64,
}

/// A disk can be used.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskServed {
    /// Its name.
    pub name: String,
    /// Bytes of the device.
    pub size: u64,
    /// Addresses of NBD servers.
    #[serde(default)]
    pub nbd: Vec<String>,
    /// The file that it is shown as.
    #[serde(default)]
    pub file: Option<String>,
}

/// One of those who decide which machine writes a disk.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskVoter {
    /// Its id.
    pub id: String,
    /// The peer that it is, or was when it was seen last.
    pub peer: Option<String>,
    /// It is no peer any more.
    pub gone: bool,
    /// It answers.
    pub online: bool,
    /// To whom it promises that it writes the disk.
    pub promised: Promised,
    /// Which machine that is, if it is another.
    pub machine: Option<String>,
    /// It is being replaced.
    #[serde(default)]
    pub leaving: bool,
}

named! {
    /// To whom a voter promises a disk.
    #[derive(Default)]
    pub enum Promised {
        /// It does not say.
        #[default]
        Unknown = "unknown",
        /// To nobody.
        Nobody = "nobody",
        /// To this machine.
        Us = "this machine",
        /// To another one of the account.
        Other = "another machine",
    }

    /// How a disk is.
    #[derive(Default)]
    pub enum DiskState {
        /// All that was written is on peers.
        #[default]
        Closed = "closed",
        /// It is open on this machine.
        Served = "served",
        /// It is closed, and what was written last is in this machine's journal alone.
        Ahead = "ahead",
        /// Another machine of this account wrote it last.
        Elsewhere = "elsewhere",
        /// What is known of it here cannot be read.
        Unreadable = "unreadable",
    }
}
