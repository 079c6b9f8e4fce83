//! What `restore --delete` may remove, and removing it: only what a scan would have looked at. What it left out is in no
//! backup, so that nothing would bring it back.
//!
//! Everything is reached by directory descriptor; no mount point is crossed and no link followed.

use std::ffi::CStr;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;

use proto::log_record::{LeftOut, PathBytes};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Statx, StatxAttributes, StatxFlags};
use rustix::io::Errno;

use crate::catalog::tree::{Scope, scope};
use crate::exclude::{CACHE_TAG, CACHE_TAG_SIGNATURE, FolderRules, IGNORE_FILE, IGNORE_FILE_BYTES_MAX, Rules};
use crate::restore::select::Selection;
use crate::restore::target::{names, open_below};
use crate::restore::{Deleting, WhyLeft};

/// Decides what may be removed.
pub(super) struct Judge {
    pub(super) selection: Arc<Selection>,
    roots: Vec<PathBytes>,
    pub(super) left_out: LeftOut,
    /// Today's rules and those of the scan: what either leaves out stays.
    rules: [Rules; 2],
    heeds_cache_tags: bool,
    /// Device and inode of folders in which nothing is ever removed.
    protected: Vec<(u64, u64)>,
}

/// The ignore files above a place.
#[derive(Clone, Default)]
pub(super) struct Ignored {
    /// As they lie in the target, and as the snapshot has them.
    rules: [Option<Arc<FolderRules>>; 2],
    /// One of them cannot be had.
    is_unknown: bool,
}

/// What there is under a name.
#[derive(Clone, Copy)]
pub(super) struct Seen {
    pub(super) is_directory: bool,
    pub(super) device: u64,
    identity: (u64, u64),
    is_mount_root: bool,
}

/// What becomes of an entry that is to go.
pub(super) enum Fate {
    /// It is gone, or would be.
    Removed,
    /// It stays, with what is below it.
    Left(WhyLeft),
    /// The system did not let it go.
    Failed(io::Error),
}

/// Whether things go, or are only looked at.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Sweep {
    Look,
    Remove,
}

/// Told of each entry that was to go: its place below the target, whether it is a folder, and what becomes of it.
pub(super) type Tell<'a> = dyn FnMut(&[u8], bool, Fate) + 'a;

impl Judge {
    pub(super) fn new(
        deleting: &Deleting,
        selection: Arc<Selection>,
        roots: Vec<PathBytes>,
        left_out: LeftOut,
    ) -> Self {
        // A rule that was accepted once and is not any more cannot be heeded; then nothing is known for certain.
        let (then, is_cut) = match Rules::new(&left_out.rules) {
            Ok(rules) => (rules, left_out.is_cut),
            Err(_) => (Rules::default(), true),
        };
        let identity = |path: &std::path::PathBuf| {
            let found = std::fs::metadata(path).ok()?;
            Some((found.dev(), found.ino()))
        };
        Self {
            selection,
            roots,
            heeds_cache_tags: deleting.rules.heeds_cache_tags() || !left_out.keeps_caches,
            left_out: LeftOut { is_cut, ..left_out },
            rules: [deleting.rules.clone(), then],
            protected: deleting.protected.iter().filter_map(identity).collect(),
        }
    }

    /// Whether the snapshot's roots cover what is at `relative`.
    pub(super) fn covers(&self, relative: &[u8]) -> bool {
        scope(&self.roots, &self.selection.absolute(relative)) == Scope::Inside
    }

    /// Whether a restore of these patterns is about it.
    pub(super) fn is_wanted(&self, relative: &[u8], is_directory: bool) -> bool {
        self.selection.includes(relative, is_directory) && !self.selection.excludes(relative, is_directory)
    }

    /// Why what is at `relative` must stay although the snapshot does not have it. `device` is its folder's.
    pub(super) fn stays(&self, relative: &[u8], seen: &Seen, device: u64, ignored: &Ignored) -> Option<WhyLeft> {
        if let Some(why) = self.stays_at_top(relative, seen) {
            return Some(why);
        }
        if seen.is_directory && (seen.is_mount_root || seen.device != device) {
            return Some(WhyLeft::OtherFileSystem);
        }
        let path = self.selection.absolute(relative);
        if self.is_ruled_out(&path, seen.is_directory, ignored) {
            return Some(WhyLeft::Rules);
        }
        ignored.is_unknown.then_some(WhyLeft::Unknown)
    }

    /// The same of a root, or of the folder that was asked for: whoever names it means it, wherever it lies.
    pub(super) fn stays_at_top(&self, relative: &[u8], seen: &Seen) -> Option<WhyLeft> {
        let path = self.selection.absolute(relative);
        if self.left_out.is_cut {
            return Some(WhyLeft::Unknown);
        }
        if self.protected.contains(&seen.identity) {
            return Some(WhyLeft::Ours);
        }
        let is_unread = self.left_out.unread.iter().any(|unread| unread.0 == path);
        is_unread.then_some(WhyLeft::Unread)
    }

    fn is_ruled_out(&self, path: &[u8], is_directory: bool, ignored: &Ignored) -> bool {
        self.rules.iter().any(|rules| {
            let says = |folder: &Option<Arc<FolderRules>>| rules.excludes_entry(folder.as_deref(), path, is_directory);
            ignored.rules.iter().any(says)
        })
    }

