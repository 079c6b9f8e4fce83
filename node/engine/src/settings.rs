//! The settings that travel with the backups, so that a recovered machine goes on as the lost one did.
//!
//! Leaves out what belongs to a machine (names, addresses, sizes of its disk) and anything secret: credentials of buckets are
//! nowhere in the config.

use api::failure::Failure;
use proto::root::SETTINGS_BYTES_MAX;
use toml_edit::{DocumentMut, Item};

use crate::buckets::is_same_place;
use crate::config::{Config, ConfigFile, PeerConfig};

/// Top-level keys of config.toml that travel.
const KEYS: &[&str] = &[
    "tolerate",
    "folders",
    "exclude",
    "one_file_system",
    "steward",
    "limit_upload",
    "limit_download",
    "zstd_level",
    "interval",
    "publish_interval",
    "alarm_after",
    "suspect_after",
    "lost_after",
    "repair_interval",
    "audit_interval",
    "scrub_interval",
    "verify_interval",
    "verify_files",
    "schedule",
    "priority",
    "peers",
];

/// Those that differ from what is built in, as TOML. `None` if they are more than a root takes.
pub(super) fn text(config: &Config) -> Option<String> {
    let (mut document, built_in) = (document(config)?, document(&Config::default())?);
    let keys: Vec<String> = document.iter().map(|(key, _)| key.to_owned()).collect();
    for key in keys {
        let is_built_in = built_in.get(&key).is_some_and(|item| same(item, &document[&key]));
        if !KEYS.contains(&key.as_str()) || is_built_in {
            document.remove(&key);
        }
    }
    if let Some(peers) = document.get_mut("peers").and_then(Item::as_table_like_mut) {
        let friends: Vec<String> = peers
            .iter()
            .filter(|(_, peer)| peer.get("url").is_none())
            .map(|(name, _)| name.to_owned())
            .collect();
        for name in friends {
            peers.remove(&name); // how much this machine keeps for a friend
        }
    }
    let text = document.to_string();
    (text.len() <= SETTINGS_BYTES_MAX).then_some(text)
}

/// Takes settings over where the config has what is built in, but for the keys in `chosen`; says which came, as they are
/// written in config.toml.
pub(super) fn adopt(file: &mut ConfigFile, text: &str, chosen: &[&str]) -> Result<Vec<String>, Failure> {
    let Ok(settings) = text.parse::<DocumentMut>() else {
        tracing::warn!("The settings that came with the backups cannot be read; they are left out");
        return Ok(Vec::new());
    };
    let mut came = Vec::new();
    for (key, item) in settings
        .iter()
        .filter(|(key, _)| KEYS.contains(key) && !chosen.contains(key))
    {
        if key == "peers" {
            for (name, peer) in item.as_table_like().into_iter().flat_map(|peers| peers.iter()) {
                came.extend(adopt_peer(file, name, peer)?);
            }
            continue;
        }
        let (Some(now), Some(built_in)) = (document(file.config()), document(&Config::default())) else {
            continue;
        };
        let is_built_in = match (now.get(key), built_in.get(key)) {
            (Some(now), Some(built_in)) => same(now, built_in),
            (now, _) => now.is_none(),
        };
        if is_built_in && file.adopt(&[key], item) {
            came.push(format!("{key} = {}", one_line(item)));
        }
    }
    Ok(came)
}

/// What the settings call a folder or bucket that recovery was done from, and all they say of it.
pub(super) fn at_place(text: &str, place: &PeerConfig) -> Option<(String, Item)> {
    let settings = text.parse::<DocumentMut>().ok()?;
    let peers = settings.get("peers")?.as_table_like()?;
    let (name, peer) = peers.iter().find(|(_, peer)| is_same_place(&place_of(peer), place))?;
    Some((name.to_owned(), peer.clone()))
}

fn place_of(peer: &Item) -> PeerConfig {
    let text = |key: &str| peer.get(key).and_then(Item::as_str).map(str::to_owned);
    PeerConfig {
        url: text("url"),
        endpoint: text("endpoint"),
        region: text("region"),
        ..PeerConfig::default()
    }
}

