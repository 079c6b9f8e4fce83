//! Everything the program says, as one closed set: printed for people, written as JSON lines for scripts, streamed by the
//! API. Tags and fields are a contract; fields are only ever added. Sizes are bytes, times RFC 3339 in UTC.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

mod changed;
mod device;
mod disk;
mod entry;
mod finding;
mod history;
mod mounted;
mod path;
mod peer;
mod peer_removal;
mod progress;
mod removal;
mod spool;
mod state;
mod status;
mod summary;

pub use changed::{Changed, Deed, Thing};
pub use device::{Device, Power};
pub use disk::{Disk, DiskFigures, DiskServed, DiskSnapshot, DiskState, DiskVoter, Promised};
pub use entry::{Entry, EntryKind};
pub use finding::{Finding, Level, Topic};
pub use history::{
    Change, ChangeKind, DiffSummary, Fate, Group, Keeper, Retention, Snapshot, StatsSummary, VerifySummary,
};
pub use mounted::Mounted;
pub use path::PathName;
pub use peer::{Peer, PeerKind, Reach, Standing};
pub use peer_removal::PeerRemoval;
pub use progress::{Phase, Progress};
pub use removal::{Removal, RemovalKind, RemovalState};
pub use spool::{Spool, SpoolPart};
pub use state::State;
pub use status::{Advice, Alarm, AlarmKind, FileState, FileStatus, LastRun, Reason, Status};
pub use summary::{
    CheckSummary, DemoSummary, DiskSummary, ForgetSummary, MountSummary, PruneSummary, PublishRestoreSummary,
    PublishSummary, RecoverSummary, RecoveredDeviceSummary, RepairSummary, RestoreSummary, RevokedSummary, RunSummary,
    SimulateSummary, Summary, UndeleteSummary, UnreadSummary,
};

use crate::failure::Failure;
use crate::named::named;

/// One thing said; `message_type` names the variant.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "message_type", rename_all = "snake_case")]
pub enum Message {
    /// A new account exists.
    Initialized(Initialized),
    /// An invitation.
    Ticket(Ticket),
    /// The daemon serves.
    Ready(Ready),
    /// The snapshots are shown as folders.
    Mounted(Mounted),
    /// A command's last word.
    Summary(Summary),
    /// Is my data safe.
    Status(Box<Status>),
    /// Is this file safe.
    File(FileStatus),
    /// A job in the queue.
    Job(Job),
    /// A snapshot.
    Snapshot(Snapshot),
    /// What snapshots that follow have in common.
    Group(Group),
    /// What becomes of a snapshot.
    Retention(Retention),
    /// An entry of a snapshot.
    Entry(Entry),
    /// A path that differs between snapshots.
    Change(Change),
    /// A peer.
    Peer(Peer),
    /// A machine of this account.
    Device(Device),
    /// A virtual disk.
    Disk(Box<Disk>),
    /// A virtual disk can be used.
    DiskServed(DiskServed),
    /// One of those who decide which machine writes a disk.
    DiskVoter(DiskVoter),
    /// Something `doctor` looked at.
    Finding(Finding),
    /// A folder that is backed up.
    Folder(Folder),
    /// An exclude rule.
    Rule(Rule),
    /// A setting.
    Setting(Setting),
    /// This node is a member of a grid now.
    Joined(Joined),
    /// Something was added, changed or removed.
    Changed(Changed),
    /// How far the command is; comes and goes.
    Progress(Progress),
    /// Something is in the target of a restore and not in the snapshot.
    Removal(Removal),
    /// What waits on this machine to be sent.
    Spool(Spool),
    /// What it costs to remove a peer.
    PeerRemoval(PeerRemoval),
    /// One file or peer failed; the rest goes on.
    Problem(Problem),
    /// Something the daemon did or noticed.
    Event(Event),
    /// The command failed; always the last word.
    Error(Failure),
}

/// A new account exists.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Initialized {
    /// The account's id.
    pub account: String,
    /// The device's id.
    pub device: String,
    /// The device as a libp2p peer.
    pub peer_id: String,
    /// 24 words, unless they went to a file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phrase: Option<String>,
    /// The file they went to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phrase_file: Option<PathName>,
}

/// An invitation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ticket {
    /// One line, used once.
    pub ticket: String,
    /// Not valid after.
    pub expires: Timestamp,
}

