//! Where a peer is, and its name in the database, which says so: the only file that takes such a name apart.
//!
//! The names stand in catalogs: they are for ever. What follows from the kind of a place is not said here, but in the
//! engine's `kind`.

use std::fmt;
use std::path::PathBuf;

use proto::id::DeviceId;

use crate::peers::PeerKey;

/// What the name of a friend's device begins with.
const FRIEND: &str = "friend";
/// What the name of a folder begins with.
const FOLDER: &str = "dir";
/// What the name of a bucket's slot begins with.
const BUCKET: &str = "s3";

/// Where a peer is. Written, it is the peer's name in the database. Peers are told apart by their names: a path that is written
/// in two ways is two names, and one place.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Place {
    /// With a friend, on this device: `friend:<device id>`.
    Friend(DeviceId),
    /// In a folder of this machine, a mounted disk or share: `dir:<path>`.
    Folder(PathBuf),
    /// In one of the slots of a bucket, each of which takes a share of each pack: `s3:<url>#<slot>`.
    Bucket {
        /// What the endpoint calls the objects, whoever asks.
        url: String,
        /// From 0.
        slot: u8,
    },
}

impl Place {
    /// The name in the database of a peer that is there.
    pub fn key(&self) -> PeerKey {
        PeerKey(self.to_string())
    }

    /// The device, if it is a friend's.
    pub fn device(&self) -> Option<DeviceId> {
        match self {
            Self::Friend(device) => Some(*device),
            Self::Folder(_) | Self::Bucket { .. } => None,
        }
    }

    /// Whether people count it: of a bucket, only the first slot.
    pub fn is_counted(&self) -> bool {
        match self {
            Self::Friend(_) | Self::Folder(_) => true,
            Self::Bucket { slot, .. } => *slot == 0,
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Friend(device) => write!(f, "{FRIEND}:{device}"),
            Self::Folder(path) => write!(f, "{FOLDER}:{}", path.display()),
            Self::Bucket { url, slot } => write!(f, "{BUCKET}:{url}#{slot}"),
        }
    }
}

impl PeerKey {
    /// Where the peer of this name is; none if no place is written like that.
    pub fn place(&self) -> Option<Place> {
        // A place has one name: what only reads like it belongs to no peer.
        read(&self.0).filter(|place| place.key() == *self)
    }
}

fn read(name: &str) -> Option<Place> {
    let (kind, rest) = name.split_once(':')?;
    match kind {
        FRIEND => rest.parse().ok().map(Place::Friend),
        FOLDER => Some(Place::Folder(rest.into())),
        BUCKET => {
            let (url, slot) = rest.rsplit_once('#')?;
            let (url, slot) = (url.to_owned(), slot.parse().ok()?);
            Some(Place::Bucket { url, slot })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Catalogs have these names in them: no line here ever changes.
    fn frozen() -> [(Place, &'static str); 5] {
        let bucket = |url: &str, slot| Place::Bucket { url: url.into(), slot };
        [
            (
                Place::Friend(DeviceId([0xab; 32])),
                "friend:abababababababababababababababababababababababababababababababab",
            ),
            (Place::Folder("/media/usb".into()), "dir:/media/usb"),
            (Place::Folder("/a b/ü#1:x".into()), "dir:/a b/ü#1:x"),
            (
                bucket("https://s3.example.org/bucket/", 0),
                "s3:https://s3.example.org/bucket/#0",
            ),
            (
                bucket("http://127.0.0.1:9000/bucket/a#b/", 12),
                "s3:http://127.0.0.1:9000/bucket/a#b/#12",
            ),
        ]
    }

    #[test]
    fn the_names_of_places_are_for_ever() {
        for (place, name) in frozen() {
            assert_eq!(place.key().0, name);
            assert_eq!(PeerKey(name.into()).place(), Some(place), "{name}");
        }
    }

    #[test]
    fn what_names_no_place_is_refused_and_stays_a_key() {
        for name in [
            "",
            "a",
            "owner",
            "memory:0",
            "friend:",
            "friend:1",
            "friend:ABABABABABABABABABABABABABABABABABABABABABABABABABABABABABABABAB",
            "s3:https://s3.example.org/bucket/",
            "s3:https://s3.example.org/bucket/#",
            "s3:https://s3.example.org/bucket/#01",
            "s3:https://s3.example.org/bucket/#256",
            "DIR:/media/usb",
        ] {
            assert_eq!(PeerKey(name.into()).place(), None, "{name}");
        }
    }

    #[test]
    fn of_a_bucket_the_first_slot_is_counted() {
        let counted = frozen().map(|(place, _)| place.is_counted());
        assert_eq!(counted, [true, true, true, true, false]);
        let devices = frozen().map(|(place, _)| place.device().is_some());
        assert_eq!(devices, [true, false, false, false, false]);
    }
}
