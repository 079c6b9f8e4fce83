//! One file: read, compared with what is known, compressed, sent.
//!
//! Leaves out: recording it; the pool does that, for all that ended together.

use std::sync::Arc;

use s3::{Client, Condition, Headers, part_bytes};
use tokio::sync::Semaphore;

use crate::compress::compress;
use crate::event::Event;
use crate::index::{Index, IndexError, Row, State};
use crate::plan::{Known, Step, Work};
use crate::source::{self, Opened, SourceError, StreamHash};
use crate::walk::Stat;

/// Files up to this length are read whole, compressed if that is asked for, and put in one request. In bytes.
const WHOLE_BYTES_MAX: u64 = 8 << 20;
/// Parts of one file on their way at once.
const PARTS_PARALLEL: usize = 4;
/// Memory for bytes on their way, over all workers, in KiB.
const MEMORY_KIB: u32 = 48 << 10;

/// What all workers share.
#[derive(Clone)]
pub(crate) struct Workshop {
    pub client: Client,
    pub index: Arc<Index>,
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
}

/// A file that was not published.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WorkError {
    #[error(transparent)]
    Source(#[from] SourceError),
    #[error(transparent)]
    S3(#[from] s3::Error),
    #[error(transparent)]
    Index(#[from] IndexError),
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
    pub fn new(client: Client, index: Arc<Index>, dry_run: bool) -> Self {
        Self {
            client,
            index,
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
                    headers: headers(&work, &work.stat, None),
                };
                self.change_headers(&work, read, etag).await
            }
            _ if work.stat.bytes <= WHOLE_BYTES_MAX => self.whole(&work).await,
            _ => self.in_parts(&work).await,
        }
    }

    async fn whole(&self, work: &Work) -> Result<Done, WorkError> {
        // Twice: what was read, and what it is compressed to.
        let kib = u32::try_from(2 * work.stat.bytes / 1024 + 16).unwrap_or(MEMORY_KIB);
        let _memory = self.memory.acquire_many(kib.min(MEMORY_KIB)).await;
        let path = work.path.clone();
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
            let contents = source::read(&path, WHOLE_BYTES_MAX)?;
            let hash = *blake3::hash(&contents.bytes).as_bytes();
            if known == Some(hash) && are_headers_same {
                return Ok((contents, hash, None, None));
            }
            let (body, encoding) = compress(contents.bytes.clone(), how);
            Ok((contents, hash, Some(body), encoding))
        };
        let (contents, hash, body, encoding) = blocking(reading).await?;
        let headers = headers(work, &contents.stat, encoding);
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
            Step::Read(Known::Etag(etag)) if *etag == source::etag(&body) => {
                return self.change_headers(work, read, etag).await;
            }
            _ => {}
        }
        let sent_bytes = body.len() as u64;
        let stored = if self.dry_run {
            s3::Stored::default()
        } else {
            self.in_doubt(work).await?;
            self.client
                .put(&work.key, body, &read.headers, &Condition::Always)
                .await?
        };
        Ok(uploaded(work, read, stored, sent_bytes))
    }

    async fn in_parts(&self, work: &Work) -> Result<Done, WorkError> {
        let part_bytes = part_bytes(work.stat.bytes);
        let path = work.path.clone();
        if let Step::Read(Known::Content { .. } | Known::Etag(_)) = &work.step {
            let (opened, hash, found) = blocking(move || source::hash(&path, part_bytes)).await?;
            let headers = headers(work, &opened.stat, None);
            let read = Read {
                stat: opened.stat,
                is_racy: opened.is_racy,
                hash,
                headers,
            };
            match &work.step {
                Step::Read(Known::Content { hash: old, etag }) if *old == hash => {
                    return match &work.row {
                        Some(row) if row.headers == work.wish.headers_hash() => Ok(done(work, read, Some(row))),
                        _ => self.change_headers(work, read, etag).await,
                    };
                }
                Step::Read(Known::Etag(etag)) if *etag == found => return self.change_headers(work, read, etag).await,
                _ => {}
            }
        }
        let kib = (PARTS_PARALLEL as u64 + 1) * part_bytes / 1024;
        let _memory = self
            .memory
            .acquire_many(u32::try_from(kib).unwrap_or(MEMORY_KIB).min(MEMORY_KIB))
            .await;
        let path = work.path.clone();
        let opened = blocking(move || Opened::new(&path)).await?;
        let (stat, is_racy) = (opened.stat, opened.is_racy);
        let (headers, hash) = (headers(work, &stat, None), StreamHash::default());
        let stored = if self.dry_run {
            s3::Stored::default()
        } else {
            self.in_doubt(work).await?;
            self.send_parts(work, opened, &headers, hash.clone()).await?
        };
        let hash = *hash
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .finalize()
            .as_bytes();
        Ok(uploaded(
            work,
            Read {
                stat,
                is_racy,
                hash,
                headers,
            },
            stored,
            stat.bytes,
        ))
    }

    async fn send_parts(
        &self,
        work: &Work,
        opened: Opened,
        headers: &Headers,
        hash: StreamHash,
    ) -> Result<s3::Stored, WorkError> {
        let length = part_bytes(opened.stat.bytes);
        let begun = self.client.begin_parts(&work.key, headers).await?;
        self.index.parts_begun(&begun)?;
        let pieces = source::parts(opened, length, hash);
        let sent = self
            .client
            .put_parts(&begun, pieces, PARTS_PARALLEL, &Condition::Always)
            .await;
        let Err(error) = sent else { return Ok(sent?) };
        // If this fails too, the next run does it.
        if self.client.abort_parts(&begun).await.is_ok() {
            self.index.parts_ended(&begun)?;
        }
        match error {
            s3::Error::Source { source, .. } => Err(SourceError::Io(source).into()),
            error => Err(error.into()),
        }
    }

    /// Other headers for the bytes that are there.
    async fn change_headers(&self, work: &Work, read: Read, etag: &str) -> Result<Done, WorkError> {
        let stored = if self.dry_run {
            s3::Stored::default()
        } else {
            self.in_doubt(work).await?;
            self.client
                .copy(&work.key, &work.key, &read.headers, Some(etag))
                .await?
        };
        let event = Event::Headers {
            key: s3::shown(&work.key),
        };
        Ok(Done {
            row: row(work, &read, stored),
            sent_bytes: None,
            event: Some(event),
        })
    }

    async fn in_doubt(&self, work: &Work) -> Result<(), WorkError> {
        let (index, key) = (self.index.clone(), work.key.clone());
        let is_known = work.row.is_some();
        let marking = tokio::task::spawn_blocking(move || index.doubt(&key, is_known));
        Ok(marking
            .await
            .map_err(|error| SourceError::Io(std::io::Error::other(error)))??)
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, SourceError> + Send + 'static,
) -> Result<T, SourceError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| SourceError::Io(std::io::Error::other(error)))?
}

/// The wished headers, with what goes by the file.
fn headers(work: &Work, stat: &Stat, encoding: Option<&str>) -> Headers {
    let mut headers = work.wish.headers.clone();
    if let Some(encoding) = encoding {
        headers.content_encoding = Some(encoding.to_owned());
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

fn uploaded(work: &Work, read: Read, stored: s3::Stored, sent_bytes: u64) -> Done {
    let event = Event::Uploaded {
        key: s3::shown(&work.key),
        bytes: read.stat.bytes,
        sent_bytes,
    };
    Done {
        row: row(work, &read, stored),
        sent_bytes: Some(sent_bytes),
        event: Some(event),
    }
}

/// The object is what it should be; only the file's times are new.
fn done(work: &Work, read: Read, old: Option<&Row>) -> Done {
    let stored = old.map(|old| s3::Stored {
        etag: old.etag.clone(),
        version: old.version.clone(),
    });
    Done {
        row: row(work, &read, stored.unwrap_or_default()),
        sent_bytes: None,
        event: None,
    }
}
