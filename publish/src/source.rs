//! Reading a file so that what is sent is what was there at one moment, or not at all.

use std::fs::File;
use std::io::{Read, Seek};
use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use data_encoding::HEXLOWER;
use futures::{Stream, stream};
use md5::{Digest, Md5};
use s3::etag_of;

use crate::compress::{Encoder, is_shorter};
use crate::routes::Compress;
use crate::stat::Stat;

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

    /// A file of ours, from its beginning.
    fn own(mut file: File) -> std::io::Result<Self> {
        file.rewind()?;
        Ok(Self {
            stat: (&rustix::fs::fstat(&file)?).into(),
            file,
            is_racy: false,
        })
    }

    /// All of it.
    pub fn all(mut self) -> Result<Bytes, SourceError> {
        let bytes = self.stat.bytes as usize;
        Ok(self.read(bytes)?.into())
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
    let (hash, etag) = hash_parts(&mut opened, part_bytes)?;
    if !opened.is_same()? {
        return Err(SourceError::Changing);
    }
    Ok((opened, hash, etag))
}

fn hash_parts(opened: &mut Opened, part_bytes: u64) -> std::io::Result<([u8; 32], String)> {
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
    let etag = format!("{}-{count}", HEXLOWER.encode(&parts.finalize()));
    Ok((*whole.finalize().as_bytes(), etag))
}

/// A large file, compressed into a temporary one.
pub(crate) struct Squeezed {
    /// The temporary file; nobody else sees it, and it is gone when this is.
    pub opened: Opened,
    /// What its object has for an ETag.
    pub etag: String,
    /// `Content-Encoding`.
    pub encoding: &'static str,
    /// What the file itself was like.
    pub stat: Stat,
    pub is_racy: bool,
    /// Of the file itself.
    pub hash: [u8; 32],
}

/// Compresses a large file into one in `folder`; none: it does not get shorter. What gets no longer than `whole_bytes_max` will
/// be put in one piece, which its ETag tells.
pub(crate) fn squeeze(
    path: &Path,
    folder: &Path,
    how: Compress,
    whole_bytes_max: u64,
) -> Result<Option<Squeezed>, SourceError> {
    let mut opened = Opened::new(path)?;
    let temporary = |source: std::io::Error| {
        let why = format!("it cannot be compressed in `{}`: {source}", folder.display());
        SourceError::Io(std::io::Error::new(source.kind(), why))
    };
    let mut encoder = Encoder::new(tempfile::tempfile_in(folder).map_err(temporary)?, how);
    let (mut hasher, mut read) = (blake3::Hasher::new(), 0);
    loop {
        let bytes = opened.read(BUFFER_BYTES)?;
        if bytes.is_empty() {
            break;
        }
        hasher.update(&bytes);
        read += bytes.len() as u64;
        encoder.write(&bytes).map_err(temporary)?;
    }
    if read != opened.stat.bytes || !opened.is_same()? {
        return Err(SourceError::Changing);
    }
    let encoding = encoder.encoding();
    let mut shorter = Opened::own(encoder.finish().map_err(temporary)?)?;
    if !is_shorter(shorter.stat.bytes, read) {
        return Ok(None);
    }
    let etag = if shorter.stat.bytes > whole_bytes_max {
        let length = s3::part_bytes(shorter.stat.bytes);
        hash_parts(&mut shorter, length)?.1
    } else {
        let length = usize::try_from(whole_bytes_max).unwrap_or(usize::MAX);
        etag_of(&shorter.read(length)?)
    };
    Ok(Some(Squeezed {
        opened: Opened::own(shorter.file)?,
        etag,
        encoding,
        stat: opened.stat,
        is_racy: opened.is_racy,
        hash: *hasher.finalize().as_bytes(),
    }))
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

    #[test]
    fn large_files_are_compressed_and_leave_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        let text = "all work and no play ".repeat(50_000);
        std::fs::write(&path, &text).unwrap();
        for how in [Compress::Gzip, Compress::Brotli] {
            let squeezed = squeeze(&path, dir.path(), how, 1 << 20).unwrap().unwrap();
            assert_eq!(squeezed.hash, *blake3::hash(text.as_bytes()).as_bytes());
            let small = squeezed.opened.all().unwrap();
            assert_eq!(squeezed.etag, etag_of(&small));
            let mut back = String::new();
            match squeezed.encoding {
                "gzip" => flate2::read::GzDecoder::new(&small[..])
                    .read_to_string(&mut back)
                    .unwrap(),
                _ => brotli::Decompressor::new(&small[..], 4096)
                    .read_to_string(&mut back)
                    .unwrap(),
            };
            assert_eq!((back == text, small.len() < 10_000), (true, true));
            let in_parts = squeeze(&path, dir.path(), how, 0).unwrap().unwrap();
            assert!(in_parts.etag.ends_with("-1"), "{}", in_parts.etag);
        }
        let noise: Vec<u8> = (0..100_000u64)
            .flat_map(|seed| *blake3::hash(&seed.to_le_bytes()).as_bytes())
            .collect();
        std::fs::write(&path, noise).unwrap();
        assert!(squeeze(&path, dir.path(), Compress::Gzip, 0).unwrap().is_none());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
        let error = squeeze(&path, &dir.path().join("nowhere"), Compress::Gzip, 0)
            .err()
            .unwrap();
        assert!(error.to_string().starts_with("it cannot be compressed in "), "{error}");
    }
}
