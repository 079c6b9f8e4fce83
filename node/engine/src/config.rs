//! config.toml: what the user sets. Read into types here; edited in place, comments and all, in `config/edit.rs`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use api::human::{ByteSize, Period};
use backup::exclude::Rules;
use proto::id::AccountId;
use serde::{Deserialize, Serialize};
use stores::bucket::SHARES_MAX;
use stores::room::{KeepFree, Offered};
use upload_queue::bandwidth::schedule::{Hours, TimeOfDay};
use upload_queue::priority::Weights;

mod edit;
pub mod last_good;
pub mod notices;
mod requests;

pub use edit::ConfigFile;
pub use requests::{STEWARD, answer, edit, needs_roster};
pub use stores::PeerUrl;

use crate::home::DEVICE_NAME_BYTES_MAX;

/// Everything in config.toml.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// This node's name for friends.
    pub name: String,
    /// Friends that may vanish for good without loss.
    pub tolerate: u16,
    /// What is backed up: absolute paths.
    pub folders: Vec<PathBuf>,
    /// What is left out: gitignore-style rules, later ones win.
    pub exclude: Vec<String>,
    /// Stop at mount points below a folder.
    pub one_file_system: bool,
    /// Multiaddrs to listen on.
    pub listen: Vec<String>,
    /// Multiaddrs that friends are told instead of those found: a forwarded port, a dynamic name.
    pub announce: Vec<String>,
    /// Find friends on the local network.
    pub mdns: bool,
    /// Ask the router to forward the ports of `listen`.
    pub upnp: bool,
    /// Forward connections between friends that cannot reach each other, if they can reach this node.
    pub relay: bool,
    /// Folders and buckets that are peers, by name; limits of friends, by theirs.
    pub peers: BTreeMap<String, PeerConfig>,
    /// A member whose always-on node takes each pack once and brings the shares to the others; none: this node does.
    pub steward: Option<String>,
    /// Bytes a second to send at most.
    pub limit_upload: Option<ByteSize>,
    /// Bytes a second to receive at most.
    pub limit_download: Option<ByteSize>,
    /// Hours with other limits; the first that holds counts.
    pub schedule: Vec<ScheduleEntry>,
    /// Bytes of sealed shares that may wait on this disk.
    pub spool_max: ByteSize,
    /// Bytes offered to all friends together.
    pub store_max: Offered,
    /// What stays free of the disks that shares are put on: the spool's, the store's, folder peers'.
    pub min_free: KeepFree,
    /// zstd level of content, 1 to 19.
    pub zstd_level: i32,
    /// How often the daemon looks for changes.
    pub interval: Period,
    /// Longest time between two heads while content goes up.
    pub publish_interval: Period,
    /// After what time without a sign of life, or without a new backup, of a member an alarm is raised.
    pub alarm_after: Period,
    /// Silence after which a peer is no longer counted on when little else is left.
    pub suspect_after: Period,
    /// Silence after which what a peer held is built anew elsewhere.
    pub lost_after: Period,
    /// How often the daemon looks whether something is to be built anew.
    pub repair_interval: Period,
    /// How often each peer is asked to prove that it has what it took.
    pub audit_interval: Period,
    /// How often everything kept for friends is read again.
    pub scrub_interval: Period,
    /// How often the daemon reads random files from the grid and compares them with the disk; empty: never.
    #[serde(deserialize_with = "period_unless_empty")]
    pub verify_interval: Option<Period>,
    /// How many files such a drill reads.
    pub verify_files: u32,
    /// What goes first; none: built in.
    pub priority: Option<Weights>,
}

/// A peer in config.toml.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PeerConfig {
    /// `dir:/PATH` or `s3://BUCKET[/PREFIX]`; none: a friend, known from the roster.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Friend: the account that is meant, in 64 hexadecimal digits; none: every member of that name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub account: Option<String>,
    /// S3 endpoint if not Amazon's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// S3 region.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// Storage class of shares in a bucket, such as `STANDARD_IA`; none: the bucket's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub storage_class: Option<String>,
    /// Dollars for a gigabyte (10⁹ bytes) and month in a bucket; none: Amazon's list price, if it is Amazon's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub price: Option<f64>,
    /// Folder or bucket: bytes that it may hold for us. Friend: bytes that we hold for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quota: Option<ByteSize>,
    /// Shares of a pack that it may hold.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shares: Option<u16>,
}

/// Hours of every day in which other limits hold than the config's; one that is left out here means full speed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ScheduleEntry {
    /// `HH:MM`, local time.
    pub from: String,
    /// `HH:MM`; before `from`: over midnight.
    pub to: String,
    /// Bytes a second to send at most.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit_upload: Option<ByteSize>,
    /// Bytes a second to receive at most.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit_download: Option<ByteSize>,
}

impl ScheduleEntry {
    /// Its hours; `None` if they are not such.
    pub fn hours(&self) -> Option<Hours> {
        Some(Hours {
            from: TimeOfDay::parse(&self.from)?,
            to: TimeOfDay::parse(&self.to)?,
        })
    }
}

/// Most friends that a policy may let vanish: with more, redundancy costs more than ten times the space on small grids.
pub const TOLERATE_MAX: u16 = 20;

