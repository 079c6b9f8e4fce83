//! What a peer says that it holds, batch by batch: never more than a peer can hold, nor for longer than saying so takes.
//!
//! Whatever a peer answers, the list ends: ids ascend (docs/protocol/share.md), there is a most, and there is a time. One who
//! says anything else has given no list at all: what it said before is no better.

use std::time::Duration;

use proto::id::ShareId;
use proto::share_store::{PeerStore, StoreError};
use proto::wire::frame::IDS_MAX;
use tokio::time::Instant;

/// Most shares that one peer is believed to hold for an account. Chosen: a TiB of the smallest shares, 16 TiB of the largest;
/// their ids take 128 MiB of memory.
pub const LISTED_MAX: usize = 1 << 22;
/// How long a peer may take for a batch. Chosen: as long as a slow line needs for it, thrice.
const BATCH_TIME: Duration = Duration::from_secs(60);
/// How long a peer may take for all of its batches. Chosen: a million ids over a line of half a Mbit/s.
const LIST_TIME: Duration = Duration::from_secs(600);

/// Which of a peer's shares are listed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Shelf {
    /// Those it keeps.
    Kept,
    /// Those in its trash.
    Trash,
}

/// A list that is being asked for.
pub struct Batches<'a> {
    store: &'a dyn PeerStore,
    shelf: Shelf,
    after: Option<ShareId>,
    left: usize,
    /// Of its time, not of ours: what is done between two batches does not count.
    time_left: Duration,
}

impl<'a> Batches<'a> {
    /// Nothing is asked for yet.
    pub fn new(store: &'a dyn PeerStore, shelf: Shelf) -> Self {
        Self {
            store,
            shelf,
            after: None,
            left: LISTED_MAX,
            time_left: LIST_TIME,
        }
    }

    /// The next batch, ascending; none behind the last. After an error there is no more to be had.
    pub async fn next(&mut self) -> Result<Option<Vec<ShareId>>, StoreError> {
        let asked = async {
            match self.shelf {
                Shelf::Kept => self.store.list(self.after, IDS_MAX).await,
                Shelf::Trash => self.store.list_trash(self.after, IDS_MAX).await,
            }
        };
        let begun = Instant::now();
        let batch = tokio::time::timeout(self.time_left.min(BATCH_TIME), asked).await;
        self.time_left = self.time_left.saturating_sub(begun.elapsed());
        let batch = batch.unwrap_or_else(|_late| Err(unlisted("it took too long")))?;
        let Some(last) = batch.last().copied() else {
            return Ok(None);
        };
        let is_behind = batch
            .first()
            .is_some_and(|first| self.after.is_none_or(|after| after < *first));
        if !is_behind || !batch.is_sorted_by(|a, b| a < b) {
            return Err(lie("its ids do not ascend"));
        }
        let left = self.left.checked_sub(batch.len());
        self.left = left.ok_or_else(|| lie("it lists more than anybody holds"))?;
        self.after = Some(last);
        Ok(Some(batch))
    }

    /// All batches in one, ascending.
    pub async fn all(mut self) -> Result<Vec<ShareId>, StoreError> {
        let mut ids = Vec::new();
        while let Some(batch) = self.next().await? {
            ids.extend(batch);
        }
        Ok(ids)
    }
}

fn unlisted(reason: &str) -> StoreError {
    StoreError::Unreachable {
        reason: format!("Its list of shares did not come: {reason}"),
    }
}

fn lie(reason: &str) -> StoreError {
    StoreError::Corrupt {
        reason: format!("Its list of shares is not believed: {reason}"),
    }
}

#[cfg(test)]
mod tests;
