//! What was noted about shares of a slot that were given up, as far as it was read. Who writes and reads the notes: `trash`.

use std::collections::BTreeMap;

use jiff::Timestamp;
use proto::id::ShareId;

/// The notes of a slot, as far as they were read.
#[derive(Default)]
pub(super) struct Trash {
    pub(super) is_known: bool,
    pub(super) notes: BTreeMap<u64, Note>,
    /// What the notes amount to: shares in the trash, and the note that put them there.
    pub(super) trashed: BTreeMap<ShareId, u64>,
}

pub(super) struct Note {
    pub(super) modified: Option<Timestamp>,
    /// None: a recall.
    pub(super) discard: Option<[u8; 32]>,
    pub(super) ids: Vec<ShareId>,
}

impl Note {
    /// A note that says nothing. Its number is taken all the same.
    pub(super) fn nothing(modified: Option<Timestamp>) -> Self {
        Self {
            modified,
            discard: None,
            ids: Vec::new(),
        }
    }
}

impl Trash {
    pub(super) fn is_known(&self) -> bool {
        self.is_known
    }

    /// Whether a share whose object was put then is in the trash.
    pub(super) fn has(&self, id: ShareId, put: Option<Timestamp>) -> bool {
        let Some(note) = self.trashed.get(&id).and_then(|number| self.notes.get(number)) else {
            return false;
        };
        match (put, note.modified) {
            (Some(put), Some(given_up)) => put <= given_up,
            _ => true,
        }
    }

    /// When a share was given up that is in the trash.
    pub(super) fn given_up(&self, id: ShareId) -> Option<Timestamp> {
        self.notes.get(self.trashed.get(&id)?)?.modified
    }

    pub(super) fn next(&self) -> u64 {
        self.notes
            .keys()
            .next_back()
            .map_or(1, |number| number.saturating_add(1))
    }

    pub(super) fn add(&mut self, number: u64, note: Note) {
        for id in &note.ids {
            match note.discard {
                Some(_) => self.trashed.insert(*id, number),
                None => self.trashed.remove(id),
            };
        }
        self.notes.insert(number, note);
    }

    /// Keeps the notes with numbers that are wanted, and counts anew.
    pub(super) fn retain(&mut self, is_wanted: impl Fn(u64) -> bool) {
        let notes = std::mem::take(&mut self.notes);
        self.trashed.clear();
        for (number, note) in notes {
            if is_wanted(number) {
                self.add(number, note);
            }
        }
    }

    /// The oldest note but the newest: the next one counts on from that.
    pub(super) fn oldest(&self) -> Option<(u64, &Note)> {
        let (number, note) = self.notes.first_key_value().filter(|_| self.notes.len() > 1)?;
        Some((*number, note))
    }

    /// Hash of the last discard; zeros if there is none.
    pub(super) fn previous(&self) -> [u8; 32] {
        self.notes
            .values()
            .rev()
            .find_map(|note| note.discard)
            .unwrap_or_default()
    }
}
