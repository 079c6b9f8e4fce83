//! A peer.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::named::named;

/// A peer: what it gives and takes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Peer {
    /// Its name for people.
    pub name: String,
    /// What it is.
    pub kind: PeerKind,
    /// Libp2p peer id of a friend.
    pub peer_id: Option<String>,
    /// Answers now.
    pub online: bool,
    /// How it is reached.
    pub reach: Reach,
    /// Bytes that it stores for me.
    pub bytes_for_me: u64,
    /// Bytes that I store for it.
    pub bytes_for_them: u64,
    /// Bytes that it may store for me, if limited.
    pub quota: Option<u64>,
    /// Measured share of time that it answers, 0 to 1.
    pub uptime: Option<f64>,
    /// When it last answered.
    pub last_seen: Option<Timestamp>,
    /// Audits passed, and done.
    #[serde(default)]
    pub audits: Option<(u64, u64)>,
    /// What its silence is taken for.
    #[serde(default)]
    pub standing: Standing,
    /// The config names it as steward: it brings our shares to the others.
    #[serde(default)]
    pub is_steward: bool,
}

named! {
    /// What a peer is.
    pub enum PeerKind {
        /// A friend's node.
        Friend = "friend",
        /// A bucket.
        S3 = "s3",
        /// A folder: USB disk, NAS mount.
        Folder = "folder",
    }

    /// How a peer is reached.
    pub enum Reach {
        /// A friend, straight.
        Direct = "direct",
        /// A friend, straight, after both ends opened their routers for each other.
        HolePunched = "hole_punched",
        /// A friend, through another one, which forwards sealed bytes.
        Relayed = "relayed",
        /// A folder.
        Local = "local",
        /// A bucket.
        Remote = "remote",
        /// It does not answer.
        None = "none",
    }

    /// What the silence of a peer is taken for.
    #[derive(Default)]
    pub enum Standing {
        /// It answers, or has not been silent for long.
        #[default]
        Good = "good",
        /// It is likely to be gone.
        Suspected = "suspected",
        /// It is counted on no longer.
        Lost = "lost",
    }
}
