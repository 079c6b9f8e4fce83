//! What `peer rm` says first.

use serde::{Deserialize, Serialize};

/// What it costs to remove a peer: said before it is removed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerRemoval {
    /// Its name.
    pub name: String,
    /// Shares that it holds, and that count no more.
    pub shares: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Bytes that have to be sent again, to whoever has room.
    pub bytes_again: u64,
    /// Packs that survive fewer losses than the policy asks for until then.
    pub packs_unsafe: u64,
    /// Files that have to be read here again, since too little of their content is left elsewhere.
    pub files_again: u64,
    /// Files whose content would be lost.
    pub files_lost: u64,
    /// Virtual disks of which blocks would be lost.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub disks_lost: Vec<String>,
}
