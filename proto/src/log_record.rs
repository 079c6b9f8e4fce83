//! Backup-log records: the tree as it was, as full or incremental logs (docs/format/backup-log.md).

use std::collections::BTreeMap;

use crate::id::{SnapshotId, VersionId};
use crate::record;
use crate::record::{NAME_BYTES_MAX, PATH_BYTES_MAX, Record};
use crate::section_kind::SectionKind;
use crate::size::KIB;

/// One record of a backup log. A log is a `Snapshot`, then perhaps a `LeftOut`, then per directory (sorted by path, name by name in byte order) a `Directory` followed by
/// its records sorted by name. A later record for the same path and snapshot replaces an earlier one.
#[derive(Clone, PartialEq, Eq, Debug, minicbor::Encode, minicbor::Decode)]
pub enum LogRecord {
    /// What follows belongs to this snapshot.
    #[n(0)]
    Snapshot(#[n(0)] SnapshotRecord),
    /// What follows is in this directory: absolute path bytes, `/` for the root.
    #[n(1)]
    Directory(#[cbor(n(0), with = "minicbor::bytes")] Vec<u8>),
    /// An entry as it is from this snapshot on.
    #[n(2)]
    Entry(#[n(0)] Entry),
    /// A name that is not there any more from this snapshot on, with everything below it.
    #[n(3)]
    Gone(#[cbor(n(0), with = "minicbor::bytes")] Vec<u8>),
    /// What the scan of this snapshot left out; without one, what its parent's left out.
    #[n(4)]
    LeftOut(#[n(0)] LeftOut),
}

/// What a scan did not look at: things that are missing in the snapshot for another reason than that they were not there.
#[derive(Clone, PartialEq, Eq, Debug, Default, minicbor::Encode, minicbor::Decode)]
pub struct LeftOut {
    /// The exclude rules, gitignore-style on absolute paths, later ones win.
    #[n(0)]
    pub rules: Vec<String>,
    /// Contents of folders that a valid `CACHEDIR.TAG` marks were kept like any others.
    #[n(1)]
    pub keeps_caches: bool,
    /// Nothing below mount points was looked at.
    #[n(2)]
    pub one_file_system: bool,
    /// Absolute paths that could not be read: they, and what lies below them, may have been more than the snapshot has.
    #[n(3)]
    pub unread: Vec<PathBytes>,
    /// There was more than this record may say.
    #[n(4)]
    pub is_cut: bool,
}

/// A snapshot in a log and in the root.
#[derive(Clone, PartialEq, Eq, Debug, minicbor::Encode, minicbor::Decode)]
pub struct SnapshotRecord {
    /// Sequence number on its device, from 1.
    #[n(0)]
    pub seq: u64,
    /// Its id.
    #[n(1)]
    pub id: SnapshotId,
    /// Nanoseconds since 1970 when its scan began.
    #[n(2)]
    pub time_ns: i64,
    /// The snapshot it was compared with.
    #[n(3)]
    pub parent: Option<u64>,
    /// Absolute paths it covers.
    #[n(4)]
    pub source_roots: Vec<PathBytes>,
    /// Non-directory entries in it.
    #[n(5)]
    pub files: u64,
    /// Bytes of their contents, by length.
    #[n(6)]
    pub bytes: u64,
}

/// A path or name of any bytes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, minicbor::Encode, minicbor::Decode)]
#[cbor(transparent)]
pub struct PathBytes(#[cbor(n(0), with = "minicbor::bytes")] pub Vec<u8>);

/// A name in a directory with all that is known of it but its content.
#[derive(Clone, PartialEq, Eq, Debug, minicbor::Encode, minicbor::Decode)]
pub struct Entry {
    /// One component, any bytes but `/` and NUL. The tree's root has the empty name.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub name: Vec<u8>,
    /// What it is.
    #[n(1)]
    pub kind: EntryKind,
    /// Its metadata.
    #[n(2)]
    pub meta: Meta,
    /// Where its content is.
    #[n(3)]
    pub content: Content,
}

/// File types.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, minicbor::Encode, minicbor::Decode)]
#[cbor(index_only)]
pub enum EntryKind {
    /// A regular file.
    #[n(0)]
    File,
    /// A directory.
    #[n(1)]
    Directory,
    /// A symbolic link; its target is `Content::Inline`.
    #[n(2)]
    Symlink,
    /// A named pipe.
    #[n(3)]
    Fifo,
    /// A character device.
    #[n(4)]
    CharDevice,
    /// A block device.
    #[n(5)]
    BlockDevice,
    /// A Unix socket.
    #[n(6)]
    Socket,
}

/// Metadata as `statx` and `listxattr` give it.
#[derive(Clone, PartialEq, Eq, Debug, Default, minicbor::Encode, minicbor::Decode)]
pub struct Meta {
    /// Permission bits with setuid, setgid, sticky: 12 bits.
    #[n(0)]
    pub mode: u32,
    /// Owner.
    #[n(1)]
    pub uid: u32,
    /// Group.
    #[n(2)]
    pub gid: u32,
    /// Nanoseconds since 1970.
    #[n(3)]
    pub mtime_ns: i64,
    /// Nanoseconds since 1970; not restored, used to tell change.
    #[n(4)]
    pub ctime_ns: i64,
    /// Bytes, by length; 0 for all but files and symlinks.
    #[n(5)]
    pub size: u64,
    /// Inode number on `device`, to tell moves and hard links.
    #[n(6)]
    pub inode: u64,
    /// File-system device number it was found on.
    #[n(7)]
    pub device: u64,
    /// Hard links to it; entries of a snapshot with equal (device, inode) and `links` > 1 are one file.
    #[n(8)]
    pub links: u32,
    /// Device number, for devices.
    #[n(9)]
    pub rdev: u64,
    /// Extended attributes, raw, sorted by name; POSIX ACLs are among them.
    #[n(10)]
    pub xattrs: Vec<Xattr>,
}

/// One extended attribute, raw.
#[derive(Clone, PartialEq, Eq, Debug, minicbor::Encode, minicbor::Decode)]
pub struct Xattr {
    /// Full name with its namespace.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub name: Vec<u8>,
    /// Raw value.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub value: Vec<u8>,
}

/// Where an entry's content is.
#[derive(Clone, PartialEq, Eq, Debug, minicbor::Encode, minicbor::Decode)]
pub enum Content {
    /// It has none: directories, pipes, devices, sockets.
    #[n(0)]
    None,
    /// Here: empty and tiny files (at most `TINY_BYTES_MAX`), symlink targets.
    #[n(1)]
    Inline(#[cbor(n(0), with = "minicbor::bytes")] Vec<u8>),
    /// In the read-cap index, under this version.
    #[n(2)]
    Version(#[n(0)] VersionId),
}

/// Largest file content that a log record carries itself (docs/format/backup-log.md §2).
pub const TINY_BYTES_MAX: u64 = 128;
/// Largest file content that the read-cap index carries itself (docs/format/read-cap-index.md §2).
pub const VERY_SMALL_BYTES_MAX: u64 = 4096;
/// Most paths that a snapshot covers. Chosen, as the limits below: any record fits in a section (asserted below).
pub const SNAPSHOT_ROOTS_MAX: usize = 1024;
/// Most bytes of all paths that a snapshot covers.
pub const SNAPSHOT_ROOTS_BYTES_MAX: usize = 256 * KIB;
/// Most rules, and most unread paths, in what a scan left out.
pub const LEFT_OUT_MAX: usize = 1024;
/// Most bytes of all rules, and of all unread paths, in what a scan left out.
pub const LEFT_OUT_BYTES_MAX: usize = 128 * KIB;
/// Most extended attributes of an entry.
pub const XATTRS_MAX: usize = 1024;
/// Longest value of an extended attribute: what Linux allows (`XATTR_SIZE_MAX`).
pub const XATTR_VALUE_BYTES_MAX: usize = 64 * KIB;
/// Most bytes of all names and values of an entry's extended attributes.
pub const XATTRS_BYTES_MAX: usize = 256 * KIB;

// Any record fits in a section together with its context, so that writers need no third case. A field's CBOR costs at
// most 9 bytes; 32 per list element are more than enough.
const _: () = assert!(
    SNAPSHOT_ROOTS_BYTES_MAX + 32 * SNAPSHOT_ROOTS_MAX + 2 * PATH_BYTES_MAX + XATTRS_BYTES_MAX + 32 * XATTRS_MAX + KIB
        < SectionKind::Log.records_bytes_max()
);

/// Levels of a log's context: a snapshot, then a directory.
impl Record for LogRecord {
    const KIND: SectionKind = SectionKind::Log;

    fn check(&self) -> Result<(), String> {
        match self {
            Self::Snapshot(snapshot) => snapshot.check(),
            Self::Directory(path) => record::check_path(path),
            Self::Entry(entry) => entry.check(),
            Self::Gone(name) => record::check_name(name),
            Self::LeftOut(left_out) => left_out.check(),
        }
    }

    fn depth(&self) -> usize {
        match self {
            Self::Snapshot(_) => 0,
            Self::Directory(_) | Self::LeftOut(_) => 1,
            Self::Entry(_) | Self::Gone(_) => 2,
        }
    }

    fn is_context(&self) -> bool {
        matches!(self, Self::Snapshot(_) | Self::Directory(_))
    }
}

impl SnapshotRecord {
    /// Whether all limits hold; else which does not.
    pub fn check(&self) -> Result<(), String> {
        if self.seq == 0 || self.parent.is_some_and(|parent| parent == 0 || parent >= self.seq) {
            return Err(format!("snapshot {} with parent {:?}", self.seq, self.parent));
        }
        self.check_roots()
    }
}

impl SnapshotRecord {
    /// Makes its paths fit by naming the folders above, those with the most of them first; whether anything was changed.
    /// For what was recorded before limits were checked: a scan refuses more paths than fit.
    pub fn fit_source_roots(&mut self) -> bool {
        let mut is_fitted = false;
        while self.check_roots().is_err() {
            let mut above: BTreeMap<Vec<u8>, usize> = BTreeMap::new();
            for root in &self.source_roots {
                *above.entry(parent(&root.0).to_vec()).or_default() += root.0.len() + 1;
            }
            let Some((folder, _)) = above.into_iter().max_by_key(|(_, bytes)| *bytes) else {
                return is_fitted;
            };
            self.source_roots.retain(|root| !is_at_or_below(&root.0, &folder));
            self.source_roots.push(PathBytes(folder));
            self.source_roots.sort();
            is_fitted = true;
        }
        is_fitted
    }

    fn check_roots(&self) -> Result<(), String> {
        let bytes: usize = self.source_roots.iter().map(|root| root.0.len()).sum();
        if self.source_roots.len() > SNAPSHOT_ROOTS_MAX || bytes > SNAPSHOT_ROOTS_BYTES_MAX {
            return Err(format!(
                "{} paths of {bytes} bytes are too many",
                self.source_roots.len()
            ));
        }
        self.source_roots
            .iter()
            .try_for_each(|root| record::check_path(&root.0))
    }
}

impl LeftOut {
    /// Whether all limits hold; else which does not.
    pub fn check(&self) -> Result<(), String> {
        let rules_bytes: usize = self.rules.iter().map(String::len).sum();
        if self.rules.len() > LEFT_OUT_MAX || rules_bytes > LEFT_OUT_BYTES_MAX {
            return Err(format!(
                "{} rules of {rules_bytes} bytes are too many",
                self.rules.len()
            ));
        }
        let unread_bytes: usize = self.unread.iter().map(|path| path.0.len()).sum();
        if self.unread.len() > LEFT_OUT_MAX || unread_bytes > LEFT_OUT_BYTES_MAX {
            return Err(format!(
                "{} unread paths of {unread_bytes} bytes are too many",
                self.unread.len()
            ));
        }
        self.unread.iter().try_for_each(|path| record::check_path(&path.0))
    }

    /// The same within the limits: what does not fit is left away, and `is_cut` says so.
    pub fn within_limits(mut self) -> Self {
        let before = (self.rules.len(), self.unread.len());
        let fits = |count: &mut usize, bytes: &mut usize, len: usize| {
            (*count, *bytes) = (*count + 1, *bytes + len);
            *count <= LEFT_OUT_MAX && *bytes <= LEFT_OUT_BYTES_MAX
        };
        let (mut count, mut bytes) = (0, 0);
        self.rules.retain(|rule| fits(&mut count, &mut bytes, rule.len()));
        let (mut count, mut bytes) = (0, 0);
        self.unread
            .retain(|path| record::check_path(&path.0).is_ok() && fits(&mut count, &mut bytes, path.0.len()));
        self.is_cut |= before != (self.rules.len(), self.unread.len());
        self
    }
}

fn parent(path: &[u8]) -> &[u8] {
    match path.iter().rposition(|byte| *byte == b'/') {
        None | Some(0) => b"/",
        Some(at) => &path[..at],
    }
}

fn is_at_or_below(path: &[u8], folder: &[u8]) -> bool {
    let rest = path.strip_prefix(folder);
    folder == b"/" || rest.is_some_and(|rest| rest.first().is_none_or(|byte| *byte == b'/'))
}

impl Entry {
    /// Whether all limits hold; else which does not.
    pub fn check(&self) -> Result<(), String> {
        // Only the root of the tree has no name.
        if !(self.name.is_empty() && self.kind == EntryKind::Directory) {
            record::check_name(&self.name)?;
        }
        self.meta.check()?;
        match (self.kind, &self.content) {
            (EntryKind::File, Content::Version(_)) => Ok(()),
            (EntryKind::File, Content::Inline(bytes)) if bytes.len() as u64 <= TINY_BYTES_MAX => Ok(()),
            (EntryKind::Symlink, Content::Inline(target)) if target.len() <= PATH_BYTES_MAX => Ok(()),
            (EntryKind::File | EntryKind::Symlink, _) => Err(format!("a {:?} without content, or too long", self.kind)),
            (_, Content::None) => Ok(()),
            (kind, _) => Err(format!("a {kind:?} with content")),
        }
    }
}

impl Meta {
    /// Takes out the extended attributes that do not fit and returns them. Those that say who may do what are kept before
    /// all others, then the shortest: as many as can be.
    pub fn fit_xattrs(&mut self) -> Vec<Xattr> {
        let mut order: Vec<usize> = (0..self.xattrs.len()).collect();
        order.sort_by_key(|&at| {
            let xattr = &self.xattrs[at];
            let rights = [&b"security."[..], b"system."];
            let is_right = rights.iter().any(|space| xattr.name.starts_with(space));
            (!is_right, xattr.bytes())
        });
        let (mut count, mut bytes) = (0, 0);
        let mut fits = vec![false; self.xattrs.len()];
        for at in order {
            let xattr = &self.xattrs[at];
            let more = bytes + xattr.bytes();
            if count < XATTRS_MAX && more <= XATTRS_BYTES_MAX && xattr.check().is_ok() {
                (count, bytes, fits[at]) = (count + 1, more, true);
            }
        }
        if fits.iter().all(|fits| *fits) {
            return Vec::new();
        }
        let (kept, dropped): (Vec<_>, Vec<_>) = std::mem::take(&mut self.xattrs)
            .into_iter()
            .zip(fits)
            .partition(|(_, fits)| *fits);
        self.xattrs = kept.into_iter().map(|(xattr, _)| xattr).collect();
        dropped.into_iter().map(|(xattr, _)| xattr).collect()
    }

    /// Whether all limits hold; else which does not.
    pub fn check(&self) -> Result<(), String> {
        if self.mode > 0o7777 {
            return Err(format!("mode {:o} has more than 12 bits", self.mode));
        }
        let bytes: usize = self.xattrs.iter().map(Xattr::bytes).sum();
        if self.xattrs.len() > XATTRS_MAX || bytes > XATTRS_BYTES_MAX {
            return Err(format!(
                "{} extended attributes of {bytes} bytes are too many",
                self.xattrs.len()
            ));
        }
        if !self.xattrs.is_sorted_by(|a, b| a.name < b.name) {
            return Err("extended attributes are not sorted".to_owned());
        }
        self.xattrs.iter().try_for_each(Xattr::check)
    }
}

impl Xattr {
    fn bytes(&self) -> usize {
        self.name.len() + self.value.len()
    }

    fn check(&self) -> Result<(), String> {
        let name_fits = (1..=NAME_BYTES_MAX).contains(&self.name.len()) && !self.name.contains(&0);
        if name_fits && self.value.len() <= XATTR_VALUE_BYTES_MAX {
            return Ok(());
        }
        Err(format!(
            "extended attribute `{}` of {} bytes",
            self.name.escape_ascii(),
            self.value.len()
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_left_out_is_frozen() {
        let record = LogRecord::LeftOut(LeftOut {
            rules: vec!["*.o".to_owned()],
            keeps_caches: false,
            one_file_system: true,
            unread: vec![PathBytes(b"/a".to_vec())],
            is_cut: false,
        });
        let frozen = b"\x82\x04\x81\x85\x81\x63*.o\xf4\xf5\x81\x42/a\xf4";
        assert_eq!(record::to_cbor(&record), frozen);
        assert_eq!(record::first_from_cbor(frozen), Ok((record, frozen.len())));
    }

    #[test]
    fn more_than_fits_is_cut_and_says_so() {
        let path = |number: usize| PathBytes(format!("/{number:0255}").into_bytes());
        let left_out = LeftOut {
            unread: (0..LEFT_OUT_MAX).map(path).collect(),
            ..LeftOut::default()
        };
        assert!(left_out.check().is_err());
        let cut = left_out.within_limits();
        assert!(cut.is_cut && cut.check().is_ok() && cut.unread.len() == LEFT_OUT_BYTES_MAX / 256);
        let whole = LeftOut {
            rules: vec!["x".to_owned()],
            ..LeftOut::default()
        };
        assert_eq!(whole.clone().within_limits(), whole);
    }
}
