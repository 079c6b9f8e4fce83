//! What was done to something that has a name.

use serde::{Deserialize, Serialize};

use crate::named::named;

/// Something was added, changed or removed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changed {
    /// What was done.
    pub action: Deed,
    /// To what.
    pub what: Thing,
    /// Its name, path, pattern or key.
    pub name: String,
}

impl Changed {
    /// That was done to this.
    pub fn new(action: Deed, what: Thing, name: impl Into<String>) -> Self {
        Self {
            action,
            what,
            name: name.into(),
        }
    }
}

named! {
    /// What was done to something; of objects also what others did.
    pub enum Deed {
        /// It is new.
        Added = "added",
        /// It is another.
        Changed = "changed",
        /// It is gone.
        Removed = "removed",
        /// It was so already.
        Unchanged = "unchanged",
        /// It ends.
        Stopped = "stopped",
        /// It takes a passphrase now.
        Locked = "locked",
        /// It takes none any more.
        Unlocked = "unlocked",
        /// It was made.
        Made = "made",
        /// All that was written to it is on peers.
        Committed = "committed",
        /// Nothing that it signs counts.
        Revoked = "revoked",
        /// This account is no member any more.
        Left = "left",
        /// One more says that it is to go.
        VotedOut = "voted out",
        /// It was put into the bucket.
        Uploaded = "uploaded",
        /// It was fetched from the bucket.
        Restored = "restored",
        /// Its content is as it was.
        GivenHeaders = "given other headers",
        /// Caches were told to forget it.
        Invalidated = "invalidated",
        /// It was executed.
        Run = "run",
        /// By others: it is gone.
        RemovedByOthers = "removed by others",
        /// By others: it is another.
        ChangedByOthers = "changed by others",
        /// By others: it is new.
        AddedByOthers = "added by others",
    }

    /// To what something was done.
    pub enum Thing {
        /// A folder that is backed up.
        Folder = "folder",
        /// An exclude rule.
        Rule = "rule",
        /// A peer.
        Peer = "peer",
        /// What a peer had stored here.
        SharesOf = "shares of",
        /// A setting.
        Setting = "setting",
        /// The tags or the pin of a snapshot.
        Snapshot = "snapshot",
        /// A process that has the home.
        Process = "process",
        /// This machine's keys.
        Keys = "keys",
        /// A home for one more machine.
        Home = "home",
        /// A machine of the account.
        Device = "device",
        /// A virtual disk.
        Disk = "disk",
        /// A snapshot of a virtual disk.
        DiskSnapshot = "disk snapshot",
        /// Who decides which machine writes a virtual disk.
        DiskVoters = "voters of disk",
        /// A grid.
        Grid = "grid",
        /// An object in a bucket.
        Object = "object",
        /// A path of a web site.
        Path = "path",
        /// A command of the user's.
        Hook = "hook",
    }
}
