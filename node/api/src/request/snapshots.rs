//! Looking at snapshots, and marking them.

use jiff::Timestamp;

use super::field::{asked, held};
use crate::message::{EntryKind, PathName};
use crate::named::named;

asked! {
    /// Which snapshots to list, and how.
    #[derive(Default)]
    #[serde(default)]
    pub struct SnapshotFilter {
        /// Only those of this device, by its name or the beginning of its id.
        pub device: Option<String>,
        /// Only those that cover this path.
        pub path: Option<PathName>,
        /// Only those with all of these tags.
        pub tags: Vec<String>,
        /// Only the newest so many of each group.
        pub last: Option<u64>,
        /// What the snapshots of a group have in common; none: one group.
        pub group_by: Vec<GroupBy>,
    }

    /// A change of tags: first set, then added, then removed.
    #[derive(Default)]
    #[serde(default)]
    pub struct Tag {
        /// Of which snapshots.
        pub snapshots: Vec<String>,
        /// Tags that they get.
        pub add: Vec<String>,
        /// Tags that they lose.
        pub remove: Vec<String>,
        /// All that they have; none: as before.
        pub set: Option<Vec<String>>,
    }

    /// Which snapshots no policy forgets.
    pub struct Pin {
        /// Which.
        pub snapshots: Vec<String>,
        /// Keep them.
        pub pinned: bool,
    }

    /// Which folder to list.
    pub struct List {
        /// Which snapshot.
        pub snapshot: String,
        /// Which folder or file; none: the roots.
        #[serde(default)]
        pub path: Option<PathName>,
        /// Everything below, too.
        #[serde(default)]
        pub recursive: bool,
    }

    /// What is looked for.
    pub struct Find {
        /// Glob on the name, or on the path if it has a slash; without `*` or `?` any part.
        pub pattern: String,
        /// In which snapshot; none: in all.
        #[serde(default)]
        pub snapshot: Option<String>,
        /// At and below which path.
        #[serde(default)]
        pub path: Option<PathName>,
        /// Modified after.
        #[serde(default)]
        pub newer: Option<Timestamp>,
        /// Modified before.
        #[serde(default)]
        pub older: Option<Timestamp>,
        /// Only these.
        #[serde(default)]
        pub kind: Option<EntryKind>,
    }

    /// A file whose content is asked for.
    pub struct Cat {
        /// Which snapshot.
        pub snapshot: String,
        /// Which file.
        pub path: PathName,
    }

    /// Two snapshots to compare.
    pub struct Diff {
        /// The first.
        pub before: String,
        /// The second.
        pub after: String,
        /// At and below which path; none: everywhere.
        #[serde(default)]
        pub path: Option<PathName>,
    }

    /// What to write as an archive.
    pub struct Dump {
        /// Which snapshot.
        pub snapshot: String,
        /// Which folder or file; none: everything.
        #[serde(default)]
        pub path: Option<PathName>,
        /// What archive.
        #[serde(default)]
        pub format: DumpFormat,
    }

    /// Of which snapshot to say what it takes.
    pub struct Stats {
        /// Which; none: all.
        #[serde(default)]
        pub snapshot: Option<String>,
    }
}

named! {
    /// What the snapshots of a group have in common.
    pub enum GroupBy {
        /// The device that made them.
        Device = "device",
        /// The folders backed up.
        Path = "path",
        /// Their tags.
        Tag = "tag",
    }

    /// What archive.
    #[derive(Default)]
    pub enum DumpFormat {
        /// POSIX tar, with extended attributes.
        #[default]
        Tar = "tar",
        /// zip.
        Zip = "zip",
    }
}

held! {
    GroupBy: Text = [GroupBy::Path, GroupBy::Tag];
    DumpFormat: Text = [DumpFormat::Zip];
}
