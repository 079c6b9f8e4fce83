//! What config.toml says.

use super::field::asked;
use crate::message::PathName;

asked! {
    /// Folders that are backed up.
    pub struct Folders {
        /// Which.
        pub paths: Vec<PathName>,
    }

    /// Exclude rules.
    pub struct Rules {
        /// gitignore-style.
        pub patterns: Vec<String>,
    }

    /// Which setting to show.
    pub struct ConfigGet {
        /// Dotted key; none: all.
        #[serde(default)]
        pub key: Option<String>,
    }

    /// A setting, and what it is to be.
    pub struct ConfigSet {
        /// Dotted key.
        pub key: String,
        /// As typed; sizes and durations may carry units.
        pub value: String,
    }
}
