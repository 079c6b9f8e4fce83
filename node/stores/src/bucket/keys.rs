//! Keys of objects (docs/format/bucket.md): nothing in them tells whose they are to somebody without the account's keys.

use data_encoding::HEXLOWER;
use proto::id::{DeviceId, GridId, ShareId, VolumeId};
use proto::keys::AccountKeys;
use proto::share_store::HeadPlace;
use s3::Location;

use super::parts::Part;

/// Bytes of a hash that stand in a key.
const FOLDER_BYTES: usize = 16;

/// The keys of one account's objects.
pub(super) struct Keys {
    prefix: String,
    account: String,
}

impl Keys {
    pub(super) fn new(location: &Location, account: &AccountKeys) -> Self {
        Self {
            prefix: location.prefix.clone(),
            account: folder("gridbackup 2026 bucket account", &account.put.chunk_id),
        }
    }

    /// Which tells that there is a store, and how many slots it has.
    pub(super) fn marker(&self) -> Vec<u8> {
        self.own("store")
    }

    /// What the account knows of its grid.
    pub(super) fn roster(&self) -> Vec<u8> {
        self.own("roster")
    }

    /// When locks were renewed.
    pub(super) fn renewed(&self) -> Vec<u8> {
        self.own("locked")
    }

    /// Which voter the bucket is.
    pub(super) fn voter(&self) -> Vec<u8> {
        self.own("voter")
    }

    /// What all keys of promises begin with.
    pub(super) fn promises(&self) -> Vec<u8> {
        self.own("promises/")
    }

    pub(super) fn promise(&self, volume: VolumeId) -> Vec<u8> {
        self.own(&format!("promises/{volume}"))
    }

    /// What all of them begin with, but those of the grid.
    pub(super) fn all(&self) -> Vec<u8> {
        self.own("")
    }

    /// What all keys of one part of a slot's shares begin with.
    pub(super) fn shares(&self, slot: u8, part: Part) -> Vec<u8> {
        let name = match part {
            Part::Full => "s",
            Part::Short => "k",
        };
        self.own(&format!("{slot}/{name}/"))
    }

    pub(super) fn share(&self, slot: u8, part: Part, id: ShareId) -> Vec<u8> {
        let mut key = self.shares(slot, part);
        key.extend_from_slice(id.to_string().as_bytes());
        key
    }

    /// What all keys of a slot's notes about its trash begin with.
    pub(super) fn notes(&self, slot: u8) -> Vec<u8> {
        self.own(&format!("{slot}/t/"))
    }

    /// Padded, so that they are listed in their order.
    pub(super) fn note(&self, slot: u8, number: u64) -> Vec<u8> {
        self.own(&format!("{slot}/t/{number:020}"))
    }

    pub(super) fn heads(&self, slot: u8) -> Vec<u8> {
        self.own(&format!("{slot}/h/"))
    }

    pub(super) fn head(&self, slot: u8, device: DeviceId) -> Vec<u8> {
        self.own(&format!("{slot}/h/{device}"))
    }

    /// What all keys of replaced heads begin with.
    pub(super) fn old_heads(&self, slot: u8) -> Vec<u8> {
        self.own(&format!("{slot}/o/"))
    }

    /// Padded, so that they are listed in the order of their places.
    pub(super) fn old_head(&self, slot: u8, place: HeadPlace) -> Vec<u8> {
        let HeadPlace { day, device } = place;
        self.own(&format!("{slot}/o/{day:08}/{device}"))
    }

    /// What all keys of a grid begin with: its members meet there.
    pub(super) fn grid(&self, grid: GridId) -> Vec<u8> {
        let folder = folder("gridbackup 2026 bucket grid", &grid.0);
        format!("{}{folder}/", self.prefix).into_bytes()
    }

    fn own(&self, name: &str) -> Vec<u8> {
        format!("{}{}/{name}", self.prefix, self.account).into_bytes()
    }
}

fn folder(context: &str, secret: &[u8]) -> String {
    HEXLOWER.encode(&blake3::derive_key(context, secret)[..FOLDER_BYTES])
}

/// The id that a key ends with.
pub(super) fn id_of(key: &[u8]) -> Option<ShareId> {
    last(key)?.parse().ok()
}

/// The place of a replaced head, by its key.
pub(super) fn place_of(key: &[u8]) -> Option<HeadPlace> {
    let mut parts = key.rsplit(|byte| *byte == b'/');
    let mut next = || std::str::from_utf8(parts.next()?).ok();
    let (device, day) = (next()?.parse().ok()?, next()?.parse().ok()?);
    Some(HeadPlace { day, device })
}

/// What follows the last slash.
pub(super) fn last(key: &[u8]) -> Option<&str> {
    std::str::from_utf8(key.rsplit(|byte| *byte == b'/').next()?).ok()
}