/// A folder or bucket that is not among the peers yet.
pub(super) fn adopt_peer(file: &mut ConfigFile, name: &str, peer: &Item) -> Result<Option<String>, Failure> {
    let place = place_of(peer);
    let peers = &file.config().peers;
    let is_known = peers.contains_key(name) || peers.values().any(|known| is_same_place(known, &place));
    let Some(url) = place.url.filter(|_| !is_known) else {
        return Ok(None);
    };
    Ok(file
        .adopt(&["peers", name], peer)
        .then(|| format!("peers.{name} = {url}")))
}

fn document(config: &Config) -> Option<DocumentMut> {
    let document = toml_edit::ser::to_document(config);
    document
        .inspect_err(|error| tracing::warn!(%error, "the settings cannot be written down"))
        .ok()
}

fn same(a: &Item, b: &Item) -> bool {
    a.to_string().trim() == b.to_string().trim()
}

fn one_line(item: &Item) -> String {
    let words: Vec<String> = item.to_string().split_whitespace().map(str::to_owned).collect();
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn file(text: &str) -> ConfigFile {
        ConfigFile::parse(Path::new("/config.toml"), text).unwrap()
    }

    const FULL: &str = r#"
name = "ann"
tolerate = 1
folders = ["/home/ann", "/srv"]
exclude = ["*.iso", "!keep.iso"]
steward = "bob"
listen = ["/ip4/0.0.0.0/tcp/4250"]
store_max = "1G"
interval = "10m"
[peers.usb]
url = "dir:/media/usb"
[peers.cloud]
url = "s3://bucket/prefix"
endpoint = "https://s3.example.org"
shares = 2
[peers.bob]
quota = "5G"
[[schedule]]
from = "01:00"
to = "07:00"
"#;

    #[test]
    fn what_was_set_comes_back_and_a_machines_own_stays_there() {
        let before = file(FULL);
        let text = text(before.config()).unwrap();
        for own in ["name", "listen", "store_max", "bob\"]", "quota"] {
            assert!(!text.contains(own), "{own} in {text}");
        }
        let mut after = file("# mine\nname = \"new\"\nfolders = []\ntolerate = 2\n");
        let came = adopt(&mut after, &text, &[]).unwrap();
        let (was, is) = (before.config(), after.config());
        assert_eq!(
            (&was.folders, &was.exclude, was.tolerate),
            (&is.folders, &is.exclude, is.tolerate)
        );
        assert_eq!(
            (&was.steward, &was.schedule, was.interval),
            (&is.steward, &is.schedule, is.interval)
        );
        assert_eq!(is.name, "new");
        assert_eq!(is.peers.keys().collect::<Vec<_>>(), ["cloud", "usb"]);
        assert_eq!(is.peers["cloud"], was.peers["cloud"]);
        assert!(after.text().starts_with("# mine"), "{}", after.text());
        assert!(came.iter().any(|line| line.contains("/home/ann")), "{came:?}");
        assert!(came.iter().any(|line| line == "peers.usb = dir:/media/usb"), "{came:?}");
    }

    #[test]
    fn what_is_set_already_stays() {
        let text = text(file(FULL).config()).unwrap();
        let mut after = file(
            "folders = [\"/other\"]\n[peers.disk]\nurl = \"dir:/media/usb\"\n\
             [peers.found]\nurl = \"s3://bucket/prefix/?endpoint=https://s3.example.org\"\n",
        );
        adopt(&mut after, &text, &["tolerate"]).unwrap();
        let config = after.config();
        assert_eq!((config.tolerate, config.folders.len()), (2, 1));
        assert_eq!(config.peers.keys().collect::<Vec<_>>(), ["disk", "found"]);
    }

    #[test]
    fn settings_that_no_longer_fit_are_left_out_one_by_one() {
        let mut after = file("");
        let came = adopt(&mut after, "zstd_level = 99\nfrobnicate = 1\ntolerate = 1\n", &[]).unwrap();
        assert_eq!(came, ["tolerate = 1"]);
        assert_eq!(adopt(&mut after, "no toml = [", &[]).unwrap(), [""; 0]);
    }
}
