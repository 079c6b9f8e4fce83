//! One file: read, compared with what is known, compressed, sent.
//!
//! Leaves out: what a request is conditional on (`send`); recording it: the run does that, for all that ended together.

use std::sync::Arc;

use s3::{Client, Headers};
use tokio::sync::Semaphore;

use crate::compress::compress;
use crate::event::{Drift, Event, Why};
use crate::inventory::{Inventory, InventoryError, Row, State};
use crate::lock::{Lock, LockError};
use crate::mark::Mark;
use crate::plan::{Expected, Known, Source, Step, Work};
use crate::source;
use crate::source::{Contents, SourceError};
use crate::stat::Stat;

mod large;

/// Files up to this length are read whole, compressed if that is asked for, and put in one request. In bytes.
const WHOLE_BYTES_MAX: u64 = 8 << 20;
/// Memory for bytes on their way, over all workers, in KiB.
const MEMORY_KIB: u32 = 48 << 10;

/// What all workers share.
#[derive(Clone)]
pub(crate) struct Workshop {
    pub client: Client,
    pub inventory: Arc<Inventory>,
    pub lock: Lock,
    pub memory: Arc<Semaphore>,
    pub dry_run: bool,
}

/// How a file ended.
#[derive(Clone, Debug)]
pub(crate) struct Done {
    /// What is known now.
    pub row: Row,
    /// Bytes sent; none: the bytes were there.
    pub sent_bytes: Option<u64>,
    /// What there is to tell; nothing if only times were looked at.
    pub event: Option<Event>,
    /// Somebody else had changed the object meanwhile.
    pub drift: Option<Drift>,
}

/// A file that was not published.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WorkError {
    #[error(transparent)]
    Source(#[from] SourceError),
    #[error(transparent)]
    S3(#[from] s3::Error),
    #[error(transparent)]
    Inventory(#[from] InventoryError),
    #[error(transparent)]
    Lock(LockError),
}

impl From<LockError> for WorkError {
    fn from(error: LockError) -> Self {
        match error {
            LockError::S3(error) => Self::S3(error),
            LockError::Inventory(error) => Self::Inventory(error),
            error => Self::Lock(error),
        }
    }
}

/// What is known of a file after it was read.
struct Read {
    stat: Stat,
    is_racy: bool,
    hash: [u8; 32],
    headers: Headers,
}

impl Workshop {
    /// With memory for all workers.
    pub fn new(client: Client, inventory: Arc<Inventory>, lock: Lock, dry_run: bool) -> Self {
        Self {
            client,
            inventory,
            lock,
            memory: Arc::new(Semaphore::new(MEMORY_KIB as usize)),
            dry_run,
        }
    }

    /// Does what the file needs. May be dropped: its key is then in doubt.
    pub async fn work(&self, work: Work) -> Result<Done, WorkError> {
        match (&work.step, &work.row) {
            (Step::Headers { etag }, Some(row)) => {
                let read = Read {
                    stat: work.stat,
                    is_racy: row.state == State::Racy,
                    hash: row.hash,
                    headers: headers(&work, &work.stat, &Mark::whole(row.hash, None)),
                };
                self.change_headers(&work, read, etag).await
            }
            _ => match &work.source {
                Source::File(path) if work.stat.bytes > WHOLE_BYTES_MAX => self.large(&work, path).await,
                _ => self.whole(&work).await,
            },
        }
    }

    async fn whole(&self, work: &Work) -> Result<Done, WorkError> {
        // Twice: what was read, and what it is compressed to.
        let _memory = self.memory(2 * work.stat.bytes / 1024 + 16).await;
        let contents = self.contents(work);
        let how = work.wish.compress;
        let known = match &work.step {
            Step::Read(Known::Content { hash, .. }) => Some(*hash),
            _ => None,
        };
        let are_headers_same = work
            .row
            .as_ref()
            .is_some_and(|row| row.headers == work.wish.headers_hash());
        let reading = move || {
            let contents = contents()?;
            let hash = *blake3::hash(&contents.bytes).as_bytes();
            if known == Some(hash) && are_headers_same {
                return Ok((contents, hash, None, None));
            }
            let (body, encoding) = compress(contents.bytes.clone(), how);
            Ok::<_, WorkError>((contents, hash, Some(body), encoding))
        };
        let (contents, hash, body, encoding) = blocking(reading).await?;
        let headers = headers(work, &contents.stat, &Mark::whole(hash, encoding));
        let read = Read {
            stat: contents.stat,
            is_racy: contents.is_racy,
            hash,
            headers,
        };
        let Some(body) = body else {
            return Ok(done(work, read, work.row.as_ref()));
        };
        match &work.step {
            Step::Read(Known::Content { hash: old, etag }) if *old == hash => {
                return self.change_headers(work, read, etag).await;
            }
            Step::Read(Known::Etag(etag)) if *etag == s3::etag_of(&body) => {
                return self.change_headers(work, read, etag).await;
            }
            _ => {}
        }
        let sent_bytes = body.len() as u64;
        if self.dry_run {
            return Ok(uploaded(work, read, s3::Stored::default(), sent_bytes));
        }
        let sent = self.put(work, body, &read.headers).await?;
        if !sent.is_sent {
            return Ok(Done {
                row: row(work, &read, sent.stored),
                sent_bytes: None,
                event: None,
                drift: None,
            });
        }
        Ok(Done {
            drift: sent.drift,
            ..uploaded(work, read, sent.stored, sent_bytes)
        })
    }

    /// How the bytes of an object up to [`WHOLE_BYTES_MAX`] are read; blocks.
    fn contents(&self, work: &Work) -> impl FnOnce() -> Result<Contents, WorkError> + Send + 'static {
        let (source, key, inventory) = (work.source.clone(), work.key.clone(), self.inventory.clone());
        move || match source {
            Source::File(path) => Ok(source::read(&path, WHOLE_BYTES_MAX)?),
            Source::Made => {
                let bytes = inventory.made(&key)?;
                Ok(Contents {
                    stat: Stat::of_made(&bytes),
                    bytes: bytes.into(),
                    is_racy: false,
                })
            }
        }
    }

    /// Other headers for the bytes that are there.
    async fn change_headers(&self, work: &Work, read: Read, etag: &str) -> Result<Done, WorkError> {
        let stored = if self.dry_run {
            s3::Stored::default()
        } else {
            self.copy(work, &read.headers, etag).await?
        };
        let event = Event::Headers {
            key: s3::shown(&work.key),
        };
        Ok(Done {
            row: row(work, &read, stored),
            sent_bytes: None,
            event: Some(event),
            drift: None,
        })
    }
}

async fn blocking<T: Send + 'static, E: From<SourceError> + Send + 'static>(
    work: impl FnOnce() -> Result<T, E> + Send + 'static,
) -> Result<T, E> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| SourceError::Io(std::io::Error::other(error)))?
}

