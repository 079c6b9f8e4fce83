//! What the records of a grid (`roster`, `removal`, `word`) share: how many members there are at most, and what is wrong with bytes
//! that are none.

/// Most members of a grid, with those who left and may come back (docs/protocol/roster.md, invariant 5).
pub const MEMBERS_MAX: usize = 32;

/// Bytes or records that are no valid roster.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
pub enum RosterError {
    /// Not the encoding, or out of limits.
    #[error("Not a roster: {reason}")]
    Malformed {
        /// What is wrong.
        reason: String,
    },
    /// Written by a newer gridbackup.
    #[error("Roster version {version} is not known to this gridbackup")]
    Version {
        /// The version found.
        version: u16,
    },
    /// A signature does not hold.
    #[error("A signature in the roster is wrong")]
    Signature,
}
