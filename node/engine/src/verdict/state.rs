//! What follows from each state of a verdict.

use api::failure::Exit;
use api::message::State;

/// What `status` exits with.
pub fn exit(state: State) -> Exit {
    exits(state).0
}

/// What `run` exits with when it leaves it so; none: it is none of a run's business.
pub fn exit_of_run(state: State) -> Option<Exit> {
    exits(state).1
}

fn exits(state: State) -> (Exit, Option<Exit>) {
    use Exit::{Done, SourceUnreadable, UnderProtected};
    match state {
        State::Revoked => (UnderProtected, Some(UnderProtected)),
        State::Left => (UnderProtected, Some(UnderProtected)),
        State::Nothing => (UnderProtected, None),
        State::Lost => (UnderProtected, Some(UnderProtected)),
        State::DiskLost => (UnderProtected, Some(UnderProtected)),
        State::DiskShut => (UnderProtected, None),
        State::HeadRefused => (UnderProtected, Some(UnderProtected)),
        State::NoPeer => (UnderProtected, Some(UnderProtected)),
        State::AtRisk => (UnderProtected, Some(UnderProtected)),
        State::ConfigDamaged => (UnderProtected, None),
        State::NoFolder => (UnderProtected, None),
        State::RunFailed => (UnderProtected, None),
        State::RunCutOff => (UnderProtected, None),
        State::RunLate => (UnderProtected, None),
        State::OlderLost => (UnderProtected, Some(UnderProtected)),
        State::HeadUnread => (UnderProtected, None),
        State::UnderProtected => (UnderProtected, Some(UnderProtected)),
        State::Waiting => (UnderProtected, Some(UnderProtected)),
        State::DiskAhead => (UnderProtected, None),
        State::HeadBehind => (UnderProtected, Some(UnderProtected)),
        State::OlderAtRisk => (UnderProtected, Some(UnderProtected)),
        State::DiskAtRisk => (UnderProtected, Some(UnderProtected)),
        State::DiskVoterGone => (UnderProtected, None),
        State::DiskUnknown => (UnderProtected, None),
        State::FolderNew => (UnderProtected, None),
        State::FewPeers => (UnderProtected, Some(UnderProtected)),
        State::Away => (UnderProtected, Some(UnderProtected)),
        State::FolderFailing => (SourceUnreadable, Some(SourceUnreadable)),
        State::LeftOut => (SourceUnreadable, Some(SourceUnreadable)),
        State::StoreOnly => (Done, Some(Done)),
        State::Safe => (Done, Some(Done)),
    }
}
