//! A commit: what was written since the one before, as packs, and a root that leads to all that the volume holds
//! (docs/format/disk.md). Everything here computes: who seals packs, sends them, and makes a root visible is elsewhere.

pub mod compose;
pub mod contents;
pub mod lineage;
pub mod opening;
pub mod pack_set;
pub mod pack_table;
pub mod root;
pub mod state;
pub mod work;

mod cursor;
mod ids;

/// A pack of a volume, by its number in the volume's table of packs. Numbers are never used again.
pub type PackNumber = u32;

/// Where bytes lie: a part of the plaintext of a pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
pub struct Span {
    /// Which pack.
    #[n(0)]
    pub pack: PackNumber,
    /// Of the first byte, in the pack's plaintext.
    #[n(1)]
    pub offset: u32,
    /// How many bytes.
    #[n(2)]
    pub len: u32,
}

/// What was read of a volume is not what was written, or not for this program.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
pub enum CommitError {
    /// Not the encoding, or out of limits.
    #[error("{what} of the disk is damaged: {reason}")]
    Malformed {
        /// What it should be.
        what: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// Written by a newer gridbackup.
    #[error("{what} of the disk is of version {version}, which is not known to this gridbackup")]
    Version {
        /// What it is.
        what: &'static str,
        /// The version found.
        version: u16,
    },
}

impl CommitError {
    fn malformed(what: &'static str, reason: impl std::fmt::Display) -> Self {
        Self::Malformed {
            what,
            reason: reason.to_string(),
        }
    }
}

#[cfg(test)]
mod tests;
