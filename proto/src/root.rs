//! The root: the list of a device's live metadata, itself a section in the newest metadata pack (docs/format/root.md).
//!
//! It stays small for any number of snapshots: when its lists get long, the older part moves into an older root that
//! this one points to.

use crate::cap_index::PackRecord;
use crate::log_record::SnapshotRecord;
use crate::section::SectionKind;

/// Sections a root lists itself before the older part moves out.
pub const ROOT_SECTIONS_MAX: usize = 1024;

/// Everything a device has published, newest last.
#[derive(Clone, PartialEq, Eq, Debug, Default, minicbor::Encode, minicbor::Decode)]
pub struct Root {
    /// Metadata packs that `sections` name by position.
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
}

/// Where a section lies.
#[derive(Clone, Copy, PartialEq, Eq, Debug, minicbor::Encode, minicbor::Decode)]
pub struct SectionRef {
    /// 1 log, 2 index, 3 root: `SectionKind as u8`.
    #[n(0)]
    pub kind: u8,
    /// Position in `Root::packs`.
    #[n(1)]
    pub pack: u32,
    /// Offset in the pack's plaintext.
    #[n(2)]
    pub offset: u32,
    /// Bytes of the encoded section.
    #[n(3)]
    pub len: u32,
}

impl SectionRef {
    /// Whether the section is of `kind`.
    pub fn is(&self, kind: SectionKind) -> bool {
        self.kind == kind as u8
    }
}

/// Where a root lies: its pack in full, since nothing else names it.
#[derive(Clone, PartialEq, Eq, Debug, minicbor::Encode, minicbor::Decode)]
pub struct RootRef {
    /// The metadata pack it is in.
    #[n(0)]
    pub pack: PackRecord,
    /// Offset in the pack's plaintext.
    #[n(1)]
    pub offset: u32,
    /// Bytes of the encoded section.
    #[n(2)]
    pub len: u32,
}
