//! What `doctor` says.

use serde::{Deserialize, Serialize};

use super::Reach;
use crate::named::named;

/// Something that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// What.
    pub check: Topic,
    /// How it stands.
    pub level: Level,
    /// Name of the peer that it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer: Option<String>,
    /// How that peer is reached, as in `peer`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reach: Option<Reach>,
    /// What was found, in one line.
    pub text: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

impl Finding {
    /// The same, with what to do about it.
    #[must_use]
    pub fn remedy(self, remedy: &str) -> Self {
        Self {
            remedy: Some(remedy.to_owned()),
            ..self
        }
    }
}

named! {
    /// What `doctor` looks at.
    pub enum Topic {
        /// A peer.
        Peer = "peer",
        /// Whether others reach this node.
        Outside = "outside",
        /// The router.
        Upnp = "upnp",
        /// Buffers of the system for what comes in.
        UdpBuffers = "udp_buffers",
        /// This machine's clock.
        Clock = "clock",
        /// Room for friends' shares.
        Space = "space",
        /// What waits to be sent.
        Spool = "spool",
        /// Files of the home's state.
        State = "state",
        /// Who votes on which machine writes a virtual disk.
        Disk = "disk",
        /// The verdict on what is backed up.
        Backup = "backup",
    }
}

/// How something stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// Well.
    Ok,
    /// It works, and could work better.
    Notice,
    /// It does not work: the command's exit code is 1.
    Problem,
}