/// The wished headers, with what goes by the file.
fn headers(work: &Work, stat: &Stat, mark: &Mark) -> Headers {
    let mut headers = work.wish.headers.clone();
    headers.metadata.insert(Mark::NAME.to_owned(), mark.to_string());
    if let Some(encoding) = &mark.encoding {
        headers.content_encoding = Some(encoding.clone());
    }
    if work.source == Source::Made {
        return headers;
    }
    // As rclone writes and reads it: seconds, with a fraction.
    let (secs, nanos) = (
        stat.mtime_ns.div_euclid(1_000_000_000),
        stat.mtime_ns.rem_euclid(1_000_000_000),
    );
    headers
        .metadata
        .entry("mtime".to_owned())
        .or_insert_with(|| format!("{secs}.{nanos:09}"));
    headers
}

fn row(work: &Work, read: &Read, stored: s3::Stored) -> Row {
    Row {
        key: work.key.clone(),
        state: if read.is_racy { State::Racy } else { State::Sure },
        stat: read.stat,
        hash: read.hash,
        etag: stored.etag,
        version: stored.version,
        headers: work.wish.headers_hash(),
        compress: work.wish.compress,
    }
}

fn why(work: &Work) -> Why {
    match (&work.row, &work.expected) {
        (None, Expected::Etag(_)) => Why::Others,
        (None, _) => Why::New,
        (Some(row), _) if row.state == State::Doubt => Why::Interrupted,
        (Some(_), Expected::Absent) => Why::Missing,
        (Some(row), Expected::Etag(etag)) if *etag != row.etag => Why::Others,
        (Some(row), _) if row.compress != work.wish.compress => Why::Stored,
        (Some(_), _) => Why::Content,
    }
}

fn uploaded(work: &Work, read: Read, stored: s3::Stored, sent_bytes: u64) -> Done {
    let event = Event::Uploaded {
        key: s3::shown(&work.key),
        bytes: read.stat.bytes,
        sent_bytes,
        why: why(work),
    };
    Done {
        row: row(work, &read, stored),
        sent_bytes: Some(sent_bytes),
        event: Some(event),
        drift: None,
    }
}

/// The object is what it should be; only the file's times are new.
fn done(work: &Work, read: Read, old: Option<&Row>) -> Done {
    let stored = old.map(|old| s3::Stored {
        etag: old.etag.clone(),
        version: old.version.clone(),
        answered: None,
    });
    Done {
        row: row(work, &read, stored.unwrap_or_default()),
        sent_bytes: None,
        event: None,
        drift: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routes::{Compress, Wish};

    #[test]
    fn a_file_that_was_just_written_is_read_once_more() {
        let stat = Stat::of_made(b"");
        let work = Work {
            key: b"k".to_vec(),
            source: Source::Made,
            stat,
            wish: Wish {
                headers: Headers::default(),
                compress: Compress::None,
            },
            step: Step::Read(Known::Nothing),
            row: None,
            expected: Expected::Absent,
        };
        let row = |is_racy| {
            let (hash, headers) = ([0; 32], Headers::default());
            let read = Read {
                stat,
                is_racy,
                hash,
                headers,
            };
            row(&work, &read, s3::Stored::default())
        };
        assert_eq!((row(true).state, row(false).state), (State::Racy, State::Sure));
    }
}
