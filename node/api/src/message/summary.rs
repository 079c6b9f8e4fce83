//! A command's last word: one tag, `summary`, and one set of fields a command.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Reason;
use super::history::{DiffSummary, StatsSummary, VerifySummary};

/// A command's last word; `command` names the variant.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case")]
pub enum Summary {
    /// `run --once`.
    Run(RunSummary),
    /// `restore`.
    Restore(RestoreSummary),
    /// `recover`.
    Recover(Box<RecoverSummary>),
    /// `check`.
    Check(CheckSummary),
    /// `repair`.
    Repair(RepairSummary),
    /// `demo`.
    Demo(DemoSummary),
    /// `simulate`.
    Simulate(SimulateSummary),
    /// `publish`.
    Publish(PublishSummary),
    /// `publish restore`.
    PublishRestore(PublishRestoreSummary),
    /// `disk export`, `import`, `check`, `salvage`, `erase`.
    Disk(DiskSummary),
    /// `mount`.
    Mount(MountSummary),
    /// `forget`.
    Forget(ForgetSummary),
    /// `prune`, `forget --prune`.
    Prune(PruneSummary),
    /// `undelete`.
    Undelete(UndeleteSummary),
    /// `diff`.
    Diff(DiffSummary),
    /// `stats`.
    Stats(StatsSummary),
    /// `verify`.
    Verify(VerifySummary),
}

/// `run --once`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RunSummary {
    /// Id of the snapshot made.
    pub snapshot: Option<String>,
    /// All its content is on the grid.
    pub complete: bool,
    /// Files that were not there before.
    pub files_new: u64,
    /// Files that differ from before.
    pub files_changed: u64,
    /// Files that are as before.
    pub files_unmodified: u64,
    /// Files that were there before.
    pub files_gone: u64,
    /// Files that could not be read.
    pub files_failed: u64,
    /// Bytes read from files.
    pub bytes_read: u64,
    /// Sealed content added, before redundancy.
    pub bytes_added: u64,
    /// What left for peers.
    pub bytes_sent: u64,
    /// Packs sealed.
    pub packs: u64,
    /// Time taken.
    pub seconds: f64,
    /// Files whose content is not on enough peers yet.
    #[serde(default)]
    pub files_waiting: u64,
    /// Why the exit code is not 0, worst first.
    #[serde(default)]
    pub reasons: Vec<Reason>,
    /// Files of kept snapshots of whose content too few shares are left, and that are not here as they were.
    #[serde(default)]
    pub files_lost: u64,
}

/// `restore`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RestoreSummary {
    /// Id of the snapshot read.
    pub snapshot: String,
    /// Files written.
    pub files_restored: u64,
    /// Files that were there already.
    pub files_unchanged: u64,
    /// Files that could not be restored.
    pub files_failed: u64,
    /// Bytes of content written, by length.
    pub bytes_restored: u64,
    /// Bytes fetched from peers.
    pub bytes_fetched: u64,
    /// Names of the peers that served.
    pub peers_used: Vec<String>,
    /// Names of the peers that served damaged shares.
    pub peers_bad: Vec<String>,
    /// Time taken.
    pub seconds: f64,
    /// Nothing was written: it was asked what would be.
    #[serde(default)]
    pub dry_run: bool,
    /// Files that were removed because the snapshot does not have them, or would be.
    #[serde(default)]
    pub files_deleted: u64,
    /// Folders, in the same way.
    #[serde(default)]
    pub folders_deleted: u64,
    /// Files and folders that the snapshot does not have and that were left: the backup leaves them out.
    #[serde(default)]
    pub extras_left: u64,
    /// Files and folders that were not removed because something could not be restored.
    #[serde(default)]
    pub removals_withheld: u64,
}

/// `disk export`, `import`, `check`, `salvage`, `erase`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DiskSummary {
    /// The disk's name.
    pub name: String,
    /// Bytes of the device.
    pub size: u64,
    /// Bytes that are not zeros, and were read or written.
    pub bytes_done: u64,
    /// Bytes that could not be read.
    pub bytes_failed: u64,
    /// Time taken.
    pub seconds: f64,
}

/// `mount`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct MountSummary {
    /// Bytes fetched from peers.
    pub bytes_fetched: u64,
    /// Ranges of shares fetched: round trips to peers.
    pub ranges_fetched: u64,
    /// Names of the peers that served.
    pub peers_used: Vec<String>,
    /// Names of the peers that served damaged shares.
    pub peers_bad: Vec<String>,
    /// Time mounted.
    pub seconds: f64,
}

