//! Backing up, and how it stands.

use super::field::asked;
use crate::message::PathName;

asked! {
    /// What to back up.
    pub struct RunOnce {
        /// Which; none: the config's folders.
        #[serde(default)]
        pub paths: Vec<PathName>,
        /// Mount points that have nothing of what they had, and roots that are empty, were emptied for good.
        #[serde(default)]
        pub accept_emptied: bool,
    }

    /// Of what to say whether it is safe.
    pub struct Status {
        /// Files asked for.
        #[serde(default)]
        pub paths: Vec<PathName>,
    }

    /// How much of the queue to show.
    pub struct Queue {
        /// Jobs at most.
        pub limit: u64,
    }
}
