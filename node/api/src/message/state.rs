//! How things stand, in a word: docs/verdict.md says when, and what follows.

use crate::named::named;

named! {
    /// How things stand, worst first.
    #[derive(Default)]
    pub enum State {
        /// Nobody takes anything from this device any more.
        Revoked = "revoked",
        /// Nobody takes anything from this account any more.
        Left = "left",
        /// There is no snapshot.
        #[default]
        Nothing = "nothing",
        /// Content is gone from the grid.
        Lost = "lost",
        /// Blocks of virtual disks are gone from the grid.
        DiskLost = "disk_lost",
        /// Too few of those are there who decide which machine writes a virtual disk.
        DiskShut = "disk_shut",
        /// Peers know newer heads of this device.
        HeadRefused = "head_refused",
        /// Nobody keeps anything.
        NoPeer = "no_peer",
        /// Files are on too few peers, and nothing is on its way.
        AtRisk = "at_risk",
        /// config.toml cannot be used.
        ConfigDamaged = "config_damaged",
        /// Nobody said what is to be backed up.
        NoFolder = "no_folder",
        /// The newest run failed as a whole.
        RunFailed = "run_failed",
        /// The newest run was cut off.
        RunCutOff = "run_cut_off",
        /// The newest good run was long ago.
        RunLate = "run_late",
        /// Content of older snapshots is gone.
        OlderLost = "older_lost",
        /// A backup could not be read when this home was recovered.
        HeadUnread = "head_unread",
        /// Files are on too few peers, and the rest is on its way.
        UnderProtected = "under_protected",
        /// Files are not on the grid yet.
        Waiting = "waiting",
        /// What was written to a virtual disk is on this machine alone.
        DiskAhead = "disk_ahead",
        /// A phrase would not find the newest snapshot.
        HeadBehind = "head_behind",
        /// Content of older snapshots, or what leads to the newest, is on too few peers.
        OlderAtRisk = "older_at_risk",
        /// Blocks of virtual disks are on too few peers.
        DiskAtRisk = "disk_at_risk",
        /// Of those who decide which machine writes a virtual disk, some are peers no more.
        DiskVoterGone = "disk_voter_gone",
        /// How well virtual disks are kept was not looked up on this machine.
        DiskUnknown = "disk_unknown",
        /// A folder was never backed up.
        FolderNew = "folder_new",
        /// There are fewer peers than the policy takes.
        FewPeers = "few_peers",
        /// No peer answers.
        Away = "away",
        /// A folder is not there, or cannot be read.
        FolderFailing = "folder_failing",
        /// Files could not be read.
        LeftOut = "left_out",
        /// Only friends' shares are kept here.
        StoreOnly = "store_only",
        /// Everything is as the policy asks.
        Safe = "safe",
    }
}
