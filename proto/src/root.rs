//! The root: the list of a device's live metadata, itself a section in the newest metadata pack (docs/format/root.md).
//!
//! It stays small for any number of snapshots: when its lists get long, the older part moves into an older root that
//! this one points to.

use crate::cap_index::PackRecord;
use crate::head::{HEAD_BYTES, RootRef};
use crate::id::{DeviceId, HeadHash};
use crate::log_record::SnapshotRecord;
use crate::record::Record;
use crate::section::SectionError;
use crate::section_kind::SectionKind;
use crate::size::MIB;
use crate::{record, section};

/// Sections a root lists itself before the older part moves out (docs/format/root.md §1).
pub const ROOT_SECTIONS_MAX: usize = 1024;

/// Bytes of a root's record beyond which the older part moves out, too, and of snapshots that are added to a root at a
/// time. Chosen: with the packs of one posting, a root then stays far below a pack of one large share (4 MiB).
pub const ROOT_BYTES_TURN: usize = MIB;

/// Longest tag, in bytes. Chosen: a short sentence.
pub const TAG_BYTES_MAX: usize = 128;
/// Longest settings, in bytes of TOML. Chosen: more than anyone writes, and a root stays small.
pub const SETTINGS_BYTES_MAX: usize = 16 * 1024;
/// Most unread heads that a root names.
pub const UNREAD_HEADS_MAX: usize = 4;
/// Most devices of an account that one root names (docs/format/root.md §2).
pub const TAKEN_DEVICES_MAX: usize = 256;
/// Most heads of one device that are named as taken over (docs/format/root.md §2).
pub const TAKEN_HEADS_MAX: usize = 64;
/// Longest name of a device, in bytes: that of its certificate (docs/format/keys.md §4).
pub const DEVICE_NAME_BYTES_MAX: usize = 64;
/// Most different tags. Chosen: far more than anyone has names for, and a root stays small.
pub const TAGS_MAX: usize = 1024;

/// Everything a device has posted, newest last.
#[derive(Clone, PartialEq, Eq, Debug, Default, minicbor::Encode, minicbor::Decode)]
pub struct Root {
    /// Metadata packs that `sections` name by position. The position behind the last one means the pack that the root
    /// itself lies in: a root cannot carry the manifest of its own pack, since that names the hash of the root.
    #[n(0)]
    pub packs: Vec<PackRecord>,
    /// Log and index sections, in the order in which they are replayed.
    #[n(1)]
    pub sections: Vec<SectionRef>,
    /// Snapshots, ascending by sequence number.
    #[n(2)]
    pub snapshots: Vec<SnapshotRecord>,
    /// The root whose lists come before this one's.
    #[n(3)]
    pub older: Option<RootRef>,
    /// Snapshots, of this root and all older ones, that were forgotten: ascending, apart, and `None` rather than empty.
    #[n(4)]
    pub forgotten: Option<Vec<SnapshotRange>>,
    /// Tags of snapshots of this root and all older ones: ascending by their bytes, and `None` rather than empty.
    #[n(5)]
    pub tags: Option<Vec<TaggedSnapshots>>,
    /// Snapshots that no policy forgets; as `forgotten`.
    #[n(6)]
    pub pinned: Option<Vec<SnapshotRange>>,
    /// Other devices whose backups are in this root or an older one: ascending by id, and `None` rather than empty.
    #[n(7)]
    pub devices: Option<Vec<TakenDevice>>,
    /// What the owner set, as TOML, so that it comes back with the backups; at most `SETTINGS_BYTES_MAX`.
    #[n(8)]
    pub settings: Option<String>,
    /// Heads of the account, encoded, that could not be read when this device went on without them: whoever recovers from here looks for
    /// them, too. At most `UNREAD_HEADS_MAX`, and `None` rather than empty.
    #[n(9)]
    pub unread: Option<Vec<minicbor::bytes::ByteVec>>,
}

/// A device whose backups another one has taken over.
#[derive(Clone, PartialEq, Eq, Debug, minicbor::Encode, minicbor::Decode)]
pub struct TakenDevice {
    /// Which.
    #[n(0)]
    pub device: DeviceId,
    /// Its name: 1 to `DEVICE_NAME_BYTES_MAX` bytes.
    #[n(1)]
    pub name: String,
    /// The snapshots that it made; as `Root::forgotten`, and may be empty.
    #[n(2)]
    pub snapshots: Vec<SnapshotRange>,
    /// BLAKE3 of its encoded heads that were taken over, newest last.
    #[n(3)]
    pub heads: Vec<HeadHash>,
}

/// Snapshots that have a tag.
#[derive(Clone, PartialEq, Eq, Debug, minicbor::Encode, minicbor::Decode)]
pub struct TaggedSnapshots {
    /// The tag: 1 to `TAG_BYTES_MAX` bytes without control characters.
    #[n(0)]
    pub tag: String,
    /// Which have it; as `Root::forgotten`.
    #[n(1)]
    pub snapshots: Vec<SnapshotRange>,
}

