//! Small files of the home that are replaced as a whole: durable before they have their name, for this user only, and with a
//! checksum, so that a flipped bit is told from an older version of what is inside.
//!
//! One that cannot be read stops nothing. It is set aside under a name that says so, the one before it takes its place if
//! there is one, and what was lost is said: at once in the log, and by `doctor` for as long as the file set aside lies there.

use std::ffi::OsString;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::disk;

/// BLAKE3 of what comes before it.
const SUM_BYTES: usize = 32;
/// Far above what a roster or the invitations take.
const FILE_BYTES_MAX: u64 = 64 << 20;
/// Ending of the name of the file that was replaced last.
const BEFORE: &str = ".before";
/// Part of the name of a file that was set aside.
const DAMAGED: &str = ".damaged-";
/// Names tried for what is set aside. Chosen: more than are set aside in a minute.
const ASIDES_MAX: u64 = 100;

/// A state file that was not there, or not as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lost {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it; none: it is missing.
    pub reason: Option<String>,
    /// Where it lies now, if it could be moved.
    pub aside: Option<PathBuf>,
    /// The one before it is used instead.
    pub is_made_good: bool,
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.reason {
            Some(reason) => write!(f, "{} cannot be read: {reason}", self.path.display())?,
            None => write!(f, "{} is missing", self.path.display())?,
        }
        if let Some(aside) = &self.aside {
            write!(f, "; it was set aside as {}", aside.display())?;
        }
        match self.is_made_good {
            true => f.write_str(". The one before it is used"),
            false => Ok(()),
        }
    }
}

/// Replaces the file; the one that was there is kept beside it.
pub fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    if path.is_file() {
        // A second name of the same bytes: what is replaced is durable already, and is not written again.
        let before = with_ending(path, BEFORE);
        let disk = disk::of(path);
        let kept = match disk.remove(&before) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            _ => disk.link(path, &before),
        };
        if let Err(error) = kept {
            tracing::debug!("{} cannot be kept: {error}", path.display());
        }
    }
    crate::replace(path, &[content, blake3::hash(content).as_bytes()])
}

/// What was written, or what was written before it; nothing if there is neither. `decode` says what is wrong with bytes
/// that are not what is expected. Fails in no case: what cannot be read is lost, and said to be. What was read is durable:
/// who wrote it may have been cut off before.
pub fn read<T>(path: &Path, decode: impl Fn(&[u8]) -> Result<T, String>) -> (Option<T>, Option<Lost>) {
    let reason = match read_checked(path, &decode) {
        Ok(Some(value)) => {
            sync_name(path);
            return (Some(value), None);
        }
        Ok(None) => None,
        Err(reason) => Some(reason),
    };
    let copy = with_ending(path, BEFORE);
    let before = read_checked(&copy, &decode).ok().flatten();
    if reason.is_none() && before.is_none() {
        return (None, None);
    }
    let lost = Lost {
        path: path.to_owned(),
        aside: reason.as_ref().and_then(|_| set_aside(path)),
        reason,
        is_made_good: before.is_some(),
    };
    if before.is_some() {
        // Or it would be missed again by whoever reads it next.
        let _only_read = disk::of(path).link(&copy, path);
        sync_name(path);
    }
    (before, Some(lost))
}

/// Of no consequence for what was read: a disk that takes no writes any more is still read.
fn sync_name(path: &Path) {
    if let Err(error) = crate::sync_directory_of(path) {
        tracing::debug!("The folder of {} cannot be synced: {error}", path.display());
    }
}

fn read_checked<T>(path: &Path, decode: impl Fn(&[u8]) -> Result<T, String>) -> Result<Option<T>, String> {
    let mut bytes = Vec::new();
    match File::open(path).and_then(|file| file.take(FILE_BYTES_MAX).read_to_end(&mut bytes)) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.to_string()),
        Ok(_) => {}
    }
    let damaged = || "its checksum does not match".to_owned();
    let end = bytes.len().checked_sub(SUM_BYTES).ok_or_else(damaged)?;
    if blake3::hash(&bytes[..end]).as_bytes()[..] != bytes[end..] {
        return Err(damaged());
    }
    decode(&bytes[..end]).map(Some)
}

/// Moves a file that cannot be used out of the way, under a name that says so; where it lies then.
pub fn set_aside(path: &Path) -> Option<PathBuf> {
    let now_secs = SystemTime::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_secs());
    // Nothing that was set aside in the same second is written over.
    let asides = (0..ASIDES_MAX).map(|more| with_ending(path, &format!("{DAMAGED}{}", now_secs + more)));
    let aside = { asides }.find(|aside| fs::symlink_metadata(aside).is_err())?;
    crate::relocate(path, &aside)
        .inspect_err(|error| tracing::debug!("{} cannot be moved: {error}", path.display()))
        .ok()
        .map(|()| aside)
}

/// What was set aside in a folder, in order of name.
pub fn all_set_aside(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut found: Vec<_> = entries
        .filter(|entry| entry.file_name().to_string_lossy().contains(DAMAGED))
        .map(|entry| entry.path())
        .collect();
    found.sort_unstable();
    found
}

fn with_ending(path: &Path, ending: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(ending);
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(path: &Path) -> (Option<Vec<u8>>, Option<Lost>) {
        read(path, |bytes| Ok(bytes.to_vec()))
    }

    #[test]
    fn any_flipped_byte_and_any_cut_is_found_and_set_aside() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("roster");
        assert_eq!(bytes(&path), (None, None));
        replace(&path, b"who belongs to the grid").unwrap();
        let whole = fs::read(&path).unwrap();
        for at in 0..whole.len() {
            let mut flipped = whole.clone();
            flipped[at] ^= 1;
            for damaged in [&flipped, &whole[..at]] {
                fs::write(&path, damaged).unwrap();
                let (found, lost) = bytes(&path);
                assert_eq!(found, None);
                let aside = lost.unwrap().aside.unwrap();
                assert_eq!(fs::read(&aside).unwrap(), damaged);
                assert!(all_set_aside(dir.path()).iter().eq([&aside]));
                fs::remove_file(aside).unwrap();
                assert!(!path.exists());
            }
        }
        replace(&path, b"again").unwrap();
        assert_eq!(bytes(&path).0.unwrap(), b"again");
    }

    #[test]
    fn the_one_before_takes_the_place_of_a_lost_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("roster");
        for content in [b"first", b"secnd", b"third"] {
            replace(&path, content).unwrap();
        }
        assert_eq!(bytes(&path), (Some(b"third".to_vec()), None));
        fs::write(&path, b"").unwrap();
        let (found, lost) = bytes(&path);
        assert_eq!(found.unwrap(), b"secnd");
        assert!(lost.unwrap().is_made_good);
        assert_eq!(bytes(&path), (Some(b"secnd".to_vec()), None));
        fs::remove_file(&path).unwrap();
        let (found, lost) = bytes(&path);
        assert_eq!((found.unwrap(), lost.unwrap().reason), (b"secnd".to_vec(), None));
        // In its place is something that is no file at all.
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert_eq!(bytes(&path).0.unwrap(), b"secnd");
        replace(&path, b"fresh").unwrap();
        assert_eq!(bytes(&path), (Some(b"fresh".to_vec()), None));
    }

    #[test]
    fn what_does_not_decode_is_as_good_as_damaged() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("invites");
        replace(&path, b"of a newer version").unwrap();
        let (found, lost) = read(&path, |_| Err::<(), _>("it is of a newer gridbackup".to_owned()));
        assert_eq!(found, None);
        assert!(
            lost.unwrap()
                .to_string()
                .contains("newer gridbackup; it was set aside as")
        );
    }
}