/// The daemon serves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ready {
    /// This node as a libp2p peer.
    pub peer_id: String,
    /// Multiaddrs it can be dialled at.
    pub addresses: Vec<String>,
    /// Where its API listens: `unix:PATH`, and with `--api` a URL.
    pub api: String,
}

/// A job in the queue.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Job {
    /// The file.
    #[serde(flatten)]
    pub path: PathName,
    /// Its length.
    pub bytes: u64,
    /// Points; higher goes first. Scores are relative to the queue's first job if the engine says so.
    pub score: f64,
    /// Part for the age of the file.
    pub recency: f64,
    /// Part for its size.
    pub size: f64,
    /// Part for its class.
    pub class: f64,
    /// Name of its class.
    #[serde(default)]
    pub class_name: String,
    /// Part for the time it waits.
    #[serde(default)]
    pub ageing: f64,
    /// How far it is.
    pub state: JobState,
}

named! {
    /// How far a job is.
    pub enum JobState {
        /// Not begun.
        Waiting = "waiting",
        /// Being read and sealed.
        Leased = "leased",
        /// All of its content is in packs here, and not yet safe on the grid.
        Sending = "sending",
    }
}

/// What a bucket costs, by its price for what it holds now; requests come to little beside that.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cost {
    /// The peer.
    pub peer: String,
    /// Bytes that it holds.
    pub bytes: u64,
    /// Dollars a month for keeping them.
    pub dollars_a_month: f64,
    /// Dollars for reading all of it once, where that is known.
    pub dollars_to_read: Option<f64>,
}

/// A folder that is backed up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Folder {
    /// Absolute.
    #[serde(flatten)]
    pub path: PathName,
}

/// An exclude rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    /// gitignore-style.
    pub pattern: String,
}

/// A setting.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Setting {
    /// Dotted key.
    pub key: String,
    /// Its value.
    pub value: serde_json::Value,
}

/// This node is a member of a grid now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Joined {
    /// The inviter's name.
    pub inviter: String,
    /// Names of all other members.
    pub members: Vec<String>,
}

/// One file or peer failed; the rest goes on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// The file or folder.
    #[serde(flatten, default, skip_serializing_if = "Option::is_none")]
    pub path: Option<PathName>,
    /// The peer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer: Option<String>,
    /// What failed.
    pub error: String,
}

impl Problem {
    /// Of nothing that has a name.
    pub fn new(error: impl Into<String>) -> Self {
        Self {
            path: None,
            peer: None,
            error: error.into(),
        }
    }

    /// Of a file or folder.
    pub fn of_path(path: impl Into<PathName>, error: impl Into<String>) -> Self {
        Self {
            path: Some(path.into()),
            ..Self::new(error)
        }
    }

    /// Of a peer.
    pub fn of_peer(peer: &str, error: impl Into<String>) -> Self {
        Self {
            peer: Some(peer.to_owned()),
            ..Self::new(error)
        }
    }
}

/// Something the daemon did or noticed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// When.
    pub time: Timestamp,
    /// `peer_online`, `peer_offline`, `snapshot`, `share_stored`, `audit`, `repair`, …
    pub event: String,
    /// One line for people.
    pub text: String,
}

macro_rules! messages {
    ($($variant:ident($payload:ident)),* $(,)?) => {
        $(impl From<$payload> for Message {
            fn from(payload: $payload) -> Self {
                Self::$variant(payload)
            }
        })*
    };
}

messages!(
    Initialized(Initialized),
    Ticket(Ticket),
    Ready(Ready),
    Mounted(Mounted),
    Summary(Summary),
    File(FileStatus),
    Job(Job),
    Snapshot(Snapshot),
    Group(Group),
    Retention(Retention),
    Entry(Entry),
    Change(Change),
    Peer(Peer),
    Device(Device),
    DiskServed(DiskServed),
    DiskVoter(DiskVoter),
    Finding(Finding),
    Folder(Folder),
    Rule(Rule),
    Setting(Setting),
    Joined(Joined),
    Changed(Changed),
    Progress(Progress),
    Spool(Spool),
    Problem(Problem),
    Removal(Removal),
    PeerRemoval(PeerRemoval),
    Event(Event),
    Error(Failure),
);

impl From<Disk> for Message {
    fn from(disk: Disk) -> Self {
        Self::Disk(Box::new(disk))
    }
}

impl From<Status> for Message {
    fn from(status: Status) -> Self {
        Self::Status(Box::new(status))
    }
}