/// Snapshots by sequence number.
#[derive(Clone, Copy, PartialEq, Eq, Debug, minicbor::Encode, minicbor::Decode)]
pub struct SnapshotRange {
    /// The first.
    #[n(0)]
    pub first: u64,
    /// The last, not before the first.
    #[n(1)]
    pub last: u64,
}

/// Where a section lies.
#[derive(Clone, Copy, PartialEq, Eq, Debug, minicbor::Encode, minicbor::Decode)]
pub struct SectionRef {
    /// 1 log, 2 index, 3 root: `SectionKind as u8`.
    #[n(0)]
    pub kind: u8,
    /// Position in `Root::packs`; `Root::packs.len()` is the root's own pack.
    #[n(1)]
    pub pack: u32,
    /// Offset in the pack's plaintext.
    #[n(2)]
    pub offset: u32,
    /// Bytes of the encoded section.
    #[n(3)]
    pub len: u32,
}

impl Root {
    /// The pack a section is in. `own` is the pack that this root was read from.
    pub fn pack_of<'a>(&'a self, section: &SectionRef, own: &'a PackRecord) -> Option<&'a PackRecord> {
        let position = section.pack as usize;
        self.packs
            .get(position)
            .or((position == self.packs.len()).then_some(own))
    }
}

impl SectionRef {
    /// Whether the section is of `kind`.
    pub fn is(&self, kind: SectionKind) -> bool {
        self.kind == kind as u8
    }
}

impl Root {
    /// The section of kind root that holds it; `SectionError::Limit` if it breaks a limit that `check` tells of, or is
    /// longer than a root may be.
    pub fn encode(&self) -> Result<Vec<u8>, SectionError> {
        self.check().map_err(|reason| SectionError::Limit { reason })?;
        section::encode(SectionKind::Root, &record::to_cbor(self))
    }

    /// Decodes a section of kind root that holds exactly one valid root.
    pub fn decode(bytes: &[u8]) -> Result<Self, SectionError> {
        let records = section::decode_kind::<Self>(bytes)?;
        let mut roots = section::records::<Self>(&records);
        let root = roots.next();
        match (root, roots.next()) {
            (Some(Ok(_)), Some(_)) => Err(SectionError::Record {
                record: 1,
                reason: "a root section holds one root".to_owned(),
            }),
            (Some(root), _) => root,
            (None, _) => Err(SectionError::Record {
                record: 0,
                reason: "there is no root".to_owned(),
            }),
        }
    }
}

impl Record for Root {
    const KIND: SectionKind = SectionKind::Root;

    fn check(&self) -> Result<(), String> {
        self.packs.iter().try_for_each(PackRecord::check)?;
        self.sections
            .iter()
            .try_for_each(|section| section.check(self.packs.len()))?;
        if !self.snapshots.is_sorted_by(|a, b| a.seq < b.seq) {
            return Err("snapshots are not in order".to_owned());
        }
        self.snapshots.iter().try_for_each(SnapshotRecord::check)?;
        let mut ranges = self.forgotten.iter().chain(&self.pinned);
        ranges.try_for_each(|ranges| check_ranges(ranges))?;
        self.tags.iter().try_for_each(|tags| check_tags(tags))?;
        self.devices.iter().try_for_each(|devices| check_devices(devices))?;
        if self
            .settings
            .as_ref()
            .is_some_and(|text| text.len() > SETTINGS_BYTES_MAX)
        {
            return Err("its settings are too long".to_owned());
        }
        let fit = |heads: &Vec<minicbor::bytes::ByteVec>| {
            (1..=UNREAD_HEADS_MAX).contains(&heads.len()) && heads.iter().all(|head| head.len() <= HEAD_BYTES)
        };
        if !self.unread.as_ref().is_none_or(fit) {
            return Err("its unread heads are too many or too long".to_owned());
        }
        self.older.iter().try_for_each(RootRef::check)
    }
}

impl SectionRef {
    fn check(&self, packs: usize) -> Result<(), String> {
        // The position behind the last is the root's own pack.
        if self.pack as usize > packs {
            return Err(format!("a section in pack {} of {packs} and its own", self.pack));
        }
        match SectionKind::from_number(self.kind) {
            Some(kind @ (SectionKind::Log | SectionKind::Index)) => kind.check_span(self.offset, self.len),
            _ => Err(format!("a section of kind {}", self.kind)),
        }
    }
}

/// Whether it can be a tag; else why not.
pub fn check_tag(tag: &str) -> Result<(), String> {
    let len_fits = (1..=TAG_BYTES_MAX).contains(&tag.len());
    if len_fits && !tag.contains(char::is_control) {
        return Ok(());
    }
    Err(format!(
        "`{}` is no tag: 1 to {TAG_BYTES_MAX} bytes without control characters are",
        tag.escape_debug()
    ))
}

