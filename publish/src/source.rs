//! Reading a file so that what is sent is what was there at one moment, or not at all.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use data_encoding::HEXLOWER;
use futures::{Stream, stream};
use md5::{Digest, Md5};

use crate::walk::Stat;

/// Times this close to the reading prove nothing: file systems round them, to two seconds at worst (FAT).
const RACY_NS: i64 = 2_000_000_000;
/// Readings of a file that changes meanwhile.
const READINGS_MAX: u32 = 3;
/// Read at once when a file is only hashed, in bytes.
const BUFFER_BYTES: usize = 256 << 10;

/// A file that cannot be published now.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SourceError {
    /// The system says no.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// Somebody writes it.
    #[error("it changes while it is read")]
    Changing,
}

/// A small file.
#[derive(Clone, Debug)]
pub(crate) struct Contents {
    pub bytes: Bytes,
    pub stat: Stat,
    pub is_racy: bool,
}

/// A file and what it was like when it was opened.
pub(crate) struct Opened {
    file: File,
    pub stat: Stat,
    pub is_racy: bool,
}

impl Opened {
    /// Opens a file.
    pub fn new(path: &Path) -> Result<Self, SourceError> {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default()
            .as_nanos();
        let file = File::open(path)?;
        let stat = fstat(&file)?;
        let is_racy = is_racy(&stat, i64::try_from(now).unwrap_or(i64::MAX));
        Ok(Self { file, stat, is_racy })
    }

    /// Up to `max` bytes, fewer only at the end.
    fn read(&mut self, max: usize) -> std::io::Result<Vec<u8>> {
        let mut bytes = Vec::with_capacity(max);
        (&mut self.file).take(max as u64).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    fn is_same(&self) -> std::io::Result<bool> {
        Ok(fstat(&self.file)? == self.stat)
    }
}

fn fstat(file: &File) -> std::io::Result<Stat> {
    Ok((&rustix::fs::fstat(file)?).into())
}

/// Whether a later change could leave the times as they are.
fn is_racy(stat: &Stat, now_ns: i64) -> bool {
    stat.mtime_ns.max(stat.ctime_ns) > now_ns.saturating_sub(RACY_NS)
}

/// Reads a file that has at most `bytes_max` bytes.
pub(crate) fn read(path: &Path, bytes_max: u64) -> Result<Contents, SourceError> {
    for _ in 0..READINGS_MAX {
        let mut opened = Opened::new(path)?;
        if opened.stat.bytes > bytes_max {
            break;
        }
        // One more than there should be: a file that grew is noticed.
        let bytes = opened.read(opened.stat.bytes as usize + 1)?;
        if bytes.len() as u64 == opened.stat.bytes && opened.is_same()? {
            return Ok(Contents {
                bytes: bytes.into(),
                stat: opened.stat,
                is_racy: opened.is_racy,
            });
        }
    }
    Err(SourceError::Changing)
}

/// A large file: what it was like, its hash, and the ETag that it has in parts of so many bytes.
pub(crate) fn hash(path: &Path, part_bytes: u64) -> Result<(Opened, [u8; 32], String), SourceError> {
    let mut opened = Opened::new(path)?;
    let (mut whole, mut parts, mut part) = (blake3::Hasher::new(), Md5::new(), Md5::new());
    let (mut in_part, mut count) = (0, 0);
    loop {
        let room = usize::try_from(part_bytes - in_part).unwrap_or(usize::MAX);
        let bytes = opened.read(BUFFER_BYTES.min(room))?;
        whole.update(&bytes);
        part.update(&bytes);
        in_part += bytes.len() as u64;
        if in_part == part_bytes || (bytes.is_empty() && in_part > 0) {
            parts.update(part.finalize_reset());
            (in_part, count) = (0, count + 1);
        }
        if bytes.is_empty() {
            break;
        }
    }
    if !opened.is_same()? {
        return Err(SourceError::Changing);
    }
    let etag = format!("{}-{count}", HEXLOWER.encode(&parts.finalize()));
    Ok((opened, *whole.finalize().as_bytes(), etag))
}

/// The MD5 that is the ETag of an object put in one piece.
pub(crate) fn etag(bytes: &[u8]) -> String {
    HEXLOWER.encode(&Md5::digest(bytes))
}

/// A hash that is complete when its stream has ended.
pub(crate) type StreamHash = Arc<std::sync::Mutex<blake3::Hasher>>;

/// The parts of a file, hashed as they pass; an error instead of the end if the file changed meanwhile.
pub(crate) fn parts(
    opened: Opened,
    part_bytes: u64,
    hash: StreamHash,
) -> impl Stream<Item = std::io::Result<Bytes>> + Send {
    stream::try_unfold(Some((opened, 0)), move |state| {
        let hash = hash.clone();
        async move {
            let Some((mut opened, read)) = state else {
                return Ok(None);
            };
            let work = move || {
                let bytes = opened.read(usize::try_from(part_bytes).unwrap_or(usize::MAX))?;
                let read = read + bytes.len() as u64;
                hash.lock()
                    .unwrap_or_else(std::sync::PoisonError::into_inner)
                    .update(&bytes);
                let is_end = read >= opened.stat.bytes || bytes.is_empty();
                if is_end && (read != opened.stat.bytes || !opened.is_same()?) {
                    return Err(std::io::Error::other(SourceError::Changing));
                }
                Ok((Bytes::from(bytes), (!is_end).then_some((opened, read))))
            };
            let read = tokio::task::spawn_blocking(work).await.map_err(std::io::Error::other)?;
            read.map(Some)
        }
    })
}

#[cfg(test)]
mod tests {
    use futures::TryStreamExt;

    use super::*;

    #[test]
    fn times_near_the_reading_prove_nothing() {
        let stat = |mtime_ns, ctime_ns| Stat {
            mtime_ns,
            ctime_ns,
            ..Stat::default()
        };
        assert!(is_racy(&stat(10_000_000_000, 0), 11_000_000_000));
        assert!(is_racy(&stat(0, 99_000_000_000), 11_000_000_000));
        assert!(!is_racy(&stat(1, 2), 11_000_000_000));
    }

    #[tokio::test]
    async fn parts_hash_like_the_whole_and_tell_of_changes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        std::fs::write(&path, b"0123456789").unwrap();
        let hasher = StreamHash::default();
        let found: Vec<Bytes> = parts(Opened::new(&path).unwrap(), 4, hasher.clone())
            .try_collect()
            .await
            .unwrap();
        assert_eq!(found, [&b"0123"[..], b"4567", b"89"]);
        let (_, whole, etag) = hash(&path, 4).unwrap();
        assert_eq!(
            (hasher.lock().unwrap().finalize().as_bytes(), &whole),
            (&whole, blake3::hash(b"0123456789").as_bytes())
        );
        let md5 = |bytes: &[u8]| Md5::digest(bytes).to_vec();
        let expected = md5(&[md5(b"0123"), md5(b"4567"), md5(b"89")].concat());
        assert_eq!(etag, format!("{}-3", HEXLOWER.encode(&expected)));
        let opened = Opened::new(&path).unwrap();
        std::fs::write(&path, b"0123456").unwrap();
        let changed: Result<Vec<_>, _> = parts(opened, 4, StreamHash::default()).try_collect().await;
        assert_eq!(changed.unwrap_err().to_string(), "it changes while it is read");
        assert!(matches!(read(&path, 3), Err(SourceError::Changing)));
        assert_eq!(read(&path, 9).unwrap().bytes, &b"0123456"[..]);
    }
}
