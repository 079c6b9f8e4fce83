//! What snapshots hold on to, told by lists of the dead, as in ZFS (Ahrens, "Is it magic?", 2005). A snapshot's list has the blocks
//! that it names and that the state after it, the next snapshot or the head, does not name any more. So taking a snapshot costs
//! nothing, a block's death costs one entry, and deleting a snapshot looks at one list.
//!
//! States that follow each other are a line. A clone begins a line at a snapshot, its origin, which stays as long as the clone does.
//! A rollback is a clone that becomes the head, with what was the head kept as a snapshot: so no block of a line comes back to life.

use std::collections::BTreeMap;

use thiserror::Error;

use super::moves::Place;
use super::relocations::Relocations;

/// A snapshot of a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SnapshotId(pub u32);

/// States that follow each other. That of a head is how the head is named.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LineId(pub u32);

/// Blocks that lie one after the other, born by one commit, or by several between the same two snapshots.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stretch {
    /// Where the first one lies.
    pub place: Place,
    /// How many.
    pub count: u32,
    /// The commit that they were born by.
    pub birth: u64,
}

/// What becomes of blocks that a head does not name any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Nobody needs them.
    Freed,
    /// A snapshot does.
    Pinned,
}

/// What is refused.
#[derive(Debug, Error, Clone, Copy, PartialEq, Eq)]
pub enum SnapshotError {
    /// No such snapshot.
    #[error("There is no snapshot {0:?}")]
    NoSnapshot(SnapshotId),
    /// No such line, or it has no head any more.
    #[error("There is no head {0:?}")]
    NoHead(LineId),
    /// Clones of it are there: they have to go first.
    #[error("Snapshot {0:?} has clones")]
    HasClones(SnapshotId),
    /// A snapshot of an older commit than the one before it.
    #[error("Commit {0} is older than the snapshot before")]
    Older(u64),
}

#[derive(Debug, Clone)]
struct Snapshot {
    line: LineId,
    commit: u64,
    dead: Vec<Stretch>,
    clones: u32,
}

#[derive(Debug, Clone, Default)]
struct Line {
    origin: Option<SnapshotId>,
    /// The origin's list, as seen from here.
    dead_of_origin: Vec<Stretch>,
    /// From the oldest on.
    snapshots: Vec<SnapshotId>,
    has_head: bool,
}

/// All snapshots of a volume and its clones. Commits are numbered through all of them.
#[derive(Debug, Clone, Default)]
pub struct Snapshots {
    lines: BTreeMap<LineId, Line>,
    snapshots: BTreeMap<SnapshotId, Snapshot>,
    next_line: u32,
    next_snapshot: u32,
}

impl Snapshots {
    /// A volume without snapshots.
    pub fn new() -> (Self, LineId) {
        let mut snapshots = Self::default();
        let head = snapshots.begin(None);
        (snapshots, head)
    }

    /// The commits of all snapshots, in no order.
    pub fn commits(&self) -> impl Iterator<Item = u64> {
        self.snapshots.values().map(|snapshot| snapshot.commit)
    }

    /// Pins the state of a head, as of a commit.
    pub fn take(&mut self, head: LineId, commit: u64) -> Result<SnapshotId, SnapshotError> {
        let newest = self.newest(self.with_head(head)?);
        if newest.is_some_and(|newest| commit < self.snapshots[&newest].commit) {
            return Err(SnapshotError::Older(commit));
        }
        let id = SnapshotId(self.next_snapshot);
        self.next_snapshot += 1;
        let snapshot = Snapshot {
            line: head,
            commit,
            dead: Vec::new(),
            clones: 0,
        };
        self.snapshots.insert(id, snapshot);
        self.line_mut(head).snapshots.push(id);
        Ok(id)
    }

    /// Blocks that a head named and does not name any more, by an accepted commit.
    pub fn die(&mut self, head: LineId, blocks: Stretch) -> Result<Fate, SnapshotError> {
        let newest = self.newest(self.with_head(head)?);
        if self.is_unknown_to(newest, &blocks) {
            return Ok(Fate::Freed);
        }
        let list = self.list_of_newest(head);
        match list.last_mut() {
            Some(last) if last.birth == blocks.birth && last.place.skip(last.count) == blocks.place => {
                last.count += blocks.count;
            }
            _ => list.push(blocks),
        }
        Ok(Fate::Pinned)
    }

    /// Deletes a snapshot, and says what only it needed. `state` is asked for all that it names only if nothing comes after it in
    /// its line (the head was removed, or is elsewhere after a rollback): then no list tells.
    pub fn delete(
        &mut self,
        id: SnapshotId,
        state: impl FnOnce() -> Vec<Stretch>,
    ) -> Result<Vec<Stretch>, SnapshotError> {
        let snapshot = self.snapshots.get(&id).ok_or(SnapshotError::NoSnapshot(id))?;
        if snapshot.clones > 0 {
            return Err(SnapshotError::HasClones(id));
        }
        let line_id = snapshot.line;
        let line = &self.lines[&line_id];
        let index = line.snapshots.iter().position(|other| *other == id);
        let index = index.expect("a snapshot is in the line that it names");
        let previous = if index > 0 {
            Some(line.snapshots[index - 1])
        } else {
            line.origin
        };
        let is_end = !line.has_head && index + 1 == line.snapshots.len();
        let list = if is_end { state() } else { snapshot.dead.clone() };
        let (freed, kept): (Vec<_>, Vec<_>) = list
            .into_iter()
            .partition(|blocks| self.is_unknown_to(previous, blocks));
        self.snapshots.remove(&id);
        self.line_mut(line_id).snapshots.remove(index);
        if is_end {
            self.close(line_id);
        } else if index > 0 {
            let previous = previous.expect("there is one before it");
            self.snapshot_mut(previous).dead.extend(kept);
        } else {
            self.line_mut(line_id).dead_of_origin.extend(kept);
        }
        Ok(freed)
    }

