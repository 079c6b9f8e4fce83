//! The facts of a verdict.

use api::human::Period;
use jiff::Timestamp;

/// Files and bytes, by how well they are protected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amount {
    /// Files.
    pub files: u64,
    /// Bytes.
    pub bytes: u64,
}

/// Some things by name, of so many.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Named {
    /// How many there are.
    pub count: u64,
    /// The first of them.
    pub names: Vec<String>,
}

/// A folder of the config that the last run could not back up, or that is not there now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failing {
    pub path: String,
    pub reason: String,
    /// Since when.
    pub since: Option<Timestamp>,
}

/// How the newest run went.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum LastRun {
    /// There was none in this home.
    #[default]
    None,
    /// It is still at work.
    UnderWay,
    /// Its process died.
    CutOff(Timestamp),
    /// It failed as a whole.
    Failed {
        error: String,
        /// The first that failed since the last good one.
        since: Timestamp,
    },
    /// It made a snapshot.
    Done(Timestamp),
}

/// The newest head, while it is on too few peers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadBehind {
    /// Failure domains that have it.
    pub on: u64,
    /// Failure domains that it takes.
    pub needed: u64,
}

/// All that is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// This node only stores for friends.
    pub store_only: bool,
    /// Why config.toml cannot be used.
    pub config_fault: Option<String>,
    /// The account has revoked this device.
    pub is_revoked: bool,
    /// The account has left the grid that this device knows.
    pub has_left: bool,
    /// Folders in the config.
    pub folders: u64,
    /// Paths were named to runs of this home: backing up without folders in the config is meant.
    pub paths_named: bool,
    /// There is a snapshot that was not forgotten.
    pub has_snapshot: bool,
    /// Files as safe as the policy asks.
    pub protected: Amount,
    /// Files on too few peers.
    pub at_risk: Amount,
    /// Files not on the grid yet.
    pub waiting: Amount,
    /// Files of which too few shares are left.
    pub lost: Amount,
    /// The first of these.
    pub lost_names: Vec<String>,
    /// Packs of older snapshots that are on too few peers.
    pub older_at_risk: u64,
    /// Packs of older snapshots of which too few shares are left.
    pub older_lost: u64,
    /// Virtual disks of this device.
    pub disks: u64,
    /// Disks to which something was written that is on this machine alone.
    pub disks_ahead: Named,
    /// Disks of whose voters fewer than a majority are there: none of them can be opened.
    pub disks_shut: Named,
    /// Other disks that have voters which are peers no more.
    pub disks_voter_gone: Named,
    /// Packs of disks that are on too few peers.
    pub disks_at_risk: u64,
    /// Packs of disks of which too few shares are left.
    pub disks_lost: u64,
    /// Disks whose packs are not known here, and so not counted.
    pub disks_unknown: u64,
    /// Backups of this device that could not be read when this home was recovered, and were not taken in since.
    pub heads_unread: u64,
    /// Older versions of files that are not on the grid yet.
    pub older_waiting: u64,
    /// Peers that may be lost, by the policy.
    pub tolerate: u64,
    /// Peers that may be lost in truth.
    pub tolerates: u64,
    /// Peers: failure domains.
    pub peers: u64,
    /// Of these, who answer; none: nobody asked.
    pub peers_online: Option<u64>,
    /// Who is to get shares that wait here.
    pub waits_for: Vec<String>,
    /// The newest head, while it is on too few peers.
    pub head_behind: Option<HeadBehind>,
    /// Peers that refuse this home's heads because they know newer ones.
    pub heads_refused: Vec<String>,
    /// Folders that cannot be backed up.
    pub folders_failing: Vec<Failing>,
    /// Folders of the config that no snapshot has.
    pub folders_new: Vec<String>,
    /// Files and folders that the last look could not read.
    pub left_out: Named,
    /// Since when, the first of them.
    pub left_out_since: Option<Timestamp>,
    /// How the newest run went.
    pub last_run: LastRun,
    /// Time since the last good run, if it is longer than an alarm takes.
    pub overdue: Option<Period>,
}

impl Facts {
    /// Files that are counted.
    pub fn total(&self) -> Amount {
        let all = [self.protected, self.at_risk, self.waiting, self.lost];
        all.iter().fold(Amount::default(), |sum, part| Amount {
            files: sum.files + part.files,
            bytes: sum.bytes + part.bytes,
        })
    }
}
