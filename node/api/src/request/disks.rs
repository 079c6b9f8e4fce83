//! Virtual disks.

use super::field::{asked, held};
use crate::message::PathName;
use crate::named::named;

asked! {
    /// A new disk.
    pub struct DiskCreate {
        /// Its name.
        pub name: String,
        /// Bytes of the device.
        pub size: u64,
        /// Absolute folder for its journal and map; none: in the home.
        #[serde(default)]
        pub cache: Option<PathName>,
        /// Bytes that its journal may take.
        #[serde(default)]
        pub cache_size: Option<u64>,
    }

    /// A disk.
    pub struct DiskNamed {
        /// Its name, or the first digits of its id.
        pub name: String,
    }

    /// Other voters for a disk.
    pub struct DiskVotersReplace {
        /// Its name, or the first digits of its id.
        pub name: String,
        /// A majority of those that it has is lost for good.
        #[serde(default)]
        pub lost: bool,
        /// Whether another machine may be taken for its writer no more.
        #[serde(default)]
        pub take_over: TakeOver,
    }

    /// A disk that is read to its end.
    pub struct DiskCheck {
        /// Its name, or the first digits of its id.
        pub name: String,
        /// As of its last commit, whichever machine writes it.
        #[serde(default)]
        pub committed: bool,
    }

    /// A snapshot of a disk.
    pub struct DiskSnapshot {
        /// The disk's name, or the first digits of its id.
        pub name: String,
        /// The snapshot's name.
        pub snapshot: String,
    }

    /// Another size.
    pub struct DiskResize {
        /// The disk's name, or the first digits of its id.
        pub name: String,
        /// Bytes of the device.
        pub size: u64,
        /// Also if that is smaller: what is beyond is gone.
        #[serde(default)]
        pub shrink: bool,
    }

    /// A new disk that begins as another one.
    pub struct DiskClone {
        /// The name of the disk there is, or the first digits of its id.
        pub name: String,
        /// Which of its snapshots; none: one is taken now.
        #[serde(default)]
        pub snapshot: Option<String>,
        /// The new disk's name.
        pub new: String,
    }

    /// What a machine has of a disk that another one took over.
    pub struct DiskSalvage {
        /// The disk's name, or the first digits of its id.
        pub name: String,
        /// The name of the disk that is made of it.
        pub new: String,
    }

    /// A disk's content as a file.
    pub struct DiskExport {
        /// The disk's name, or the first digits of its id.
        pub name: String,
        /// Which of its snapshots; none: the disk as it is.
        #[serde(default)]
        pub snapshot: Option<String>,
        /// As of its last commit, whichever machine writes it.
        #[serde(default)]
        pub committed: bool,
        /// Absolute path of a file that is not there yet.
        pub file: PathName,
    }

    /// A file as a disk's content.
    pub struct DiskImport {
        /// The disk's name, or the first digits of its id.
        pub name: String,
        /// Absolute path of a raw image.
        pub file: PathName,
        /// Also onto a disk that has something in it, which is gone then.
        #[serde(default)]
        pub force: bool,
    }

    /// A disk that is to be one no more.
    pub struct DiskRemove {
        /// Its name, or the first digits of its id.
        pub name: String,
        /// It cannot be opened, and what this machine says of it goes; its packs stay with peers.
        #[serde(default)]
        pub lost: bool,
    }

    /// How a disk is served: in one of these ways at least.
    pub struct DiskServe {
        /// Its name, or the first digits of its id.
        pub name: String,
        /// Addresses for NBD: `unix:/ABSOLUTE/PATH` or `HOST:PORT`.
        #[serde(default)]
        pub nbd: Vec<String>,
        /// Absolute path of the file that it is shown as; its folder is mounted on.
        #[serde(default)]
        pub file: Option<PathName>,
        /// Other users may use the file, too.
        #[serde(default)]
        pub allow_other: bool,
        /// What a flush waits for.
        #[serde(default)]
        pub sync: DiskSync,
        /// Whether another machine may be taken for its writer no more.
        #[serde(default)]
        pub take_over: TakeOver,
    }
}

named! {
    /// What a flush of a disk waits for.
    #[derive(Default)]
    pub enum DiskSync {
        /// This machine's own disk.
        #[default]
        Local = "local",
        /// A commit that survives the loss of friends.
        Grid = "grid",
    }
}

named! {
    /// What becomes of a disk that another machine wrote last.
    #[derive(Default)]
    pub enum TakeOver {
        /// It is left to that machine.
        #[default]
        Never = "never",
        /// It is taken over, a minute after which that machine acknowledges no more writes.
        Wait = "wait",
        /// It is taken over at once: what that machine acknowledges for another minute, and has not committed, is that machine's alone.
        Now = "now",
    }
}

held! {
    TakeOver: Text = [TakeOver::Now];
    DiskSync: Text = [DiskSync::Grid];
}
