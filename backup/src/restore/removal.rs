//! What a restore with `--delete` will remove, found before anything is written: a restored ignore file or tag must not
//! change what counts as left out, and what appears meanwhile is nobody's leftover.

use std::os::fd::OwnedFd;

use database::DbError;
use proto::log_record::{Entry, EntryKind};

use crate::catalog::tree;
use crate::exclude::IGNORE_FILE;
use crate::restore::judge::{Fate, Ignored, Judge, Seen, Sweep, Tell, look, look_at};
use crate::restore::metadata::mtime_ns;
use crate::restore::target::{BEGUN, Target, is_below, names};
use crate::restore::window::{Item, window};
use crate::restore::{Reader, RestoreError, WhyLeft};

/// Something in the target that the snapshot does not have.
pub(super) struct Doomed {
    relative: Vec<u8>,
    ignored: Ignored,
}

/// A folder of the snapshot on the way to what is looked at.
struct Folder {
    relative: Vec<u8>,
    state: State,
}

enum State {
    /// An ancestor of the snapshot's roots: nothing in it is this backup's business.
    Above,
    /// At or below a root.
    Inside(Inside),
    /// Nothing at or below it is removed.
    Closed,
}

struct Inside {
    /// Its device in the target.
    device: u64,
    /// That of its root when the snapshot was made.
    root_device: u64,
    ignored: Ignored,
}

/// Finds what is to go.
pub(super) struct Finder<'a> {
    reader: &'a Reader,
    snapshot: u64,
    judge: &'a Judge,
    target: &'a Target,
    /// The folders above the one looked at.
    way: Vec<Folder>,
    doomed: Vec<Doomed>,
}

impl<'a> Finder<'a> {
    pub(super) fn new(reader: &'a Reader, snapshot: u64, judge: &'a Judge, target: &'a Target) -> Self {
        Self {
            reader,
            snapshot,
            judge,
            target,
            way: Vec::new(),
            doomed: Vec::new(),
        }
    }

    /// Everything that is to go; `tell` hears of what stays, of the topmost alone.
    pub(super) fn find(mut self, tell: &mut Tell<'_>) -> Result<Vec<Doomed>, RestoreError> {
        let mut after = None;
        loop {
            let (items, last) = window(self.reader, self.snapshot, &self.judge.selection, after.as_deref())?;
            for item in items.iter().filter(|item| item.entry.kind == EntryKind::Directory) {
                self.visit(item, tell)?;
            }
            match last {
                Some(last) => after = Some(last),
                None => return Ok(self.doomed),
            }
        }
    }

    fn visit(&mut self, item: &Item, tell: &mut Tell<'_>) -> Result<(), RestoreError> {
        while self
            .way
            .last()
            .is_some_and(|above| !is_below(&item.relative, &above.relative))
        {
            self.way.pop();
        }
        let state = match self.way.last().map(|above| &above.state) {
            Some(State::Closed) => State::Closed,
            _ if !self.judge.covers(&item.relative) => State::Above,
            _ => match self.target.dir(&item.relative) {
                Ok(dir) => self.look_into(item, &dir, tell)?,
                // It is not there, or something else is.
                Err(_) => State::Closed,
            },
        };
        self.way.push(Folder {
            relative: item.relative.clone(),
            state,
        });
        Ok(())
    }

    /// Finds what a folder has that the snapshot does not.
    fn look_into(&mut self, item: &Item, dir: &OwnedFd, tell: &mut Tell<'_>) -> Result<State, RestoreError> {
        let (relative, path) = (&item.relative, self.judge.selection.absolute(&item.relative));
        let children = self.reader.db.read(|conn| tree::children(conn, self.snapshot, &path))?;
        let known: Vec<&[u8]> = children.iter().map(|child| child.name.as_slice()).collect();
        let mut found = names(dir).unwrap_or_default();
        found.retain(|name| name != BEGUN && known.binary_search(&name.as_slice()).is_err());
        found.sort_unstable();
        let Ok(seen) = look_at(dir) else {
            return Ok(State::Closed);
        };
        let above = match self.way.last().map(|above| &above.state) {
            Some(State::Inside(above)) => Some(above),
            _ => None,
        };
        if let Some(why) = self.why_closed(item, dir, &seen, above, &known) {
            for name in found {
                self.tell_left(dir, &join(relative, &name), &name, why, tell);
            }
            return Ok(State::Closed);
        }
        let then = self.ignore_file(&path, &children, dir)?;
        let root_device = above.map_or(item.entry.meta.device, |above| above.root_device);
        let rules_above = above.map(|above| above.ignored.clone()).unwrap_or_default();
        let ignored = self.judge.below(&rules_above, dir, relative, then);
        for name in found {
            self.doom(dir, &join(relative, &name), &name, seen.device, &ignored, tell);
        }
        Ok(State::Inside(Inside {
            device: seen.device,
            root_device,
            ignored,
        }))
    }

