//! What `mount` says once everything is there to be looked at.

use serde::{Deserialize, Serialize};

/// The snapshots are shown as folders.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mounted {
    /// The folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<String>,
    /// URL of the WebDAV server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub webdav: Option<String>,
    /// Its password; any user name does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<String>,
}
