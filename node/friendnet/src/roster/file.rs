//! The roster's file in the home.

use std::path::Path;

use durable::state_file;
use proto::wire::roster::RosterRecords;

use super::Roster;

/// A roster that cannot be kept.
#[derive(Debug, thiserror::Error)]
#[error("The roster {path} cannot be written: {source}")]
pub struct RosterFileError {
    path: String,
    source: std::io::Error,
}

impl Roster {
    /// Reads the roster kept in a file; `None` if there is none yet, or none that can be read: then a friend who reaches this
    /// node brings it.
    pub fn load(path: &Path) -> Option<Self> {
        let decode = |bytes: &[u8]| RosterRecords::decode(bytes).map_err(|error| error.to_string());
        let (records, lost) = state_file::read(path, decode);
        match lost {
            Some(lost) if records.is_some() => tracing::warn!("{lost}: friends tell the rest"),
            Some(lost) => tracing::warn!(
                "{lost}. Until a friend reaches this node it knows nobody: if none does, ask one for a ticket and `gridbackup join` it"
            ),
            None => {}
        }
        records.map(|records| Self::from_records(&records))
    }

    /// Replaces the file.
    pub fn save(&self, path: &Path) -> Result<(), RosterFileError> {
        state_file::replace(path, &self.records().encode()).map_err(|source| RosterFileError {
            path: path.display().to_string(),
            source,
        })
    }
}
