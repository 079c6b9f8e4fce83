//! How far a command is; comes and goes.

use serde::{Deserialize, Serialize};

use crate::named::named;

/// How far the command is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// What it does.
    pub phase: Phase,
    /// Files done.
    pub files_done: u64,
    /// Files in all, if known.
    pub files_total: Option<u64>,
    /// Bytes done.
    pub bytes_done: u64,
    /// Bytes in all, if known.
    pub bytes_total: Option<u64>,
    /// What it is at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current: Option<String>,
    /// Bytes of shares that peers have acknowledged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_delivered: Option<u64>,
    /// Bytes of shares that are on their way to peers that take them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_to_deliver: Option<u64>,
    /// Name of the peer that most of them are for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slowest: Option<String>,
    /// How much is for that one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_to_slowest: Option<u64>,
}

named! {
    /// What a command does.
    #[derive(Default)]
    pub enum Phase {
        /// It looks for what is new.
        #[default]
        Scan = "scan",
        /// It reads and sends that.
        Upload = "upload",
        /// It writes files of a snapshot.
        Restore = "restore",
        /// It looks for a lost machine's backups.
        Recover = "recover",
        /// It looks at shares.
        Check = "check",
        /// It reads files of the grid and compares.
        Verify = "verify",
        /// It copies what is wanted of packs that mostly are not.
        Repack = "repack",
        /// It reads or writes all of a virtual disk.
        Disk = "disk",
        /// It sends objects to a bucket.
        Publish = "publish",
    }
}
