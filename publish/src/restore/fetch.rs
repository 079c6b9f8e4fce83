//! One object: compared with the file that is there, else fetched beside it, checked, and put in its place.

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use bytes::Bytes;
use md5::{Digest, Md5};
use rustix::fs::{Timespec, Timestamps, UTIME_OMIT, futimens};
use s3::{Client, Error, Headers, Listed, Meta, part_bytes};
use tokio::sync::mpsc;

use super::place::Place;
use crate::mark::{Check, Mark};

/// Pieces of an object that wait to be written.
const PIECES_MAX: usize = 8;
/// Read at once when a file is compared, in bytes.
const BUFFER_BYTES: usize = 256 << 10;
/// Permissions that are restored: what makes a file run as another user is not for a bucket to say.
const MODE_MASK: u32 = 0o777;

/// How an object ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fetched {
    /// It was never a file.
    Skipped,
    /// The file has its bytes.
    Unchanged,
    /// It was fetched, or would be.
    Written { bytes: u64, is_verified: bool },
}

/// An object that did not become a file.
#[derive(Debug, thiserror::Error)]
pub(super) enum FetchError {
    #[error(transparent)]
    S3(#[from] Error),
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error("its bytes are not those that were published")]
    Damaged,
    #[error("its metadata makes no sense: {0}")]
    Metadata(String),
}

/// Makes a file of an object. May be dropped: the file is then what it was.
pub(super) async fn fetch(
    client: &Client,
    object: &Listed,
    place: &Place,
    dry_run: bool,
) -> Result<Fetched, FetchError> {
    let is_there = std::fs::symlink_metadata(&place.path).is_ok_and(|found| found.is_file());
    if is_there || dry_run {
        let meta = client.head(&object.key).await?;
        let about = About::of(&meta)?;
        if is_no_file(&meta.headers) {
            return Ok(Fetched::Skipped);
        }
        let path = place.path.clone();
        let is_same = is_there && blocking(move || about.is_at(&path, dry_run)).await?;
        if is_same {
            return Ok(Fetched::Unchanged);
        }
        if dry_run {
            let bytes = object.bytes;
            return Ok(Fetched::Written {
                bytes,
                is_verified: true,
            });
        }
    }
    let mut download = client.download(&object.key).await?;
    if is_no_file(&download.meta().headers) {
        return Ok(Fetched::Skipped);
    }
    let about = About::of(download.meta())?;
    let (sender, pieces) = mpsc::channel(PIECES_MAX);
    let writing = tokio::task::spawn_blocking({
        let place = place.clone();
        move || write(&place, &about, pieces)
    });
    let mut bytes = 0;
    let received = loop {
        match download.next().await {
            Ok(Some(piece)) => {
                bytes += piece.len() as u64;
                // The writer has ended: it says why.
                if sender.send(Ok(piece)).await.is_err() {
                    break Ok(());
                }
            }
            Ok(None) => break Ok(()),
            Err(error) => {
                let _ended = sender.send(Err(())).await;
                break Err(error);
            }
        }
    };
    drop(sender);
    let written = writing.await.map_err(std::io::Error::other)?;
    received?;
    Ok(Fetched::Written {
        bytes,
        is_verified: written?,
    })
}

/// Made pages and redirects are made anew when the folder is published. A file may redirect, too, if its route says so; and
/// `generated` is a word that anybody may use.
fn is_no_file(headers: &Headers) -> bool {
    let is_published = headers.metadata.contains_key(Mark::NAME);
    headers.metadata.contains_key(Mark::MADE) || (headers.redirect.is_some() && !is_published)
}

/// What the metadata says about the file.
#[derive(Clone, Debug)]
struct About {
    mark: Option<Mark>,
    etag: String,
    bytes: u64,
    mtime: Option<Timespec>,
    mode: Option<u32>,
}

impl About {
    fn of(meta: &Meta) -> Result<Self, FetchError> {
        let metadata = &meta.headers.metadata;
        let wrong = |name: &str| FetchError::Metadata(format!("{name}={}", metadata[name]));
        let mark = metadata.get(Mark::NAME);
        let mark = mark.map(|text| Mark::parse(text).ok_or_else(|| wrong(Mark::NAME)));
        // Others write these, too: what cannot be read is nobody's time or mode.
        let mode = metadata.get("mode").and_then(|text| u32::from_str_radix(text, 8).ok());
        Ok(Self {
            mark: mark.transpose()?,
            etag: meta.etag.clone(),
            bytes: meta.bytes,
            mtime: metadata.get("mtime").and_then(|text| time(text)),
            mode: mode.map(|mode| mode & MODE_MASK),
        })
    }

