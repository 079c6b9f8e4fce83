//! What `status` says: of everything, and of one file.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Cost, Disk, PathName, Spool, State};
use crate::named::named;

/// Is my data safe.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Everything is as the policy asks, and nothing was left out: `state` is `safe`.
    pub safe: bool,
    /// Failure domains that may vanish without loss, for the least protected file that is protected at all.
    pub tolerates: u32,
    /// Files of the folders that are backed up, and of whatever else snapshots have.
    pub files_total: u64,
    /// Files as safe as the policy asks.
    pub files_protected: u64,
    /// Files whose content is not on the grid yet.
    pub files_waiting: u64,
    /// Files on the grid that too few peers hold.
    pub files_at_risk: u64,
    /// Bytes of all of them, by length.
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
    /// How things stand, in a word.
    #[serde(default)]
    pub state: State,
    /// The same in a sentence.
    #[serde(default)]
    pub headline: String,
    /// Why it stands so, worst first.
    #[serde(default)]
    pub reasons: Vec<Reason>,
    /// Files of which too few shares are left.
    #[serde(default)]
    pub files_lost: u64,
    /// Bytes on the grid that too few peers hold.
    #[serde(default)]
    pub bytes_at_risk: u64,
    /// Bytes of which too few shares are left.
    #[serde(default)]
    pub bytes_lost: u64,
    /// Files and folders that the last look could not read.
    #[serde(default)]
    pub files_unread: u64,
    /// The newest run of this home.
    #[serde(default)]
    pub last_run: Option<LastRun>,
    /// Who answers now was not asked: another process works in this home and does not answer.
    #[serde(default)]
    pub only_catalog: bool,
    /// Other machines of this account, with backups that this home does not know, as peers were last seen to have them.
    #[serde(default)]
    pub devices: Vec<String>,
    /// What waits on this machine for peers that are not there.
    #[serde(default)]
    pub spool: Spool,
    /// Virtual disks, by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub disks: Vec<Disk>,
}

/// One reason of a verdict.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reason {
    /// In a word.
    pub state: State,
    /// One sentence for people.
    pub text: String,
    /// Since when, if that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// What to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

/// A run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastRun {
    /// When it began.
    pub began: Timestamp,
    /// When it ended; none: it is under way, or was cut off.
    pub ended: Option<Timestamp>,
    /// What it exited with.
    pub exit: Option<u8>,
    /// Why it failed as a whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
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
    /// What is wrong.
    pub kind: AlarmKind,
    /// For how many days.
    pub days: u64,
    /// One line for people.
    pub text: String,
}

named! {
    /// What is wrong with a member.
    pub enum AlarmKind {
        /// It has not been heard from for some days.
        Silent = "silent",
        /// For 90 days.
        LongSilent = "long_silent",
        /// For 180 days.
        Abandoned = "abandoned",
        /// It has made no new backup.
        NoBackup = "no_backup",
    }
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
    /// Why it stands so, where that is not the number of peers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
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
    /// It is there, and in no snapshot.
    Unknown,
    /// Too few shares are left: only the file itself can bring it back.
    Lost,
    /// It is another than the one that was backed up.
    Changed,
    /// It is not there any more, and was backed up.
    Deleted,
    /// The last run could not read it.
    Unreadable,
    /// It is not there, and in no snapshot.
    Missing,
}