impl Default for Config {
    fn default() -> Self {
        Self {
            name: String::new(),
            tolerate: 2,
            folders: Vec::new(),
            exclude: Vec::new(),
            one_file_system: false,
            listen: [
                "/ip4/0.0.0.0/tcp/0",
                "/ip4/0.0.0.0/udp/0/quic-v1",
                "/ip6/::/tcp/0",
                "/ip6/::/udp/0/quic-v1",
            ]
            .map(str::to_owned)
            .into(),
            announce: Vec::new(),
            mdns: true,
            upnp: true,
            relay: true,
            peers: BTreeMap::new(),
            steward: None,
            limit_upload: None,
            limit_download: None,
            schedule: Vec::new(),
            // Chosen: an evening's photos may wait for friends who are away, and no laptop disk is filled by it.
            spool_max: ByteSize(10 << 30),
            store_max: Offered::default(),
            min_free: KeepFree::default(),
            // Chosen: the fastest level that still finds most of what there is to find.
            zstd_level: 3,
            interval: Period(Duration::from_secs(3_600)),
            publish_interval: Period(Duration::from_secs(300)),
            // Chosen: longer than a weekend away with the lid closed.
            alarm_after: Period(Duration::from_secs(3 * 86_400)),
            // The reasons for these are at `upload_queue::care`'s defaults; a disk is read whole each month as in Garage.
            suspect_after: Period(Duration::from_secs(24 * 3600)),
            lost_after: Period(Duration::from_secs(14 * 24 * 3600)),
            repair_interval: Period(Duration::from_secs(3600)),
            audit_interval: Period(Duration::from_secs(24 * 3600)),
            scrub_interval: Period(Duration::from_secs(30 * 24 * 3600)),
            // Chosen: a broken backup is known within a week, for the price of a few files.
            verify_interval: Some(Period(Duration::from_secs(7 * 86_400))),
            verify_files: 20,
            priority: None,
        }
    }
}

impl Config {
    /// What is wrong with the values, beyond their types.
    pub fn validate(&self) -> Result<(), String> {
        if self.tolerate > TOLERATE_MAX {
            return Err(format!(
                "`tolerate` is {}, at most {TOLERATE_MAX} is possible",
                self.tolerate
            ));
        }
        if self.name.len() > DEVICE_NAME_BYTES_MAX || self.name.chars().any(char::is_control) {
            return Err(format!(
                "`name` must have at most {DEVICE_NAME_BYTES_MAX} bytes and no control characters"
            ));
        }
        if self.lost_after.0 < self.suspect_after.0 {
            return Err("`lost_after` is shorter than `suspect_after`".to_owned());
        }
        if !(1..=19).contains(&self.zstd_level) {
            return Err(format!("`zstd_level` is {}, it must be from 1 to 19", self.zstd_level));
        }
        if let Some(folder) = self.folders.iter().find(|folder| !folder.is_absolute()) {
            return Err(format!(
                "`folders` has `{}`, which is no absolute path",
                folder.display()
            ));
        }
        let is_no_address = |address: &&String| address.parse::<friendnet::Multiaddr>().is_err();
        for (key, addresses, such_as) in [
            ("listen", &self.listen, "/ip4/0.0.0.0/tcp/4250"),
            ("announce", &self.announce, "/dns4/home.example.org/tcp/4250"),
        ] {
            if let Some(address) = addresses.iter().find(is_no_address) {
                return Err(format!(
                    "`{key}` has `{address}`, which is no multiaddr such as {such_as}"
                ));
            }
        }
        if let Some(entry) = self.schedule.iter().find(|entry| entry.hours().is_none()) {
            return Err(format!(
                "`schedule` has `{}` to `{}`, which are no times such as 07:00",
                entry.from, entry.to
            ));
        }
        Rules::new(&self.exclude).map_err(|error| format!("`exclude`: {error}"))?;
        if let Some(weights) = &self.priority {
            weights.check().map_err(|error| format!("`priority`: {error}"))?;
        }
        for (name, peer) in &self.peers {
            if let Some(url) = &peer.url {
                PeerUrl::check(url).map_err(|reason| format!("`peers.{name}.url`: {reason}"))?;
            }
            if peer
                .account
                .as_ref()
                .is_some_and(|account| account.parse::<AccountId>().is_err())
            {
                return Err(format!(
                    "`peers.{name}.account` must be the 64 hexadecimal digits of an account"
                ));
            }
            if let Some(class) = &peer.storage_class {
                check_storage_class(class).map_err(|reason| format!("`peers.{name}.storage_class`: {reason}"))?;
            }
            if peer
                .shares
                .is_some_and(|shares| !(1..=u16::from(SHARES_MAX)).contains(&shares))
            {
                return Err(format!("`peers.{name}.shares` must be from 1 to {SHARES_MAX}"));
            }
        }
        Ok(())
    }

    /// Names and paths of the folders that are peers.
    pub fn folder_peers(&self) -> impl Iterator<Item = (&str, &Path)> {
        let peers = self.peers.iter();
        peers.filter_map(|(name, peer)| Some((name.as_str(), peer.named()?.folder()?)))
    }
}

impl PeerConfig {
    /// The folder or bucket that is meant; none: a friend.
    pub fn named(&self) -> Option<PeerUrl<'_>> {
        PeerUrl::of(self.url.as_deref()?)
    }
}

/// A length of time, or an empty text for none.
fn period_unless_empty<'de, D: serde::Deserializer<'de>>(source: D) -> Result<Option<Period>, D::Error> {
    let value = serde_json::Value::deserialize(source)?;
    if value.is_null() || value == "" {
        return Ok(None);
    }
    let period: Period = serde_json::from_value(value).map_err(serde::de::Error::custom)?;
    Ok(Some(period).filter(|period| !period.0.is_zero()))
}

/// What is wrong with a storage class: from some, objects must be asked for hours ahead, so that no audit and no restore can read them.
pub fn check_storage_class(class: &str) -> Result<(), String> {
    match class {
        "GLACIER" | "DEEP_ARCHIVE" => Err(format!(
            "what lies in {class} cannot be read at once; use STANDARD, STANDARD_IA, GLACIER_IR or INTELLIGENT_TIERING"
        )),
        _ => Ok(()),
    }
}
