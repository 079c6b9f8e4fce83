//! Who keeps what, and who belongs.

use super::field::{asked, held};
use crate::named::named;

asked! {
    /// Whom to invite.
    pub struct Invite {
        /// A label for the invited friend.
        #[serde(default)]
        pub name: Option<String>,
        /// Seconds that the ticket holds.
        pub expires_secs: u64,
    }

    /// Which grid to join.
    pub struct Join {
        /// The ticket.
        pub ticket: String,
        /// What this account says of itself (as in `Word`), where it comes back to a grid that it has left.
        #[serde(default)]
        pub word: Option<String>,
    }

    /// A folder or bucket that becomes a peer.
    pub struct PeerAdd {
        /// Its name for people.
        pub name: String,
        /// `dir:/ABSOLUTE/PATH` or `s3://BUCKET[/PREFIX]`.
        pub url: String,
        /// S3 endpoint if not Amazon's.
        #[serde(default)]
        pub endpoint: Option<String>,
        /// S3 region.
        #[serde(default)]
        pub region: Option<String>,
        /// Storage class of shares in a bucket.
        #[serde(default)]
        pub storage_class: Option<String>,
        /// Bytes that it may hold.
        #[serde(default)]
        pub quota: Option<u64>,
        /// Shares of each pack that a bucket holds.
        #[serde(default)]
        pub shares: Option<u16>,
    }

    /// A peer that is to be one no more.
    pub struct PeerRemove {
        /// Its name.
        pub name: String,
        /// Whether it is done whatever it costs.
        #[serde(default)]
        pub how: RemoveHow,
    }

    /// A friend who has been silent for half a year.
    pub struct PeerEvict {
        /// Its name.
        pub name: String,
    }

    /// What of a peer to change.
    pub struct PeerSet {
        /// Its name.
        pub name: String,
        /// Bytes that it may hold for us (friend: that we hold for it).
        #[serde(default)]
        pub quota: Option<u64>,
        /// Shares of a pack that it may hold.
        #[serde(default)]
        pub shares: Option<u16>,
    }
}

named! {
    /// How far removing a peer goes.
    #[derive(Default)]
    pub enum RemoveHow {
        /// It is said what it costs, and refused if content would be lost.
        #[default]
        Carefully = "carefully",
        /// It is said what it costs, and done.
        Anyway = "anyway",
        /// It is said what it would cost.
        DryRun = "dry_run",
    }
}

held! {
    RemoveHow: Text = [RemoveHow::DryRun];
}