    /// Why nothing in a folder of the snapshot may be removed. A root, or the folder that was asked for (with nothing above
    /// it), may be a mount point, and no rule leaves it out.
    fn why_closed(
        &self,
        item: &Item,
        dir: &OwnedFd,
        seen: &Seen,
        above: Option<&Inside>,
        known: &[&[u8]],
    ) -> Option<WhyLeft> {
        let judge = self.judge;
        let was_elsewhere = above.is_some_and(|above| above.root_device != item.entry.meta.device);
        if judge.left_out.one_file_system && was_elsewhere {
            return Some(WhyLeft::OtherFileSystem);
        }
        if judge.was_cache(known) || judge.is_cache(dir) {
            return Some(WhyLeft::Cache);
        }
        match above {
            Some(above) => judge.stays(&item.relative, seen, above.device, &above.ignored),
            None => judge.stays_at_top(&item.relative, seen),
        }
    }

    fn tell_left(&self, dir: &OwnedFd, relative: &[u8], name: &[u8], why: WhyLeft, tell: &mut Tell<'_>) {
        if let Ok(Some(seen)) = look(dir, name)
            && self.judge.is_wanted(relative, seen.is_directory)
        {
            tell(relative, seen.is_directory, Fate::Left(why));
        }
    }

    fn doom(
        &mut self,
        dir: &OwnedFd,
        relative: &[u8],
        name: &[u8],
        device: u64,
        ignored: &Ignored,
        tell: &mut Tell<'_>,
    ) {
        let Ok(Some(seen)) = look(dir, name) else { return };
        if !self.judge.is_wanted(relative, seen.is_directory) {
            return;
        }
        match self.judge.stays(relative, &seen, device, ignored) {
            Some(why) => tell(relative, seen.is_directory, Fate::Left(why)),
            None => self.doomed.push(Doomed {
                relative: relative.to_vec(),
                ignored: ignored.clone(),
            }),
        }
    }

    /// What the snapshot has of a folder's ignore file, if that is not what lies there; `Some(None)` if it cannot be had.
    fn ignore_file(
        &self,
        path: &[u8],
        children: &[Entry],
        dir: &OwnedFd,
    ) -> Result<Option<Option<Vec<u8>>>, RestoreError> {
        let is_it = |child: &&Entry| child.name == IGNORE_FILE && child.kind == EntryKind::File;
        let Some(entry) = children.iter().find(is_it) else {
            return Ok(None);
        };
        let flags = rustix::fs::AtFlags::SYMLINK_NOFOLLOW;
        let is_there = rustix::fs::statat(dir, IGNORE_FILE, flags)
            .is_ok_and(|stat| stat.st_size as u64 == entry.meta.size && mtime_ns(&stat) == entry.meta.mtime_ns);
        if is_there {
            return Ok(None);
        }
        let mut text = Vec::new();
        let file = join(path.strip_suffix(b"/").unwrap_or(path), IGNORE_FILE);
        match self.reader.cat(self.snapshot, &file, &mut text) {
            Ok(_) => Ok(Some(Some(text))),
            Err(RestoreError::Db(error)) => Err(error.into()),
            Err(_) => Ok(Some(None)),
        }
    }
}

/// Removes what was found, or only looks at it.
pub(super) fn sweep(judge: &Judge, target: &Target, doomed: &Doomed, sweep: Sweep, tell: &mut Tell<'_>) {
    let Doomed { relative, ignored } = doomed;
    target.forget_open();
    match target.place(relative) {
        Ok(place) => drop(judge.sweep((&*place.dir, place.name), relative, ignored, sweep, tell)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => tell(relative, false, Fate::Failed(error)),
    }
}

/// What the snapshot's scan left out, with what is needed to judge it.
pub(super) fn judge(
    reader: &Reader,
    options: &crate::restore::RestoreOptions,
    selection: &std::sync::Arc<crate::restore::select::Selection>,
) -> Result<Option<Judge>, RestoreError> {
    let Some(deleting) = &options.delete else {
        return Ok(None);
    };
    let (roots, left_out) = reader.db.read(|conn| {
        let roots = tree::snapshot(conn, options.snapshot)?.map(|snapshot| snapshot.record.source_roots);
        Ok::<_, DbError>((roots, tree::left_out(conn, options.snapshot)?))
    })?;
    Ok(Some(Judge::new(
        deleting,
        selection.clone(),
        roots.unwrap_or_default(),
        left_out,
    )))
}

fn join(folder: &[u8], name: &[u8]) -> Vec<u8> {
    match folder {
        [] => name.to_vec(),
        _ => [folder, b"/", name].concat(),
    }
}
