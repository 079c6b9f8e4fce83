//! Getting content back.

use jiff::Timestamp;

use super::field::{asked, held};
use crate::message::PathName;
use crate::named::named;

asked! {
    /// What to restore, and how.
    pub struct Restore {
        /// Which snapshot.
        pub snapshot: String,
        /// Which file or folder; none: everything, below `target` under its absolute path.
        #[serde(default)]
        pub path: Option<PathName>,
        /// Absolute folder.
        pub target: PathName,
        /// Glob patterns: only these (none: all).
        #[serde(default)]
        pub include: Vec<String>,
        /// Glob patterns: not these.
        #[serde(default)]
        pub exclude: Vec<String>,
        /// What to do with a file that is there.
        #[serde(default)]
        pub overwrite: Overwrite,
        /// Remove what is not in the snapshot.
        #[serde(default)]
        pub delete: bool,
        /// Also from the whole system, and where keys, state or shares are.
        #[serde(default)]
        pub unsafe_delete: bool,
        /// Only say what would be done.
        #[serde(default)]
        pub dry_run: bool,
        /// Read every file back and compare.
        #[serde(default)]
        pub verify: bool,
    }

    /// Where to show the snapshots: at one of these places at least.
    #[derive(Default)]
    #[serde(default)]
    pub struct Mount {
        /// Absolute folder to mount on.
        pub at: Option<PathName>,
        /// Loopback address and port for WebDAV.
        pub webdav: Option<String>,
        /// Other users may look, as far as the files' modes let them.
        pub allow_other: bool,
    }

    /// How a drill is done.
    pub struct Verify {
        /// How many files; none: as the config says.
        #[serde(default)]
        pub files: Option<u64>,
    }

    /// From whom to recover, and what.
    pub struct Recover {
        /// Tickets, addresses, `dir:` or `s3:` peers to ask.
        pub via: Vec<String>,
        /// Go back to the newest snapshot made before; none: to the newest of all.
        #[serde(default)]
        pub before: Option<Timestamp>,
        /// Friends that may vanish for good without loss; none: as it was set.
        #[serde(default)]
        pub tolerate: Option<u16>,
    }
}

named! {
    /// What to do with a file that is there.
    #[derive(Default)]
    pub enum Overwrite {
        /// Write it again.
        Always = "always",
        /// Keep it if size and modification time agree.
        #[default]
        IfChanged = "if-changed",
        /// Keep it.
        Never = "never",
    }
}

held! {
    Overwrite: Text = [Overwrite::Never];
}