    /// Whether a scan keeps only the tag of this folder.
    pub(super) fn is_cache(&self, dir: &OwnedFd) -> bool {
        let start = || read_start(dir, CACHE_TAG, CACHE_TAG_SIGNATURE.len());
        self.heeds_cache_tags && start().is_some_and(|start| start == CACHE_TAG_SIGNATURE)
    }

    /// Whether the snapshot shows a folder as a scan that found a tag does.
    pub(super) fn was_cache(&self, children: &[&[u8]]) -> bool {
        self.heeds_cache_tags && children == [CACHE_TAG]
    }

    /// Removes what is under a name, with all that is below it; `true` if it is gone then. What has to stay is told of,
    /// and the folders above it stay, too.
    pub(super) fn sweep(
        &self,
        place: (&OwnedFd, &[u8]),
        relative: &[u8],
        ignored: &Ignored,
        sweep: Sweep,
        tell: &mut Tell<'_>,
    ) -> bool {
        let (dir, name) = place;
        let seen = match look(dir, name) {
            Ok(Some(seen)) => seen,
            Ok(None) => return true,
            Err(error) => {
                tell(relative, false, Fate::Failed(error));
                return false;
            }
        };
        match self.sweep_seen(place, relative, &seen, ignored, sweep, tell) {
            Ok(is_gone) => is_gone,
            Err(error) => {
                tell(relative, seen.is_directory, Fate::Failed(error));
                false
            }
        }
    }

    fn sweep_seen(
        &self,
        (dir, name): (&OwnedFd, &[u8]),
        relative: &[u8],
        seen: &Seen,
        ignored: &Ignored,
        sweep: Sweep,
        tell: &mut Tell<'_>,
    ) -> io::Result<bool> {
        if self.selection.excludes(relative, seen.is_directory) {
            return Ok(false);
        }
        let device = look_at(dir)?.device;
        if let Some(why) = self.stays(relative, seen, device, ignored) {
            tell(relative, seen.is_directory, Fate::Left(why));
            return Ok(false);
        }
        let mut flags = AtFlags::empty();
        if seen.is_directory {
            let inner = open_below(dir, name)?;
            let children = names(&inner)?;
            if self.is_cache(&inner) && children.len() > 1 {
                tell(relative, true, Fate::Left(WhyLeft::Cache));
                return Ok(false);
            }
            let ignored = self.below(ignored, &inner, relative, None);
            let mut is_empty = true;
            for child in children {
                let below = [relative, b"/", &child].concat();
                is_empty &= self.sweep((&inner, &child), &below, &ignored, sweep, tell);
            }
            if !is_empty {
                return Ok(false);
            }
            flags = AtFlags::REMOVEDIR;
        }
        if sweep == Sweep::Remove {
            rustix::fs::unlinkat(dir, name, flags)?;
        }
        tell(relative, seen.is_directory, Fate::Removed);
        Ok(true)
    }

    /// The ignore files above what is in a folder. `then` is what the snapshot has of the folder's own, if it has one and it
    /// is another than the one that lies there; `Some(None)`: it cannot be had.
    pub(super) fn below(
        &self,
        above: &Ignored,
        dir: &OwnedFd,
        relative: &[u8],
        then: Option<Option<Vec<u8>>>,
    ) -> Ignored {
        let mut ignored = above.clone();
        let here = read_start(dir, IGNORE_FILE, IGNORE_FILE_BYTES_MAX);
        ignored.is_unknown |= then == Some(None);
        let then = then.flatten().or_else(|| here.clone());
        let path = self.selection.absolute(relative);
        for (rules, text) in ignored.rules.iter_mut().zip([here, then]) {
            if let Some(text) = text {
                let text = String::from_utf8_lossy(&text);
                *rules = Some(Arc::new(FolderRules::new(&path, &text, rules.take())));
            }
        }
        ignored
    }
}

/// What is under a name; `None` if nothing is.
pub(super) fn look(dir: &OwnedFd, name: &[u8]) -> io::Result<Option<Seen>> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
    match rustix::fs::statx(dir, name, flags, StatxFlags::BASIC_STATS) {
        Ok(stat) => Ok(Some(seen(&stat))),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The same of an open folder.
pub(super) fn look_at(dir: impl AsFd) -> io::Result<Seen> {
    const ITSELF: &CStr = c"";
    let stat = rustix::fs::statx(dir, ITSELF, AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS)?;
    Ok(seen(&stat))
}

fn seen(stat: &Statx) -> Seen {
    let device = rustix::fs::makedev(stat.stx_dev_major, stat.stx_dev_minor);
    Seen {
        is_directory: FileType::from_raw_mode(u32::from(stat.stx_mode)) == FileType::Directory,
        device,
        identity: (device, stat.stx_ino),
        // A bind mount has the device of the folder that it hides. Kernels before 5.8 do not tell.
        is_mount_root: stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT),
    }
}

/// The beginning of a file, if there is one that can be read.
fn read_start(dir: &OwnedFd, name: &[u8], bytes_max: usize) -> Option<Vec<u8>> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let fd = rustix::fs::openat(dir, name, flags, Mode::empty()).ok()?;
    let stat = rustix::fs::fstat(&fd).ok()?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return None;
    }
    let mut start = Vec::new();
    std::fs::File::from(fd)
        .take(bytes_max as u64)
        .read_to_end(&mut start)
        .ok()?;
    Some(start)
}
