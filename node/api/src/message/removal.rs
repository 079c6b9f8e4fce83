//! What a restore with `--delete` removes, or leaves.

use serde::{Deserialize, Serialize};

use super::PathName;

/// Something is in the target of a restore and not in the snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Removal {
    /// The file or folder.
    #[serde(flatten)]
    pub path: PathName,
    /// `file` or `folder`.
    pub kind: RemovalKind,
    /// What became of it.
    pub state: RemovalState,
    /// Why it was left.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// It was asked what would be done.
    #[serde(default)]
    pub dry_run: bool,
}

/// What was removed or left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RemovalKind {
    /// Anything but a folder.
    File,
    /// A folder; what was in it is told of before.
    Folder,
}

/// What became of something that the snapshot does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RemovalState {
    /// It is gone.
    Removed,
    /// It would be.
    WouldRemove,
    /// It stays, with all that is below it.
    Left,
}
