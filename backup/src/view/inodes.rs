//! Inode numbers: a hash of what they stand for, so that they are the same in every mount, and a table of those that the
//! kernel knows, so that a number leads back to a place. The kernel says when it forgets one; that bounds the table.

use std::collections::HashMap;

use proto::log_record::{Content, EntryKind};

use super::{Node, Place};

/// Numbers below are ours; 1 is the top.
const HASHED_MIN: u64 = 16;

impl Node {
    /// Its inode number, and what tells it from others that hash to the same.
    fn identity(&self) -> (u64, u64) {
        match self.place {
            Place::Top => return (1, 0),
            Place::Ids => return (2, 0),
            Place::Dates => return (3, 0),
            Place::Latest => return (4, 0),
            _ => {}
        }
        let mut hasher = blake3::Hasher::new();
        match &self.place {
            Place::Snapshot(seq) => drop(hasher.update(b"snapshot").update(&seq.to_le_bytes())),
            Place::Date(seq) => drop(hasher.update(b"date").update(&seq.to_le_bytes())),
            Place::Entry {
                snapshot,
                directory,
                name,
            } => {
                hasher.update(&snapshot.to_le_bytes());
                if self.has_other_names() {
                    hasher.update(b"linked");
                    hasher.update(&self.entry.meta.device.to_le_bytes());
                    hasher.update(&self.entry.meta.inode.to_le_bytes());
                } else {
                    hasher.update(&directory.to_le_bytes()).update(name);
                }
                // A file that changed while it was backed up is amended: what the kernel has of it must not be taken for
                // the new content.
                match &self.entry.content {
                    Content::None => {}
                    Content::Inline(bytes) => drop(hasher.update(b"/here").update(bytes)),
                    Content::Version(version) => drop(hasher.update(b"/version").update(&version.0.to_le_bytes())),
                }
            }
            _ => {}
        }
        let mut bytes = [0; 16];
        hasher.finalize_xof().fill(&mut bytes);
        let (number, check) = bytes.split_at(8);
        let word = |half: &[u8]| half.iter().fold(0u64, |word, byte| word << 8 | u64::from(*byte));
        (word(number).max(HASHED_MIN), word(check))
    }

    /// Whether other names of its snapshot may be the same file.
    pub fn has_other_names(&self) -> bool {
        self.entry.meta.links > 1 && self.entry.kind != EntryKind::Directory
    }

    /// Its inode number, unless that is taken.
    pub fn number(&self) -> u64 {
        self.identity().0
    }
}

struct Held {
    place: Place,
    check: u64,
    lookups: u64,
}

/// The numbers that the kernel knows.
#[derive(Default)]
pub struct Inodes {
    held: HashMap<u64, Held>,
}

impl Inodes {
    /// Counts one more look-up of a node; returns its number.
    pub fn note(&mut self, node: &Node) -> u64 {
        let (mut number, check) = node.identity();
        loop {
            let held = self.held.entry(number).or_insert_with(|| Held {
                place: node.place.clone(),
                check,
                lookups: 0,
            });
            if held.check == check {
                held.lookups += 1;
                return number;
            }
            number = number.checked_add(1).unwrap_or(HASHED_MIN);
        }
    }

    /// Where the node of a number is; the top is always known.
    pub fn place(&self, number: u64) -> Option<Place> {
        match number {
            1 => Some(Place::Top),
            _ => self.held.get(&number).map(|held| held.place.clone()),
        }
    }

    /// The kernel forgets so many look-ups of a number.
    pub fn forget(&mut self, number: u64, lookups: u64) {
        if let Some(held) = self.held.get_mut(&number) {
            held.lookups = held.lookups.saturating_sub(lookups);
            if held.lookups == 0 {
                self.held.remove(&number);
            }
        }
    }

    /// How many are known.
    pub fn len(&self) -> usize {
        self.held.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }
}
