//! Places that keep shares: folders and removable disks, buckets, and what this node keeps for friends.
//!
//! Leaves out: how friends are reached (`friendnet`), and whatever a share says: all is ciphertext here.
//!
//! Whoever adds a kind of place adds its file, and what a URL says to name one: the only place where such a URL is taken apart.
//! What follows from the kind is said in the engine's `kind`.

use std::fmt;
use std::path::Path;

use s3::Location;

pub mod bucket;
pub mod folder;
pub mod removable;
pub mod silence;

pub mod guests;
pub mod heard;
pub mod kept;
pub mod offer;
pub mod partial;
pub mod passing;
pub mod room;
pub mod scrub;
pub mod shelf;

/// What the URL of a folder begins with.
const FOLDER: &str = "dir:";
/// What the URL of a bucket begins with.
const BUCKET: &str = "s3://";

/// A peer that is no friend, as config.toml and the command line name it. Written, it is the URL.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PeerUrl<'a> {
    /// `dir:PATH`.
    Folder(&'a Path),
    /// `s3://BUCKET[/PREFIX]`, perhaps with options.
    Bucket(&'a str),
}

impl<'a> PeerUrl<'a> {
    /// What it names; none if it begins like no URL of a peer.
    pub fn of(url: &'a str) -> Option<Self> {
        match url.strip_prefix(FOLDER) {
            Some(path) => Some(Self::Folder(Path::new(path))),
            None => url.starts_with(BUCKET).then_some(Self::Bucket(url)),
        }
    }

    /// The folder, if it is one.
    pub fn folder(self) -> Option<&'a Path> {
        match self {
            Self::Folder(path) => Some(path),
            Self::Bucket(_) => None,
        }
    }

    /// The bucket's URL, if it is one.
    pub fn bucket(self) -> Option<&'a str> {
        match self {
            Self::Bucket(url) => Some(url),
            Self::Folder(_) => None,
        }
    }

    /// What it names, or what is wrong with it.
    pub fn check(url: &'a str) -> Result<Self, String> {
        let named = Self::of(url).ok_or_else(|| format!("`{url}` is neither dir:PATH nor s3://BUCKET[/PREFIX]"))?;
        match named {
            Self::Folder(path) if path.is_absolute() => Ok(named),
            Self::Folder(path) => Err(format!("`{}` is no absolute path", path.display())),
            Self::Bucket(url) => match Location::parse(url) {
                Ok(_) => Ok(named),
                Err(error) => Err(error.to_string()),
            },
        }
    }
}

impl fmt::Display for PeerUrl<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Folder(path) => write!(f, "{FOLDER}{}", path.display()),
            Self::Bucket(url) => f.write_str(url),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_written_as_they_are_read() {
        for (url, named) in [
            ("dir:/media/usb", PeerUrl::Folder(Path::new("/media/usb"))),
            ("s3://bucket/prefix/", PeerUrl::Bucket("s3://bucket/prefix/")),
        ] {
            assert_eq!(PeerUrl::check(url), Ok(named));
            assert_eq!(named.to_string(), url);
        }
    }

    #[test]
    fn what_names_no_peer_is_refused() {
        for (url, reason) in [
            ("dir:usb", "`usb` is no absolute path"),
            ("dir:", "`` is no absolute path"),
            (
                "/media/usb",
                "`/media/usb` is neither dir:PATH nor s3://BUCKET[/PREFIX]",
            ),
            ("s3:bucket", "`s3:bucket` is neither dir:PATH nor s3://BUCKET[/PREFIX]"),
        ] {
            assert_eq!(PeerUrl::check(url), Err(reason.to_owned()));
        }
        assert!(PeerUrl::check("s3://").is_err());
    }
}
