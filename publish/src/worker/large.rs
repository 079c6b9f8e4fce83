//! Files over 8 MiB: hashed or compressed into a temporary file, then sent in parts, in bounded memory.

use std::path::Path;

use s3::{Client, Headers, part_bytes};
use tokio::sync::SemaphorePermit;

use super::{Done, MEMORY_KIB, Read, WHOLE_BYTES_MAX, WorkError, Workshop, blocking, done, headers, uploaded};
use crate::lock::LockError;
use crate::mark::Mark;
use crate::plan::{Known, Step, Work};
use crate::routes::Compress;
use crate::source;
use crate::source::{Opened, SourceError, Squeezed, StreamHash};

/// Parts of one file on their way at once.
const PARTS_PARALLEL: usize = 4;

impl Workshop {
    pub(super) async fn large(&self, work: &Work, path: &Path) -> Result<Done, WorkError> {
        let (owned, length) = (path.to_owned(), part_bytes(work.stat.bytes));
        let (mut is_there, mut plain_etag) = (false, None);
        if let Step::Read(known @ (Known::Content { .. } | Known::Etag(_))) = &work.step {
            let (opened, hash, etag) = blocking(move || source::hash(&owned, length)).await?;
            is_there = matches!(known, Known::Content { hash: old, .. } if *old == hash);
            if is_there
                && let Some(row) = &work.row
                && row.headers == work.wish.headers_hash()
            {
                return Ok(done(work, read(&opened, hash, Headers::default()), Some(row)));
            }
            plain_etag = Some((etag, opened, hash));
        }
        // Whether it gets shorter decides over a header, too.
        if let Some(squeezed) = self.squeeze(work, path).await? {
            return self.squeezed(work, squeezed, is_there).await;
        }
        if let (Step::Read(Known::Content { etag: known, .. } | Known::Etag(known)), Some((etag, opened, hash))) =
            (&work.step, plain_etag)
            && (is_there || *known == etag)
        {
            let headers = headers(work, &opened.stat, &Mark::whole(hash, None));
            return self.change_headers(work, read(&opened, hash, headers), known).await;
        }
        let path = path.to_owned();
        let opened = blocking(move || Opened::new(&path)).await?;
        let mark = Mark::parts(part_bytes(opened.stat.bytes), None);
        let read = read(&opened, [0; 32], headers(work, &opened.stat, &mark));
        let (stored, hash) = self.send(work, opened, &read.headers).await?;
        let sent_bytes = read.stat.bytes;
        Ok(uploaded(work, Read { hash, ..read }, stored, sent_bytes))
    }

    /// The file compressed, if that was asked for and makes it shorter. A dry run does not go so far.
    async fn squeeze(&self, work: &Work, path: &Path) -> Result<Option<Squeezed>, WorkError> {
        let how = work.wish.compress;
        let kib = match how {
            _ if self.dry_run => return Ok(None),
            Compress::None => return Ok(None),
            Compress::Gzip => 1 << 10,
            // Its tables for a window of 4 MiB.
            Compress::Brotli => 24 << 10,
        };
        let _memory = self.memory(kib).await;
        let (path, folder) = (path.to_owned(), self.inventory.folder().to_owned());
        Ok(blocking(move || source::squeeze(&path, &folder, how, WHOLE_BYTES_MAX)).await?)
    }

    async fn squeezed(&self, work: &Work, squeezed: Squeezed, is_there: bool) -> Result<Done, WorkError> {
        let Squeezed {
            opened, stat, is_racy, ..
        } = squeezed;
        let read = Read {
            stat,
            is_racy,
            hash: squeezed.hash,
            headers: headers(work, &stat, &Mark::whole(squeezed.hash, Some(squeezed.encoding))),
        };
        match &work.step {
            Step::Read(Known::Content { etag, .. }) if is_there => return self.change_headers(work, read, etag).await,
            Step::Read(Known::Etag(etag)) if *etag == squeezed.etag => {
                return self.change_headers(work, read, etag).await;
            }
            _ => {}
        }
        let sent_bytes = opened.stat.bytes;
        let stored = if sent_bytes > WHOLE_BYTES_MAX {
            self.send(work, opened, &read.headers).await?.0
        } else {
            let _memory = self.memory(sent_bytes / 1024 + 1).await;
            let body = blocking(move || opened.all()).await?;
            self.put(work, body, &read.headers).await?.stored
        };
        Ok(uploaded(work, read, stored, sent_bytes))
    }

    /// Sends what was opened in parts; its hash comes from what passed.
    async fn send(&self, work: &Work, opened: Opened, headers: &Headers) -> Result<(s3::Stored, [u8; 32]), WorkError> {
        if self.dry_run {
            return Ok((s3::Stored::default(), [0; 32]));
        }
        let (length, hash) = (part_bytes(opened.stat.bytes), StreamHash::default());
        let _memory = self.memory((PARTS_PARALLEL as u64 + 1) * length / 1024).await;
        let condition = self.begin(work).await?;
        let begun = self.lock.guard(self.client.begin_parts(&work.key, headers)).await?;
        self.inventory.parts_begun(&begun)?;
        let pieces = source::parts(opened, length, hash.clone());
        let sending = self.client.put_parts(&begun, pieces, PARTS_PARALLEL);
        let ended = match self.lock.guard(sending).await {
            Ok(sent) => {
                let (parts, sent, condition) = (&begun, &sent, &condition);
                let complete = |client: Client| async move { client.complete_parts(parts, sent, condition).await };
                self.lock.write(complete).await
            }
            Err(error) => Err(error),
        };
        let error = match ended {
            Ok(stored) => {
                let hash = hash.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                return Ok((stored, *hash.finalize().as_bytes()));
            }
            Err(LockError::S3(error)) => error,
            // The lock was lost: nothing more is sent, the next run gives the parts up.
            Err(error) => return Err(error.into()),
        };
        // If this fails too, the next run does it.
        if self.client.abort_parts(&begun).await.is_ok() {
            self.inventory.parts_ended(&begun)?;
        }
        match error {
            s3::Error::Source { source, .. } => Err(SourceError::Io(source).into()),
            error => Err(error.into()),
        }
    }

    /// Memory for so many KiB, or for all that there is.
    pub(super) async fn memory(&self, kib: u64) -> Option<SemaphorePermit<'_>> {
        let kib = u32::try_from(kib).unwrap_or(MEMORY_KIB).min(MEMORY_KIB);
        self.memory.acquire_many(kib).await.ok()
    }
}

fn read(opened: &Opened, hash: [u8; 32], headers: Headers) -> Read {
    Read {
        stat: opened.stat,
        is_racy: opened.is_racy,
        hash,
        headers,
    }
}
