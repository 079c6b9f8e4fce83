//! Everything the program says, as one closed set: printed for people, written as JSON lines for scripts, streamed by the
//! API. Tags and fields are a contract; fields are only ever added. Sizes are bytes, times RFC 3339 in UTC.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

mod finding;
mod history;
mod mounted;
mod path;
mod progress;
mod removal;
mod spool;
mod summary;

pub use finding::{Finding, Level};
pub use history::{Change, DiffSummary, Group, Retention, Snapshot, StatsSummary, VerifySummary};
pub use mounted::Mounted;
pub use path::PathName;
pub use progress::Progress;
pub use removal::{Removal, RemovalKind, RemovalState};
pub use spool::{Spool, SpoolPart};
pub use summary::{
    CheckSummary, DemoSummary, ForgetSummary, MountSummary, PruneSummary, PublishRestoreSummary, PublishSummary,
    RecoverSummary, RecoveredDeviceSummary, RepairSummary, RestoreSummary, RunSummary, SimulateSummary, Summary,
    UndeleteSummary, UnreadSummary,
};

use crate::failure::Failure;

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

/// Is my data safe.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Everything in the newest snapshot is protected.
    pub safe: bool,
    /// Failure domains that may vanish without loss, for the least protected file that is protected at all.
    pub tolerates: u32,
    /// Files in the newest snapshot.
    pub files_total: u64,
    /// Files as safe as the policy asks.
    pub files_protected: u64,
    /// Files whose content is not on the grid yet.
    pub files_waiting: u64,
    /// Files on the grid that too few peers hold.
    pub files_at_risk: u64,
    /// Bytes in the newest snapshot.
    pub bytes_total: u64,
    /// Bytes as safe as the policy asks.
    pub bytes_protected: u64,
    /// Bytes not on the grid yet.
    pub bytes_waiting: u64,
    /// Peers that answer.
    pub peers_online: u32,
    /// Peers.
    pub peers_total: u32,
    /// Id of the newest snapshot that is complete.
    pub newest_complete_snapshot: Option<String>,
    /// When that was made.
    #[serde(default)]
    pub newest_complete_time: Option<Timestamp>,
    /// What the policy asks for.
    #[serde(default)]
    pub tolerate: u32,
    /// Bytes of friends' shares received since this node started.
    #[serde(default)]
    pub bytes_received: u64,
    /// Bytes of shares sent since this node started.
    #[serde(default)]
    pub bytes_sent: u64,
    /// Bytes kept for friends.
    #[serde(default)]
    pub bytes_for_friends: u64,
    /// What this node noticed about other members.
    #[serde(default)]
    pub alarms: Vec<Alarm>,
    /// What buckets cost, as far as prices are known.
    #[serde(default)]
    pub costs: Vec<Cost>,
    /// Probability that what is on the grid can be read at once, at a random moment; none while nothing is there.
    #[serde(default)]
    pub p_restorable_now: Option<f64>,
    /// That it can be read within 48 hours.
    #[serde(default)]
    pub p_restorable_48h: Option<f64>,
    /// That some of it is lost to all peers within a year (this machine still has the files then).
    #[serde(default)]
    pub p_loss_year: Option<f64>,
    /// The two before it rest on what was measured of peers; else on who answers now.
    #[serde(default)]
    pub uptimes_measured: bool,
    /// What would help most: `another_friend`, `always_on_peer`; none if nothing is needed.
    #[serde(default)]
    pub advice: Option<Advice>,
}

/// What would make a restore surer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Advice {
    /// One more friend, in a household of its own.
    AnotherFriend,
    /// A peer that is always on.
    AlwaysOnPeer,
}

/// Something is wrong with a member, as far as this node can tell.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alarm {
    /// The member's name.
    pub member: String,
    /// `silent`, `long_silent` (90 days), `abandoned` (180 days) or `no_backup`.
    pub kind: String,
    /// For how many days.
    pub days: u64,
    /// One line for people.
    pub text: String,
}

/// Is this file safe.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileStatus {
    /// Which.
    #[serde(flatten)]
    pub path: PathName,
    /// Where it stands.
    pub state: FileState,
    /// Failure domains that hold shares of it.
    pub domains: u32,
    /// How many of them may vanish.
    pub tolerates: u32,
}

/// Where a file stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FileState {
    /// As safe as the policy asks.
    Protected,
    /// Not on the grid yet.
    Waiting,
    /// On too few peers.
    AtRisk,
    /// A rule leaves it out.
    Excluded,
    /// In no snapshot.
    Unknown,
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
    /// `waiting`, `leased` or `sending`.
    pub state: String,
}

/// An entry of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Absolute path.
    #[serde(flatten)]
    pub path: PathName,
    /// `file`, `directory`, `symlink`, `fifo`, `socket`, `char_device` or `block_device`.
    pub kind: String,
    /// Length.
    pub bytes: u64,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Modification time.
    pub mtime: Timestamp,
    /// Id of the snapshot.
    pub snapshot: String,
    /// Where a symlink points.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link_target: Option<String>,
    /// `find`: the oldest snapshot that shows it so; `snapshot` is the newest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_snapshot: Option<String>,
    /// `find`: how many snapshots show it so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshots: Option<u64>,
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

/// A peer: what it gives and takes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Peer {
    /// Its name for people.
    pub name: String,
    /// What it is.
    pub kind: PeerKind,
    /// Libp2p peer id of a friend.
    pub peer_id: Option<String>,
    /// Answers now.
    pub online: bool,
    /// How it is reached: `direct`, `hole_punched`, `relayed`, `local`, `remote`, `none`.
    pub reach: String,
    /// Bytes that it stores for me.
    pub bytes_for_me: u64,
    /// Bytes that I store for it.
    pub bytes_for_them: u64,
    /// Bytes that it may store for me, if limited.
    pub quota: Option<u64>,
    /// Measured share of time that it answers, 0 to 1.
    pub uptime: Option<f64>,
    /// When it last answered.
    pub last_seen: Option<Timestamp>,
    /// Audits passed, and done.
    #[serde(default)]
    pub audits: Option<(u64, u64)>,
    /// `good`, `suspected`, `lost`, or `late`: good, but its proofs come so late that it may fetch them elsewhere.
    #[serde(default)]
    pub standing: String,
    /// The config names it as steward: it brings our shares to the others.
    #[serde(default)]
    pub is_steward: bool,
}

/// What a peer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PeerKind {
    /// A friend's node.
    Friend,
    /// A bucket.
    S3,
    /// A folder: USB disk, NAS mount.
    Folder,
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

/// Something was added, changed or removed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changed {
    /// `added`, `changed`, `removed`, `unchanged`; of objects also what `publish` or others did.
    pub action: String,
    /// `folder`, `rule`, `peer`, `setting`, `daemon`, `object`.
    pub what: String,
    /// Its name, path, pattern or key.
    pub name: String,
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
        }
        impl From<$payload> for crate::output::Output {
            fn from(payload: $payload) -> Self {
                Self::Message(payload.into())
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
    Event(Event),
    Error(Failure),
);

impl From<Status> for Message {
    fn from(status: Status) -> Self {
        Self::Status(Box::new(status))
    }
}

impl From<Status> for crate::output::Output {
    fn from(status: Status) -> Self {
        Self::Message(status.into())
    }
}
