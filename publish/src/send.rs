//! Requests that change an object: under the lock, marked in the inventory before, and only if the object is still what it was.
//!
//! So a publisher that has lost the lock cannot overwrite what its successor wrote, however late its request arrives.

use bytes::Bytes;
use s3::{Client, Condition, Error, Headers, Meta, Stored};

use crate::event::Drift;
use crate::lock::LockError;
use crate::plan::{Expected, Work};
use crate::source::SourceError;
use crate::worker::{WorkError, Workshop};

/// Attempts to put an object that others keep changing.
const TRIES_MAX: u32 = 3;

/// An object that is there now.
pub(crate) struct Sent {
    pub stored: Stored,
    /// False: it was there already, put by a run that was killed before it heard of it.
    pub is_sent: bool,
    /// How it differed from what the inventory said.
    pub drift: Option<Drift>,
}

impl Workshop {
    /// Takes the lock if need be, marks the key, and says what its object must be.
    pub(crate) async fn begin(&self, work: &Work) -> Result<Condition, WorkError> {
        self.lock.enter().await?;
        self.in_doubt(work).await?;
        if !self.lock.is_conditional() {
            return Ok(Condition::Always);
        }
        Ok(match &work.expected {
            Expected::Etag(etag) => Condition::Is(etag.clone()),
            Expected::Absent => Condition::Absent,
            Expected::Unknown => must_be(self.there(work).await?.as_ref()),
        })
    }

    async fn in_doubt(&self, work: &Work) -> Result<(), WorkError> {
        let (inventory, key) = (self.inventory.clone(), work.key.clone());
        let is_known = work.row.is_some() || matches!(work.expected, Expected::Etag(_));
        let marking = tokio::task::spawn_blocking(move || inventory.doubt(&key, is_known));
        Ok(marking
            .await
            .map_err(|error| SourceError::Io(std::io::Error::other(error)))??)
    }

    /// Puts an object whole. What others wrote in its place is overwritten, after the lock was renewed: then they had none.
    pub(crate) async fn put(&self, work: &Work, body: Bytes, headers: &Headers) -> Result<Sent, WorkError> {
        let (key, body) = (&work.key, &body);
        let mut condition = self.begin(work).await?;
        let sent = |stored, is_sent, drift| Sent { stored, is_sent, drift };
        let mut drift = None;
        for left in (0..TRIES_MAX).rev() {
            let relies_on = &condition;
            let put = |client: Client| async move { client.put(key, body.clone(), headers, relies_on).await };
            match self.lock.write(put).await {
                Ok(stored) => return Ok(sent(stored, true, drift)),
                Err(LockError::S3(Error::Changed(_) | Error::NotFound(_)))
                    if left > 0 && condition != Condition::Always => {}
                Err(error) => return Err(error.into()),
            }
            let there = self.there(work).await?;
            if let Some(meta) = &there
                && is_ours(meta, body, headers)
            {
                // An attempt of ours whose answer was lost.
                return Ok(sent(stored(meta), true, drift));
            }
            self.lock.confirm().await?;
            drift = Some(if there.is_some() {
                Drift::Changed
            } else {
                Drift::Missing
            });
            condition = must_be(there.as_ref());
        }
        Err(Error::Changed(s3::shown(&work.key)).into())
    }

    /// Gives an object with this ETag other headers.
    pub(crate) async fn copy(&self, work: &Work, headers: &Headers, etag: &str) -> Result<Stored, WorkError> {
        self.lock.enter().await?;
        self.in_doubt(work).await?;
        let key = &work.key;
        let copy = |client: Client| async move { client.copy(key, key, headers, Some(etag)).await };
        match self.lock.write(copy).await {
            Err(LockError::S3(error @ Error::Changed(_))) => match self.there(work).await? {
                // A copy of an object in parts has another ETag, and the answer to the first attempt was lost.
                Some(meta) if are_same(&meta.headers, headers) => Ok(stored(&meta)),
                _ => Err(error.into()),
            },
            // rclone gives copies no ETag, and these have the bytes of before.
            Ok(stored) if stored.etag.is_empty() => Ok(Stored {
                etag: etag.to_owned(),
                ..stored
            }),
            ended => Ok(ended?),
        }
    }

    async fn there(&self, work: &Work) -> Result<Option<Meta>, WorkError> {
        match self.client.head(&work.key).await {
            Ok(meta) => Ok(Some(meta)),
            Err(Error::NotFound(_)) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

fn must_be(there: Option<&Meta>) -> Condition {
    there.map_or(Condition::Absent, |meta| Condition::Is(meta.etag.clone()))
}

fn stored(meta: &Meta) -> Stored {
    Stored {
        etag: meta.etag.clone(),
        version: meta.version.clone(),
        answered: meta.answered,
    }
}

fn is_ours(meta: &Meta, body: &Bytes, headers: &Headers) -> bool {
    meta.etag == s3::etag_of(body) && are_same(&meta.headers, headers)
}

/// As far as endpoints tell.
fn are_same(there: &Headers, asked: &Headers) -> bool {
    there.metadata == asked.metadata
        && there.cache_control == asked.cache_control
        && there.content_encoding == asked.content_encoding
}
