//! The states of a verdict, and what follows from each.

use api::failure::Exit;

/// How things stand, worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    /// Nobody takes anything from this device any more.
    Revoked,
    /// Nobody takes anything from this account any more.
    Left,
    /// There is no snapshot.
    Nothing,
    /// Content is gone from the grid.
    Lost,
    /// Peers know newer heads of this device.
    HeadRefused,
    /// Nobody keeps anything.
    NoPeer,
    /// Files are on too few peers, and nothing is on its way.
    AtRisk,
    /// config.toml cannot be used.
    ConfigDamaged,
    /// Nobody said what is to be backed up.
    NoFolder,
    /// The newest run failed as a whole.
    RunFailed,
    /// The newest run was cut off.
    RunCutOff,
    /// The newest good run was long ago.
    RunLate,
    /// Content of older snapshots is gone.
    OlderLost,
    /// A backup could not be read when this home was recovered.
    HeadUnread,
    /// Files are on too few peers, and the rest is on its way.
    UnderProtected,
    /// Files are not on the grid yet.
    Waiting,
    /// A phrase would not find the newest snapshot.
    HeadBehind,
    /// Content of older snapshots, or what leads to the newest, is on too few peers.
    OlderAtRisk,
    /// A folder was never backed up.
    FolderNew,
    /// There are fewer peers than the policy takes.
    FewPeers,
    /// No peer answers.
    Away,
    /// A folder is not there, or cannot be read.
    FolderFailing,
    /// Files could not be read.
    LeftOut,
    /// Only friends' shares are kept here.
    StoreOnly,
    /// Everything is as the policy asks.
    Safe,
}

/// What follows from a state.
struct Consequence {
    name: &'static str,
    exit: Exit,
    /// The exit code of a run that leaves it so; none: it is none of a run's business.
    run: Option<Exit>,
}

impl State {
    fn consequence(self) -> Consequence {
        use Exit::{Done, SourceUnreadable, UnderProtected};
        let (name, exit, run) = match self {
            Self::Revoked => ("revoked", UnderProtected, Some(UnderProtected)),
            Self::Left => ("left", UnderProtected, Some(UnderProtected)),
            Self::Nothing => ("nothing", UnderProtected, None),
            Self::Lost => ("lost", UnderProtected, Some(UnderProtected)),
            Self::HeadRefused => ("head_refused", UnderProtected, Some(UnderProtected)),
            Self::NoPeer => ("no_peer", UnderProtected, Some(UnderProtected)),
            Self::AtRisk => ("at_risk", UnderProtected, Some(UnderProtected)),
            Self::ConfigDamaged => ("config_damaged", UnderProtected, None),
            Self::NoFolder => ("no_folder", UnderProtected, None),
            Self::RunFailed => ("run_failed", UnderProtected, None),
            Self::RunCutOff => ("run_cut_off", UnderProtected, None),
            Self::RunLate => ("run_late", UnderProtected, None),
            Self::OlderLost => ("older_lost", UnderProtected, Some(UnderProtected)),
            Self::HeadUnread => ("head_unread", UnderProtected, None),
            Self::UnderProtected => ("under_protected", UnderProtected, Some(UnderProtected)),
            Self::Waiting => ("waiting", UnderProtected, Some(UnderProtected)),
            Self::HeadBehind => ("head_behind", UnderProtected, Some(UnderProtected)),
            Self::OlderAtRisk => ("older_at_risk", UnderProtected, Some(UnderProtected)),
            Self::FolderNew => ("folder_new", UnderProtected, None),
            Self::FewPeers => ("few_peers", UnderProtected, Some(UnderProtected)),
            Self::Away => ("away", UnderProtected, Some(UnderProtected)),
            Self::FolderFailing => ("folder_failing", SourceUnreadable, Some(SourceUnreadable)),
            Self::LeftOut => ("left_out", SourceUnreadable, Some(SourceUnreadable)),
            Self::StoreOnly => ("store_only", Done, Some(Done)),
            Self::Safe => ("safe", Done, Some(Done)),
        };
        Consequence { name, exit, run }
    }

    /// Its name for scripts.
    pub fn name(self) -> &'static str {
        self.consequence().name
    }

    /// What `status` exits with.
    pub fn exit(self) -> Exit {
        self.consequence().exit
    }

    /// What `run` exits with; none: it is none of a run's business.
    pub fn exit_of_run(self) -> Option<Exit> {
        self.consequence().run
    }
}
