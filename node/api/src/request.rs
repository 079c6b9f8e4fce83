//! Everything that needs a home's state, as one closed set: what the command line asks in-process or over the API.
//!
//! Paths are absolute (the asking process knows its working directory, the daemon does not). A snapshot is named by
//! `latest`, a date or an id prefix, which the engine resolves.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

mod word;

pub use word::Word;

use crate::message::PathName;

/// A request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// One snapshot of these paths (none: the config's folders), then upload until nothing more can be placed.
    RunOnce {
        /// What to back up.
        #[serde(default)]
        paths: Vec<PathName>,
        /// Mount points that have nothing of what they had, and roots that are empty, were emptied for good.
        #[serde(default)]
        accept_emptied: bool,
    },
    /// Adds folders to what is backed up.
    FolderAdd {
        /// Which.
        paths: Vec<PathName>,
    },
    /// Lists the folders.
    FolderList,
    /// Removes folders; what is backed up of them stays.
    FolderRemove {
        /// Which.
        paths: Vec<PathName>,
    },
    /// Adds exclude rules.
    ExcludeAdd {
        /// gitignore-style.
        patterns: Vec<String>,
    },
    /// Lists the exclude rules.
    ExcludeList,
    /// Removes exclude rules.
    ExcludeRemove {
        /// As they were added.
        patterns: Vec<String>,
    },
    /// Makes a one-use ticket.
    Invite {
        /// A label for the invited friend.
        #[serde(default)]
        name: Option<String>,
        /// Seconds that the ticket holds.
        expires_secs: u64,
    },
    /// Joins the inviter's grid.
    Join {
        /// The ticket.
        ticket: String,
        /// What this account says of itself (as in `Word`), where it comes back to a grid that it has left.
        #[serde(default)]
        word: Option<String>,
    },
    /// Lists the devices of this account.
    DeviceList,
    /// Tells everybody what this account says of itself: which devices it has revoked, which grids it has left.
    Say(Word),
    /// What is wrong with this node and its links, and what to do about it.
    Doctor,
    /// Lists the peers.
    PeerList,
    /// Adds an S3 bucket or a folder as a peer.
    PeerAdd(PeerAdd),
    /// Removes a peer.
    PeerRemove {
        /// Its name.
        name: String,
        /// Whether it is done whatever it costs.
        #[serde(default)]
        how: RemoveHow,
    },
    /// Removes what a friend stored here who has been silent for half a year.
    PeerEvict {
        /// Its name.
        name: String,
    },
    /// Changes a peer.
    PeerSet {
        /// Its name.
        name: String,
        /// Bytes that it may hold for us (friend: that we hold for it).
        #[serde(default)]
        quota: Option<u64>,
        /// Shares of a pack that it may hold.
        #[serde(default)]
        shares: Option<u16>,
    },
    /// Is everything safe; with paths: are these.
    Status {
        /// Files asked for.
        #[serde(default)]
        paths: Vec<PathName>,
    },
    /// What goes up next, and why.
    Queue {
        /// Jobs at most.
        limit: u64,
    },
    /// Lists the snapshots.
    Snapshots(SnapshotFilter),
    /// Changes the tags of snapshots.
    Tag(Tag),
    /// Keeps snapshots from being forgotten by a policy, or lets them go.
    Pin {
        /// Which.
        snapshots: Vec<String>,
        /// Keep them.
        pinned: bool,
    },
    /// Lists a folder of a snapshot.
    List {
        /// Which snapshot.
        snapshot: String,
        /// Which folder or file; none: the roots.
        #[serde(default)]
        path: Option<PathName>,
        /// Everything below, too.
        #[serde(default)]
        recursive: bool,
    },
    /// Entries by name, in one snapshot or in all.
    Find(Find),
    /// A file's content, as bytes.
    Cat {
        /// Which snapshot.
        snapshot: String,
        /// Which file.
        path: PathName,
    },
    /// What changed between two snapshots.
    Diff {
        /// The first.
        before: String,
        /// The second.
        after: String,
        /// At and below which path; none: everywhere.
        #[serde(default)]
        path: Option<PathName>,
    },
    /// A snapshot, or a part of it, as an archive, in bytes.
    Dump {
        /// Which snapshot.
        snapshot: String,
        /// Which folder or file; none: everything.
        #[serde(default)]
        path: Option<PathName>,
        /// What archive.
        #[serde(default)]
        format: DumpFormat,
    },
    /// A drill: reads random files from the grid and compares them with the disk.
    Verify {
        /// How many; none: as the config says.
        #[serde(default)]
        files: Option<u64>,
    },
    /// What snapshots take; which one, or all.
    Stats {
        /// Which; none: all.
        #[serde(default)]
        snapshot: Option<String>,
    },
    /// Restores.
    Restore(Restore),
    /// Shows the snapshots as folders until the answer is no longer read.
    Mount(Mount),
    /// Forgets snapshots.
    Forget(Forget),
    /// Gives up what no snapshot wants.
    Prune {
        /// Only say what would be given up.
        #[serde(default)]
        dry_run: bool,
    },
    /// Brings forgotten snapshots back.
    Undelete {
        /// Which; none: all.
        #[serde(default)]
        snapshots: Vec<String>,
    },
    /// Is every share where it should be, and intact.
    Check {
        /// Of the shares found, read back so many percent; none: only look whether they are there.
        #[serde(default)]
        read_percent: Option<u64>,
    },
    /// Builds shares anew that are lost, and brings doubled ones to distinct places.
    Repair {
        /// One round, whether or not it leaves something to do.
        #[serde(default)]
        once: bool,
    },
    /// Rebuilds the local state of a home that was just made from the phrase.
    Recover {
        /// Tickets, addresses, `dir:` or `s3:` peers to ask.
        via: Vec<String>,
        /// Go back to the newest snapshot made before; none: to the newest of all.
        #[serde(default)]
        before: Option<Timestamp>,
        /// Friends that may vanish for good without loss; none: as it was set.
        #[serde(default)]
        tolerate: Option<u16>,
    },
    /// A setting, or all of them.
    ConfigGet {
        /// Dotted key.
        #[serde(default)]
        key: Option<String>,
    },
    /// Changes a setting.
    ConfigSet {
        /// Dotted key.
        key: String,
        /// As typed; sizes and durations may carry units.
        value: String,
    },
    /// The daemon's `ready` message.
    Ready,
    /// Stops the daemon.
    Stop,
}

