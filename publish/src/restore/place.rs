//! Where an object goes: below the target, and nowhere else.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Longest name of a file, in bytes (`NAME_MAX` of every usual file system).
const NAME_BYTES_MAX: usize = 255;

/// A path below the target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    target: PathBuf,
    pub path: PathBuf,
}

impl Place {
    /// Of a key below the prefix; else why it cannot be a file.
    pub fn of(target: &Path, name: &[u8]) -> Result<Self, &'static str> {
        if name.contains(&0) {
            return Err("no file can have this name: it has a NUL");
        }
        let mut path = target.to_owned();
        for part in name.split(|&byte| byte == b'/') {
            match part {
                b"" => return Err("no file can have this name: a part of it is empty"),
                b"." | b".." => return Err("it would lead out of the folder"),
                part if part.len() > NAME_BYTES_MAX => {
                    return Err("no file can have this name: a part of it is too long");
                }
                part => path.push(OsStr::from_bytes(part)),
            }
        }
        Ok(Self {
            target: target.to_owned(),
            path,
        })
    }

    /// Makes the folders on the way. A link among them could lead out of the target.
    pub fn make_folders(&self) -> std::io::Result<()> {
        let below = self.path.strip_prefix(&self.target).unwrap_or(&self.path);
        let mut folder = self.target.clone();
        for part in below.parent().into_iter().flatten() {
            folder.push(part);
            match std::fs::create_dir(&folder) {
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                    if !std::fs::symlink_metadata(&folder)?.is_dir() {
                        let what = format!("`{}` is in the way: it is no folder", folder.display());
                        return Err(std::io::Error::other(what));
                    }
                }
                made => made?,
            }
        }
        Ok(())
    }

    /// What is written before it is whole; the same each time, so that a killed run leaves no more than the next overwrites.
    pub fn unfinished(&self) -> PathBuf {
        let name = self.path.file_name().unwrap_or_default();
        let hash = blake3::hash(name.as_bytes()).to_hex();
        self.path.with_file_name(format!(".gridbackup-restore-{}", &hash[..16]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_could_lead_out_are_refused() {
        let target = Path::new("/t");
        for name in [
            &b""[..],
            b"/etc/x",
            b"a//b",
            b"a/",
            b"..",
            b"a/../../x",
            b"./a",
            b"a\0b",
            &[b'x'; 256],
        ] {
            assert!(Place::of(target, name).is_err(), "{name:?}");
        }
        let place = Place::of(target, "a b/…/caf\u{e9}".as_bytes()).unwrap();
        assert_eq!(place.path, Path::new("/t/a b/…/café"));
        assert_eq!(place.unfinished().parent(), place.path.parent());
    }

    #[test]
    fn nothing_is_written_through_a_link() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("target");
        std::fs::create_dir(&target).unwrap();
        std::os::unix::fs::symlink(dir.path(), target.join("out")).unwrap();
        let place = |name: &[u8]| Place::of(&target, name).unwrap();
        assert!(place(b"out/x").make_folders().is_err());
        assert!(place(b"a/b/x").make_folders().is_ok() && target.join("a/b").is_dir());
    }
}