    /// Begins a line at a snapshot.
    pub fn clone_of(&mut self, origin: SnapshotId) -> Result<LineId, SnapshotError> {
        let snapshot = self
            .snapshots
            .get_mut(&origin)
            .ok_or(SnapshotError::NoSnapshot(origin))?;
        snapshot.clones += 1;
        let line = snapshot.line;
        let clone = self.begin(Some(origin));
        self.join(line);
        Ok(clone)
    }

    /// Removes a head, of which `state` is all that it names, and says what only it needed. Its snapshots stay.
    pub fn end(&mut self, head: LineId, state: Vec<Stretch>) -> Result<Vec<Stretch>, SnapshotError> {
        let newest = self.newest(self.with_head(head)?);
        let freed = state.into_iter().filter(|blocks| self.is_unknown_to(newest, blocks));
        let freed = freed.collect();
        self.line_mut(head).has_head = false;
        self.close(head);
        Ok(freed)
    }

    /// Makes a snapshot's state the head's. What the head was is kept as a snapshot; the head has another name from now on.
    pub fn roll_back(
        &mut self,
        head: LineId,
        to: SnapshotId,
        commit: u64,
    ) -> Result<(LineId, SnapshotId), SnapshotError> {
        if !self.snapshots.contains_key(&to) {
            return Err(SnapshotError::NoSnapshot(to));
        }
        let was = self.take(head, commit)?;
        self.line_mut(head).has_head = false;
        Ok((self.clone_of(to)?, was))
    }

    /// Blocks in the lists went elsewhere. Looks at all entries: it is for the few packs with pinned blocks that are moved.
    pub fn relocate(&mut self, relocations: &Relocations) {
        let lists = self.snapshots.values_mut().map(|snapshot| &mut snapshot.dead);
        for list in lists.chain(self.lines.values_mut().map(|line| &mut line.dead_of_origin)) {
            let resolved = list.iter().flat_map(|blocks| {
                let parts = relocations.resolve(blocks.place, blocks.count);
                parts.into_iter().map(|(place, count)| Stretch {
                    place,
                    count,
                    ..*blocks
                })
            });
            *list = resolved.collect();
        }
    }

    fn begin(&mut self, origin: Option<SnapshotId>) -> LineId {
        let id = LineId(self.next_line);
        self.next_line += 1;
        let line = Line {
            origin,
            has_head: true,
            ..Line::default()
        };
        self.lines.insert(id, line);
        id
    }

    fn with_head(&self, id: LineId) -> Result<&Line, SnapshotError> {
        let line = self.lines.get(&id).filter(|line| line.has_head);
        line.ok_or(SnapshotError::NoHead(id))
    }

    fn line_mut(&mut self, id: LineId) -> &mut Line {
        self.lines
            .get_mut(&id)
            .expect("lines are there as long as they are named")
    }

    fn snapshot_mut(&mut self, id: SnapshotId) -> &mut Snapshot {
        let snapshot = self.snapshots.get_mut(&id);
        snapshot.expect("snapshots are there as long as lines name them")
    }

    /// The snapshot before a line's end: its newest, or its origin.
    fn newest(&self, line: &Line) -> Option<SnapshotId> {
        line.snapshots.last().copied().or(line.origin)
    }

    fn list_of_newest(&mut self, id: LineId) -> &mut Vec<Stretch> {
        match self.line_mut(id).snapshots.last().copied() {
            Some(newest) => &mut self.snapshot_mut(newest).dead,
            None => &mut self.line_mut(id).dead_of_origin,
        }
    }

    /// Whether blocks were born after a snapshot, so that neither it nor one before it names them.
    fn is_unknown_to(&self, snapshot: Option<SnapshotId>, blocks: &Stretch) -> bool {
        snapshot.is_none_or(|snapshot| blocks.birth > self.snapshots[&snapshot].commit)
    }

    /// After the last state of a line went: nothing comes after its newest snapshot, so that one's list says nothing.
    fn close(&mut self, id: LineId) {
        self.list_of_newest(id).clear();
        let line = &self.lines[&id];
        if !line.snapshots.is_empty() {
            return self.join(id);
        }
        let origin = line.origin;
        self.lines.remove(&id);
        if let Some(origin) = origin {
            let origin = self.snapshot_mut(origin);
            origin.clones -= 1;
            let line = origin.line;
            self.join(line);
        }
    }

    /// A line that ends in a snapshot with one clone goes on in that clone. So a rollback is forgotten with the states that
    /// it turned away from, and its snapshot can be deleted like others.
    fn join(&mut self, id: LineId) {
        let line = &self.lines[&id];
        let newest = line.snapshots.last().copied().filter(|_| !line.has_head);
        let Some(newest) = newest.filter(|newest| self.snapshots[newest].clones == 1) else {
            return;
        };
        let mut lines = self.lines.iter();
        let clone = lines.find(|(_, line)| line.origin == Some(newest)).map(|(id, _)| *id);
        let clone = clone.expect("clones are lines");
        let mut line = self.lines.remove(&id).expect("it was found above");
        for snapshot in &line.snapshots {
            self.snapshot_mut(*snapshot).line = clone;
        }
        let after = self.line_mut(clone);
        let dead = std::mem::replace(&mut after.dead_of_origin, line.dead_of_origin);
        line.snapshots.append(&mut after.snapshots);
        (after.snapshots, after.origin) = (line.snapshots, line.origin);
        let newest = self.snapshot_mut(newest);
        (newest.dead, newest.clones) = (dead, 0);
    }
}

#[cfg(test)]
mod tests;