fn check_devices(devices: &[TakenDevice]) -> Result<(), String> {
    let count_fits = (1..=TAKEN_DEVICES_MAX).contains(&devices.len());
    if !count_fits || !devices.is_sorted_by(|a, b| a.device < b.device) {
        return Err("devices are not in order, or too many".to_owned());
    }
    devices.iter().try_for_each(|taken| {
        let name_fits = (1..=DEVICE_NAME_BYTES_MAX).contains(&taken.name.len());
        if !name_fits || taken.heads.len() > TAKEN_HEADS_MAX {
            return Err("a device has no name, or too many heads".to_owned());
        }
        match taken.snapshots.is_empty() {
            true => Ok(()),
            false => check_ranges(&taken.snapshots),
        }
    })
}

fn check_tags(tags: &[TaggedSnapshots]) -> Result<(), String> {
    let count_fits = (1..=TAGS_MAX).contains(&tags.len());
    if !count_fits || !tags.is_sorted_by(|a, b| a.tag < b.tag) {
        return Err("tags are not in order, or too many".to_owned());
    }
    tags.iter().try_for_each(|tagged| {
        check_tag(&tagged.tag)?;
        check_ranges(&tagged.snapshots)
    })
}

fn check_ranges(ranges: &[SnapshotRange]) -> Result<(), String> {
    let forwards = ranges.iter().all(|range| range.first <= range.last);
    if ranges.is_empty() || !forwards || !ranges.is_sorted_by(|a, b| a.last < b.first) {
        return Err("ranges of snapshots are not in order".to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root(ranges: &[(u64, u64)]) -> Root {
        let ranges = ranges.iter().map(|&(first, last)| SnapshotRange { first, last });
        Root {
            forgotten: Some(ranges.collect()),
            ..Root::default()
        }
    }

    #[test]
    fn a_root_that_forgets_is_frozen() {
        let golden = include_bytes!("../golden/root/v1-forgotten.bin");
        let root = root(&[(1, 3), (5, 5), (7, 1_000)]);
        assert_eq!(record::to_cbor(&root), golden);
        assert_eq!(record::first_from_cbor(golden), Ok((root, golden.len())));
    }

    fn marked() -> Root {
        let range = |first, last| SnapshotRange { first, last };
        let tagged = |tag: &str, snapshots| TaggedSnapshots {
            tag: tag.to_owned(),
            snapshots,
        };
        Root {
            tags: Some(vec![
                tagged("holiday", vec![range(2, 2), range(4, 9)]),
                tagged("é trip", vec![range(1, 1)]),
            ]),
            pinned: Some(vec![range(5, 5), range(7, 8)]),
            ..Root::default()
        }
    }

    #[test]
    fn a_root_with_marks_is_frozen() {
        let golden = include_bytes!("../golden/root/v1-marks.bin");
        assert_eq!(record::to_cbor(&marked()), golden);
        assert_eq!(record::first_from_cbor(golden), Ok((marked(), golden.len())));
        assert_eq!(marked().check(), Ok(()));
    }

    fn taken() -> Root {
        let taken = TakenDevice {
            device: DeviceId([7; 32]),
            name: "laptop".to_owned(),
            snapshots: vec![SnapshotRange { first: 1, last: 3 }],
            heads: vec![HeadHash([8; 32])],
        };
        Root {
            devices: Some(vec![taken]),
            settings: Some("tolerate = 1\n".to_owned()),
            ..Root::default()
        }
    }

    #[test]
    fn a_root_with_devices_and_settings_is_frozen() {
        let golden = include_bytes!("../golden/root/v1-devices.bin");
        assert_eq!(record::to_cbor(&taken()), golden);
        assert_eq!(record::first_from_cbor(golden), Ok((taken(), golden.len())));
        assert_eq!(taken().check(), Ok(()));
    }

    #[test]
    fn devices_and_settings_have_limits() {
        let mut nameless = taken();
        nameless.devices.as_mut().unwrap()[0].name.clear();
        let mut twice = taken();
        twice.devices.as_mut().unwrap().extend(taken().devices.unwrap());
        let mut endless = taken();
        endless.settings = Some("x".repeat(SETTINGS_BYTES_MAX + 1));
        let mut none = taken();
        none.devices = Some(Vec::new());
        for wrong in [nameless, twice, endless, none] {
            assert!(wrong.check().is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn tags_are_short_in_order_and_printable() {
        for wrong in ["", "a\nb", &"x".repeat(TAG_BYTES_MAX + 1)] {
            assert!(check_tag(wrong).is_err(), "{wrong:?}");
        }
        let mut root = marked();
        root.tags.as_mut().unwrap().reverse();
        assert!(root.check().is_err());
        root.tags = Some(Vec::new());
        assert!(root.check().is_err());
    }

    #[test]
    fn forgotten_snapshots_are_in_order() {
        for wrong in [&[][..], &[(2, 1)], &[(1, 2), (2, 3)], &[(5, 6), (1, 2)]] {
            assert!(root(wrong).check().is_err(), "{wrong:?}");
        }
        assert_eq!(root(&[(1, 1), (2, 4)]).check(), Ok(()));
    }
}