/// `recover`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RecoverSummary {
    /// The account's id.
    pub account: String,
    /// This new device's id.
    pub device: String,
    /// Name of the device whose backups were found.
    pub recovered_device: String,
    /// Snapshots found.
    pub snapshots: u64,
    /// Snapshots that were forgotten and may be brought back.
    #[serde(default)]
    pub snapshots_forgotten: u64,
    /// Files in the newest.
    pub files: u64,
    /// The machines that made them, that with the newest first.
    #[serde(default)]
    pub devices: Vec<RecoveredDeviceSummary>,
    /// What peers have that is newer and could not be read.
    #[serde(default)]
    pub unread: Vec<UnreadSummary>,
    /// Machines that are revoked: what they signed last may be a thief's.
    #[serde(default)]
    pub revoked: Vec<RevokedSummary>,
    /// Virtual disks that the newest backup names.
    #[serde(default)]
    pub disks: Vec<String>,
    /// Settings that came back, as in config.toml.
    #[serde(default)]
    pub settings: Vec<String>,
    /// The folders that are backed up from now on.
    #[serde(default)]
    pub folders: Vec<String>,
    /// The roots of the newest snapshot of each machine.
    #[serde(default)]
    pub roots: Vec<String>,
    /// Peers that answered.
    pub peers_answered: u64,
    /// Peers whose answer was not believed.
    pub peers_bad: Vec<String>,
    /// Time taken.
    pub seconds: f64,
}

/// A machine whose backups came back.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RecoveredDeviceSummary {
    /// Its name.
    pub name: String,
    /// Its snapshots.
    pub snapshots: u64,
    /// Files in the newest of them.
    pub files: u64,
    /// When that was made.
    pub newest: Timestamp,
}

/// A machine that is revoked, and of which peers have states.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RevokedSummary {
    /// Its name.
    pub device: String,
    /// When its states were made, by its own word: in the order in which peers came to have them.
    pub states: Vec<Timestamp>,
}

/// A head that is newer than what was recovered, and could not be read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct UnreadSummary {
    /// The name of the machine that made it.
    pub device: String,
    /// Its number.
    pub number: u64,
    /// When its newest snapshot was made.
    pub time: Option<Timestamp>,
    /// Why it cannot be read.
    pub error: String,
}

/// `check`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CheckSummary {
    /// Packs looked at.
    pub packs: u64,
    /// Shares that should be there.
    pub shares_expected: u64,
    /// Shares that are.
    pub shares_found: u64,
    /// Shares that are damaged.
    pub shares_bad: u64,
    /// Peers that answered and should have the newest head.
    #[serde(default)]
    pub heads_expected: u64,
    /// Those that have it.
    #[serde(default)]
    pub heads_found: u64,
    /// Buckets in which this node left the grid's roster, and that answered.
    #[serde(default)]
    pub rosters_expected: u64,
    /// Those that have it, with everybody in it.
    #[serde(default)]
    pub rosters_found: u64,
    /// Other machines of this account that this home does not know the backups of.
    #[serde(default)]
    pub devices: Vec<String>,
    /// Bytes read back.
    pub bytes_read: u64,
    /// Everything accounted for.
    pub ok: bool,
    /// Shares that could not be looked at: their peer did not answer, or broke off. Nothing is said of them.
    #[serde(default)]
    pub shares_unchecked: u64,
    /// Files of kept snapshots of whose content too few shares are left.
    #[serde(default)]
    pub files_lost: u64,
}

/// `repair`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RepairSummary {
    /// Packs looked at.
    pub packs: u64,
    /// Packs that now survive fewer losses than the policy asks for.
    pub packs_unsafe: u64,
    /// Shares that were not where they should be, and those that were found damaged.
    pub shares_missing: u64,
    /// Shares that were found where nobody knew them to be.
    pub shares_found: u64,
    /// Shares that were built anew or moved, and that a peer has acknowledged.
    pub shares_rebuilt: u64,
    /// Shares that are built and still wait to be taken.
    #[serde(default)]
    pub shares_waiting: u64,
    /// Bytes fetched from peers to build them.
    pub bytes_fetched: u64,
    /// What left for peers.
    pub bytes_sent: u64,
    /// Peers that are counted on no longer.
    pub peers_lost: Vec<String>,
    /// Time taken.
    pub seconds: f64,
    /// Every pack is as safe as the policy asks.
    pub ok: bool,
    /// Files of kept snapshots of whose content too few shares are left to build the others from.
    #[serde(default)]
    pub files_lost: u64,
}

/// `demo`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DemoSummary {
    /// Files backed up.
    pub files: u64,
    /// Bytes backed up.
    pub bytes: u64,
    /// Nodes started.
    pub peers: u32,
    /// Nodes killed.
    pub peers_stopped: u32,
    /// The restored folder equals the source byte for byte.
    pub identical: bool,
    /// Time of the backup.
    pub seconds_backup: f64,
    /// Time of recovery and restore.
    pub seconds_restore: f64,
}