/// How far removing a peer goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RemoveHow {
    /// It is said what it costs, and refused if content would be lost.
    #[default]
    Carefully,
    /// It is said what it costs, and done.
    Anyway,
    /// It is said what it would cost.
    DryRun,
}

/// A folder or bucket that becomes a peer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PeerAdd {
    /// Its name for people.
    pub name: String,
    /// `dir:/ABSOLUTE/PATH` or `s3://BUCKET[/PREFIX]`.
    pub url: String,
    /// S3 endpoint if not Amazon's.
    #[serde(default)]
    pub endpoint: Option<String>,
    /// S3 region.
    #[serde(default)]
    pub region: Option<String>,
    /// Storage class of shares in a bucket.
    #[serde(default)]
    pub storage_class: Option<String>,
    /// Bytes that it may hold.
    #[serde(default)]
    pub quota: Option<u64>,
    /// Shares of each pack that a bucket holds.
    #[serde(default)]
    pub shares: Option<u16>,
}

/// Which snapshots to list, and how.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
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

/// What the snapshots of a group have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum GroupBy {
    /// The device that made them.
    Device,
    /// The folders backed up.
    Path,
    /// Their tags.
    Tag,
}

impl GroupBy {
    /// As it is typed.
    pub fn name(self) -> &'static str {
        match self {
            Self::Device => "device",
            Self::Path => "path",
            Self::Tag => "tag",
        }
    }
}

/// What is looked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
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
    /// `file`, `directory`, …, as in `entry`.
    #[serde(default)]
    pub kind: Option<String>,
}

/// What archive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum DumpFormat {
    /// POSIX tar, with extended attributes.
    #[default]
    Tar,
    /// zip.
    Zip,
}

/// A change of tags: first set, then added, then removed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
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

/// Which snapshots to forget: those named, and those that no `keep` keeps, if any is given.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Forget {
    /// These, whatever else is kept.
    pub snapshots: Vec<String>,
    /// Keep the newest so many.
    pub keep_last: u32,
    /// Keep the newest of each of so many hours.
    pub keep_hourly: u32,
    /// Keep the newest of each of so many days.
    pub keep_daily: u32,
    /// Keep the newest of each of so many weeks.
    pub keep_weekly: u32,
    /// Keep the newest of each of so many months.
    pub keep_monthly: u32,
    /// Keep the newest of each of so many years.
    pub keep_yearly: u32,
    /// Keep all that are at most so much older than the newest.
    pub keep_within_secs: Option<u64>,
    /// Keep all with one of these tags.
    pub keep_tags: Vec<String>,
    /// Backups that could not be read when this home was recovered.
    pub unread: bool,
    /// What only these other machines of the account want, which are gone for good.
    pub devices: Vec<String>,
    /// Even if nothing is left of what a device backs up.
    pub allow_empty_group: bool,
    /// Then give up what nobody wants.
    pub prune: bool,
    /// Only say what would be done.
    pub dry_run: bool,
}

impl Request {
    /// Whether the answer needs nothing to be written: then a home on a full disk, or on one that may only be read, can give it.
    /// What is learned on the way (who answered, whose share was damaged) is noted if it can be.
    pub fn only_reads(&self) -> bool {
        matches!(
            self,
            Self::Status { .. }
                | Self::Queue { .. }
                | Self::Snapshots(_)
                | Self::List { .. }
                | Self::Find(_)
                | Self::Cat { .. }
                | Self::Diff { .. }
                | Self::Dump { .. }
                | Self::Stats { .. }
                | Self::Verify { .. }
                | Self::Restore(_)
                | Self::Mount(_)
                | Self::PeerList
                | Self::DeviceList
                | Self::Doctor
                | Self::FolderList
                | Self::ExcludeList
                | Self::ConfigGet { .. }
        )
    }

    /// Whether it is about who belongs, and needs no catalog: the way out where one cannot be recovered before friends are back.
    pub fn needs_only_roster(&self) -> bool {
        matches!(
            self,
            Self::DeviceList
                | Self::Invite { .. }
                | Self::Join { .. }
                | Self::PeerEvict { .. }
                | Self::PeerList
                | Self::Say(_)
        )
    }
}

/// Where to show the snapshots: at one of these places at least.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Mount {
    /// Absolute folder to mount on.
    pub at: Option<PathName>,
    /// Loopback address and port for WebDAV.
    pub webdav: Option<String>,
    /// Other users may look, as far as the files' modes let them.
    pub allow_other: bool,
}

/// What to restore, and how.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
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

/// What to do with a file that is there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Overwrite {
    /// Write it again.
    Always,
    /// Keep it if size and modification time agree.
    #[default]
    IfChanged,
    /// Keep it.
    Never,
}
