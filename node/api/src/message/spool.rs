//! What waits on this machine to be sent.

use serde::{Deserialize, Serialize};

use crate::human::ByteSize;

/// The spool.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spool {
    /// Bytes that wait.
    pub bytes: u64,
    /// Most that may (`spool_max`).
    pub bytes_max: u64,
    /// For whom, the most first.
    pub parts: Vec<SpoolPart>,
}

/// What waits for one peer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpoolPart {
    /// Name of the peer; none: for any that has room.
    pub peer: Option<String>,
    /// Shares.
    pub shares: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl Spool {
    /// In a line, for people.
    pub fn text(&self) -> String {
        let (used, limit) = (ByteSize(self.bytes), ByteSize(self.bytes_max));
        let parts = self.parts.iter().map(|part| {
            let whom = part.peer.as_deref().unwrap_or("any peer with room");
            format!("{} for {whom}", ByteSize(part.bytes))
        });
        match parts.collect::<Vec<_>>() {
            parts if parts.is_empty() => format!("The spool is empty; it may hold {limit}"),
            parts => format!("The spool holds {used} of {limit}: {}", parts.join(", ")),
        }
    }
}
