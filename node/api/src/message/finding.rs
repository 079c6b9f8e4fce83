//! What `doctor` says.

use serde::{Deserialize, Serialize};

use super::Reach;

/// Something that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// What: `peer`, `outside`, `upnp`, `udp_buffers`, `clock`, `space`, `backup`.
    pub check: String,
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
