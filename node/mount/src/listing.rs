//! An open folder that is read by position, batch by batch: a position is found again without reading everything before it.

use backup::view::{Node, Place, View};
use database::DbError;

/// Entries of a batch. Chosen: some hundred kilobytes, one query's cost for many of the kernel's reads.
const BATCH_ENTRIES: usize = 1024;

/// An open folder.
pub(super) struct Listing {
    place: Place,
    /// The name after which each batch begins, as far as the folder was read.
    starts: Vec<Vec<u8>>,
    batch: Option<(usize, Vec<Node>)>,
}

impl Listing {
    pub(super) fn new(place: Place) -> Self {
        Self {
            place,
            starts: vec![Vec::new()],
            batch: None,
        }
    }

    /// The folder itself.
    pub(super) fn place(&self) -> &Place {
        &self.place
    }

    /// The entries from a position on, as many as are at hand; none at the end. Positions are reached in order: one that
    /// lies beyond what was read before is the end.
    pub(super) fn from(&mut self, view: &View, position: usize) -> Result<&[Node], DbError> {
        let number = position / BATCH_ENTRIES;
        let Some(start) = self.starts.get(number) else {
            return Ok(&[]);
        };
        if self.batch.as_ref().is_none_or(|(at, _)| *at != number) {
            let nodes = view.list(&self.place, start, BATCH_ENTRIES)?;
            let next = nodes.last().map(|last| last.entry.name.clone());
            if let Some(next) = next
                && nodes.len() == BATCH_ENTRIES
                && self.starts.len() == number + 1
            {
                self.starts.push(next);
            }
            self.batch = Some((number, nodes));
        }
        let nodes = self.batch.as_ref().map_or(&[][..], |(_, nodes)| nodes);
        Ok(nodes.get(position % BATCH_ENTRIES..).unwrap_or_default())
    }
}