    /// Whether the ETag says so; none: it does not say.
    fn is_etag(&self, sums: &Sums) -> Option<bool> {
        (sums.etag() == self.etag).then_some(true)
    }

    fn part_bytes(&self) -> u64 {
        match &self.mark {
            Some(Mark {
                check: Check::Parts(bytes),
                ..
            }) => *bytes,
            _ => part_bytes(self.bytes),
        }
    }

    /// The file has the object's bytes; it gets its time and mode.
    fn is_at(&self, path: &Path, dry_run: bool) -> Result<bool, FetchError> {
        let mut file = File::open(path)?;
        let is_encoded = self.mark.as_ref().is_some_and(|mark| mark.encoding.is_some());
        if !is_encoded && file.metadata()?.len() != self.bytes {
            return Ok(false);
        }
        let mut sums = Sums::new(self);
        let mut buffer = vec![0; BUFFER_BYTES];
        loop {
            let read = file.read(&mut buffer)?;
            if read == 0 {
                break;
            }
            sums.plain.update(&buffer[..read]);
            sums.stored(&buffer[..read]);
        }
        let is_same = match self.mark.as_ref().map(|mark| mark.check) {
            Some(Check::Hash(hash)) => *sums.plain.finalize().as_bytes() == hash,
            // What was compressed in parts has no hash of the file: it is fetched again.
            _ => !is_encoded && self.is_etag(&sums) == Some(true),
        };
        if is_same && !dry_run {
            self.dress(&file)?;
        }
        Ok(is_same)
    }

    /// Gives a file its mode and time.
    fn dress(&self, file: &File) -> std::io::Result<()> {
        if let Some(mode) = self.mode {
            file.set_permissions(std::fs::Permissions::from_mode(mode))?;
        }
        if let Some(last_modification) = self.mtime {
            let last_access = Timespec {
                tv_sec: 0,
                tv_nsec: UTIME_OMIT,
            };
            let times = Timestamps {
                last_access,
                last_modification,
            };
            futimens(file, &times)?;
        }
        Ok(())
    }
}

/// As rclone writes it: seconds since 1970, with a fraction.
fn time(text: &str) -> Option<Timespec> {
    let (secs, fraction) = text.split_once('.').unwrap_or((text, ""));
    let nanos = format!("{fraction:0<9}");
    Some(Timespec {
        tv_sec: secs.parse().ok()?,
        tv_nsec: nanos.get(..9)?.parse().ok()?,
    })
}

/// Sums of the stored bytes and of the file's.
struct Sums {
    plain: blake3::Hasher,
    whole: Md5,
    parts: Md5,
    part: Md5,
    in_part: u64,
    count: u64,
    part_bytes: u64,
    is_in_parts: bool,
}

impl Sums {
    fn new(about: &About) -> Self {
        Self {
            plain: blake3::Hasher::new(),
            whole: Md5::new(),
            parts: Md5::new(),
            part: Md5::new(),
            in_part: 0,
            count: 0,
            part_bytes: about.part_bytes(),
            is_in_parts: about.etag.contains('-'),
        }
    }

    fn stored(&mut self, mut bytes: &[u8]) {
        if !self.is_in_parts {
            return self.whole.update(bytes);
        }
        while !bytes.is_empty() {
            let room = usize::try_from(self.part_bytes - self.in_part).unwrap_or(usize::MAX);
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            self.part.update(now);
            self.in_part += now.len() as u64;
            if self.in_part == self.part_bytes {
                self.end_part();
            }
            bytes = later;
        }
    }

    fn end_part(&mut self) {
        self.parts.update(self.part.finalize_reset());
        (self.in_part, self.count) = (0, self.count + 1);
    }

    /// The ETag that S3 gives to these bytes, where it is made of MD5s.
    fn etag(&self) -> String {
        let hex = |md5: Md5| data_encoding::HEXLOWER.encode(&md5.finalize());
        if !self.is_in_parts {
            return hex(self.whole.clone());
        }
        let (mut parts, mut count) = (self.parts.clone(), self.count);
        if self.in_part > 0 {
            parts.update(self.part.clone().finalize());
            count += 1;
        }
        format!("{}-{count}", hex(parts))
    }
}

/// The file's bytes on their way to the disk.
struct Sink {
    file: File,
    plain: blake3::Hasher,
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.plain.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.file.flush()
    }
}

enum Decoder {
    None(Box<Sink>),
    Gzip(Box<flate2::write::MultiGzDecoder<Sink>>),
    Brotli(Box<brotli::DecompressorWriter<Sink>>),
}

impl Decoder {
    fn new(sink: Sink, mark: Option<&Mark>) -> Self {
        match mark.and_then(|mark| mark.encoding.as_deref()) {
            Some("gzip") => Self::Gzip(Box::new(flate2::write::MultiGzDecoder::new(sink))),
            Some(_) => Self::Brotli(Box::new(brotli::DecompressorWriter::new(sink, BUFFER_BYTES))),
            None => Self::None(Box::new(sink)),
        }
    }

    fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        match self {
            Self::None(sink) => sink.write_all(bytes),
            Self::Gzip(decoder) => decoder.write_all(bytes),
            Self::Brotli(decoder) => decoder.write_all(bytes),
        }
    }

    fn finish(self) -> Result<Sink, FetchError> {
        match self {
            Self::None(sink) => Ok(*sink),
            Self::Gzip(decoder) => Ok(decoder.finish()?),
            Self::Brotli(mut decoder) => {
                decoder.close()?;
                decoder.into_inner().map_err(|_| FetchError::Damaged)
            }
        }
    }
}

/// Writes what comes beside the place, checks it, and puts it there; true if more than its length was checked.
fn write(place: &Place, about: &About, mut pieces: mpsc::Receiver<Result<Bytes, ()>>) -> Result<bool, FetchError> {
    place.make_folders()?;
    let path = place.unfinished();
    let ended = (|| {
        // What a killed run left may belong to somebody's mode.
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
        let file = File::options().write(true).create_new(true).open(&path)?;
        let sink = Sink {
            file,
            plain: blake3::Hasher::new(),
        };
        let (mut decoder, mut sums) = (Decoder::new(sink, about.mark.as_ref()), Sums::new(about));
        let mut length = 0;
        while let Some(piece) = pieces.blocking_recv() {
            // The download says why.
            let Ok(piece) = piece else {
                return Err(FetchError::Damaged);
            };
            length += piece.len() as u64;
            sums.stored(&piece);
            decoder.write(&piece)?;
        }
        let sink = decoder.finish()?;
        let is_etag = about.is_etag(&sums) == Some(true);
        let is_verified = match about.mark.as_ref().map(|mark| mark.check) {
            _ if length != about.bytes => return Err(FetchError::Damaged),
            Some(Check::Hash(hash)) if *sink.plain.finalize().as_bytes() != hash => return Err(FetchError::Damaged),
            Some(Check::Hash(_)) => true,
            // Of objects that the endpoint encrypts the ETag is no sum of the bytes.
            _ => is_etag,
        };
        about.dress(&sink.file)?;
        std::fs::rename(&path, &place.path)?;
        Ok(is_verified)
    })();
    if ended.is_err() {
        let _not_there = std::fs::remove_file(&path);
    }
    ended
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, FetchError> + Send + 'static,
) -> Result<T, FetchError> {
    tokio::task::spawn_blocking(work).await.map_err(std::io::Error::other)?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_made_is_no_file() {
        let headers = |names: &[&str], redirect: Option<&str>| Headers {
            metadata: names.iter().map(|name| (name.to_string(), "x".to_owned())).collect(),
            redirect: redirect.map(str::to_owned),
            ..Headers::default()
        };
        assert!(!is_no_file(&headers(&["generated", Mark::NAME], None)));
        assert!(!is_no_file(&headers(&[Mark::NAME], Some("/elsewhere"))));
        assert!(is_no_file(&headers(&[Mark::NAME, Mark::MADE], Some("/elsewhere"))));
        assert!(is_no_file(&headers(&[Mark::NAME, Mark::MADE, "generated"], None)));
        assert!(is_no_file(&headers(&[], Some("/elsewhere"))));
    }

    #[test]
    fn times_are_read_as_they_were_written() {
        let read = |text| time(text).map(|time| (time.tv_sec, time.tv_nsec));
        assert_eq!(read("12.000000005"), Some((12, 5)));
        assert_eq!(read("-3.5"), Some((-3, 500_000_000)));
        assert_eq!(read("12"), Some((12, 0)));
        assert_eq!((read("x"), read("1.x"), read("")), (None, None, None));
    }

    #[test]
    fn sums_are_the_etags_of_the_endpoint() {
        let about = |etag: &str| About {
            mark: Some(Mark::parts(4, None)),
            etag: etag.to_owned(),
            bytes: 10,
            mtime: None,
            mode: None,
        };
        let mut sums = Sums::new(&about("x-3"));
        sums.stored(b"01234");
        sums.stored(b"56789");
        let md5 = |bytes: &[u8]| Md5::digest(bytes).to_vec();
        let parts = [md5(b"0123"), md5(b"4567"), md5(b"89")].concat();
        assert_eq!(
            sums.etag(),
            format!("{}-3", data_encoding::HEXLOWER.encode(&md5(&parts)))
        );
        let mut sums = Sums::new(&about("x"));
        sums.stored(b"abc");
        assert_eq!(sums.etag(), "900150983cd24fb0d6963f7d28e17f72");
    }
}