/// `forget`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ForgetSummary {
    /// Snapshots that stay.
    pub snapshots_kept: u64,
    /// Snapshots that do not.
    pub snapshots_forgotten: u64,
    /// Backups given up that could not be read when this home was recovered.
    pub unread_forgotten: u64,
    /// Other machines of the account that are gone for good: what only they want may be given up.
    pub devices_released: u64,
    /// Enough peers know it.
    pub published: bool,
    /// Nothing was done: it was asked what would be.
    pub dry_run: bool,
}

/// `prune`, `forget --prune`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PruneSummary {
    /// Data packs that some snapshot wants.
    pub packs_wanted: u64,
    /// Data packs that no snapshot wants any more since this run.
    pub packs_dropped: u64,
    /// Mostly unwanted data packs whose wanted chunks were copied into new ones; they are dropped too, once those are safe.
    pub packs_repacked: u64,
    /// Bytes of these chunks.
    pub bytes_repacked: u64,
    /// Shares that peers moved to their trash.
    pub shares_discarded: u64,
    /// Their bytes; they count for thirty more days.
    pub bytes_discarded: u64,
    /// Nothing was done: it was asked what would be.
    pub dry_run: bool,
    /// Time taken.
    pub seconds: f64,
}

/// `undelete`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct UndeleteSummary {
    /// Snapshots brought back.
    pub snapshots: u64,
    /// Packs that are wanted again.
    pub packs: u64,
    /// Shares that peers took out of their trash.
    pub shares_recalled: u64,
    /// Their bytes.
    pub bytes_recalled: u64,
}

/// `publish`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PublishSummary {
    /// Nothing was done, only found out.
    pub dry_run: bool,
    /// Files in the folder.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Files as they were.
    pub files_unchanged: u64,
    /// Objects put.
    pub objects_uploaded: u64,
    /// Bytes sent for them.
    pub bytes_sent: u64,
    /// Objects whose headers alone were changed.
    pub headers_changed: u64,
    /// Objects deleted.
    pub objects_deleted: u64,
    /// Objects without a file that were left.
    pub objects_kept: u64,
    /// Differences that others made in the bucket.
    pub drifted: u64,
    /// Files and folders that cannot be published.
    pub files_broken: u64,
    /// Objects that the endpoint refused.
    pub objects_failed: u64,
    /// Requests sent.
    pub requests: u64,
}

/// `publish restore`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PublishRestoreSummary {
    /// Nothing was done, only found out.
    pub dry_run: bool,
    /// Objects that are files.
    pub files: u64,
    /// Files fetched.
    pub files_restored: u64,
    /// Files that were right already.
    pub files_unchanged: u64,
    /// Bytes received.
    pub bytes_received: u64,
    /// Files of which only the length could be checked.
    pub files_unverified: u64,
    /// Objects that are no files: generated pages, redirects.
    pub objects_skipped: u64,
    /// Local files without an object that were removed.
    pub files_removed: u64,
    /// Keys that cannot be files here.
    pub keys_refused: u64,
    /// Files that could not be restored.
    pub files_failed: u64,
    /// Requests sent.
    pub requests: u64,
}

/// `simulate`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SimulateSummary {
    /// Friends in each grid.
    pub friends: u32,
    /// The part of the time that each is on.
    pub uptime: f64,
    /// Friends that may vanish.
    pub tolerate: u32,
    /// Shares needed and made of each pack.
    pub k: u32,
    /// See `k`.
    pub n: u32,
    /// Losses of one friend a year, as a rate.
    pub friend_losses_per_year: f64,
    /// Grids simulated.
    pub runs: u64,
    /// Years of each.
    pub years: f64,
    /// With this seed and equal options a run says the same.
    pub seed: u64,
    /// Measured, and by the closed form: everything can be read at once.
    pub p_restorable_now: f64,
    /// See `p_restorable_now`.
    pub p_restorable_now_formula: f64,
    /// Within 48 hours.
    pub p_restorable_48h: f64,
    /// See `p_restorable_48h`.
    pub p_restorable_48h_formula: f64,
    /// How often the friends alone had too few shares left.
    pub losses: u64,
    /// Losses a year, measured; the bounds that hold with 95 % probability; by the closed form.
    pub losses_per_year: f64,
    /// See `losses_per_year`.
    pub losses_per_year_low: f64,
    /// See `losses_per_year`.
    pub losses_per_year_high: f64,
    /// See `losses_per_year`.
    pub losses_per_year_formula: f64,
    /// Friends lost in all runs.
    pub friends_lost: u64,
    /// Bytes of shares put anew, a grid and year, for 200 GiB of backup.
    pub repair_bytes_per_year: u64,
    /// Days from the loss of a share until it was elsewhere, on average.
    pub repair_days: f64,
    /// Broken rules: more than none is a defect of this program.
    pub violations: u64,
    /// Time taken.
    pub seconds: f64,
}
