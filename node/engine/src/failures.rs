//! Library errors as failures: exit code and remedy.

use api::failure::{Exit, Failure, Kind};
use backup::catalog::tree::FindError;
use backup::recover::RecoverError;
use backup::restore::RestoreError;
use backup::scan::ScanError;
use backup::writer::WriteError;

/// No snapshot is meant.
pub fn find(error: FindError) -> Failure {
    let kind = match error {
        FindError::Unknown { .. } => Kind::NotFound,
        FindError::Ambiguous { .. } => Kind::Conflict,
        FindError::Db(_) => Kind::Plain,
    };
    Failure::from_error(&error).kind(kind)
}

/// A scan failed as a whole.
pub fn scan(error: ScanError) -> Failure {
    let exit = match error {
        ScanError::TooManyRoots { .. } => Exit::Usage,
        ScanError::Root { .. } | ScanError::Db(_) => Exit::Failed,
    };
    Failure::from_error(&error).exit(exit)
}

/// The write side failed as a whole.
pub fn write(error: WriteError) -> Failure {
    Failure::from_error(&error)
}

/// The read side failed as a whole.
pub fn read(error: RestoreError) -> Failure {
    match error {
        RestoreError::TooFewShares { .. } => too_few_shares(error.to_string()),
        error @ RestoreError::NothingMatches { .. } => Failure::from_error(&error)
            .hint("patterns are matched against paths as they would be below DIR; `gridbackup ls` shows what there is"),
        error @ RestoreError::NoSuchPath { .. } => Failure::from_error(&error).kind(Kind::NotFound),
        error => Failure::from_error(&error),
    }
}

/// Something could not be read because peers are away.
pub fn too_few_shares(error: String) -> Failure {
    Failure::new(Exit::TooFewShares, error).hint("try again when more of these peers are up")
}

/// Recovery failed.
pub fn recover(error: RecoverError) -> Failure {
    match error {
        RecoverError::Read(error) => read(error),
        error @ RecoverError::NoHead { .. } => {
            Failure::from_error(&error).hint("check the phrase and the address; name more peers with --via")
        }
    }
}

/// A worker thread ended without an answer: it panicked or the runtime is shutting down.
pub fn worker(error: tokio::task::JoinError) -> Failure {
    Failure::context("A worker thread ended unexpectedly", &error)
}
