//! From the phrase and some peers back to a catalog: the newest valid head, its root, all logs and indexes.

use proto::id::DeviceId;
use proto::keys::AccountKeys;

use crate::restore::{Reader, RestoreError};

/// What recovery found.
#[derive(Clone, Debug)]
pub struct Recovered {
    /// The device whose head was taken.
    pub device: DeviceId,
    /// Its name.
    pub device_name: String,
    /// Sequence number of the head.
    pub head: u64,
    /// Snapshots found.
    pub snapshots: u64,
    /// Files in the newest.
    pub files: u64,
    /// Peers that answered, and of those the ones that served an older head (rollback) or a fork, with what was wrong.
    pub peers_answered: usize,
    /// Peers whose answer was not believed.
    pub peers_bad: Vec<(String, String)>,
}

/// Recovery failed.
#[derive(Debug, thiserror::Error)]
pub enum RecoverError {
    /// No peer has a head of this account.
    #[error("No peer that answered has a backup of this account ({answered} answered)")]
    NoHead {
        /// Peers that answered.
        answered: usize,
    },
    /// Reading failed.
    #[error(transparent)]
    Read(#[from] RestoreError),
}

/// Rebuilds the empty catalog of `reader` from its peers. Repeatable: run again after a crash or when more peers are up.
pub async fn recover(
    _reader: &Reader,
    _keys: &AccountKeys,
    _progress: &(dyn Fn(&str) + Send + Sync),
) -> Result<Recovered, RecoverError> {
    todo!()
}
