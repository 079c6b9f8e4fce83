//! `SNAPSHOT[:PATH]` as people type it.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use api::message::PathName;
use clap::builder::{OsStringValueParser, TypedValueParser, ValueParserFactory};

/// A snapshot by `latest`, a date or an id prefix, and perhaps an absolute path in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotPath {
    /// Which snapshot.
    pub snapshot: String,
    /// Which path.
    pub path: Option<PathName>,
}

impl SnapshotPath {
    /// Splits at the first `:/`, or else, unless the snapshot is a date, at the first colon: a time of day has colons, too.
    /// A path without a leading slash gets one.
    fn parse(typed: &OsStr) -> Result<Self, String> {
        let bytes = typed.as_bytes();
        let is_date = bytes.len() > 4 && bytes[..4].iter().all(u8::is_ascii_digit) && bytes[4] == b'-';
        let before_path = bytes.windows(2).position(|pair| pair == b":/");
        let colon = before_path.or_else(|| match is_date {
            true => None,
            false => bytes.iter().position(|byte| *byte == b':'),
        });
        let (snapshot, path) = match colon {
            Some(colon) => (&bytes[..colon], Some(&bytes[colon + 1..])),
            None => (bytes, None),
        };
        let snapshot = std::str::from_utf8(snapshot)
            .ok()
            .filter(|snapshot| !snapshot.is_empty());
        let snapshot = snapshot
            .ok_or("a snapshot is `latest`, a date or the beginning of an id")?
            .to_owned();
        let path = path
            .filter(|path| !path.is_empty())
            .map(|path| match path.strip_suffix(b"/") {
                Some(b"") | None => path.to_vec(),
                Some(folder) => folder.to_vec(),
            });
        let path = path.map(|path| {
            if path.starts_with(b"/") {
                path
            } else {
                [b"/", &path[..]].concat()
            }
        });
        Ok(Self {
            snapshot,
            path: path.map(PathName),
        })
    }
}

impl ValueParserFactory for SnapshotPath {
    type Parser = clap::builder::ValueParser;

    fn value_parser() -> Self::Parser {
        clap::builder::ValueParser::new(OsStringValueParser::new().try_map(|typed| Self::parse(&typed)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn snapshots_and_paths_are_told_apart() {
        for (typed, snapshot, path) in [
            ("latest", "latest", None),
            ("latest:", "latest", None),
            ("latest:/home", "latest", Some("/home")),
            ("latest:/home/", "latest", Some("/home")),
            ("latest:/", "latest", Some("/")),
            ("ab12:home/x:y", "ab12", Some("/home/x:y")),
            ("2026-11-21", "2026-11-21", None),
            ("2026-11-21T08:15", "2026-11-21T08:15", None),
            ("2026-11-21 08:15:/a:/b", "2026-11-21 08:15", Some("/a:/b")),
        ] {
            let parsed = SnapshotPath::parse(OsStr::new(typed)).unwrap();
            assert_eq!(parsed.snapshot, snapshot, "{typed}");
            assert_eq!(parsed.path.map(|path| path.display()).as_deref(), path, "{typed}");
        }
        let odd = SnapshotPath::parse(OsStr::from_bytes(b"latest:/\xff")).unwrap();
        assert_eq!(odd.path, Some(PathName(b"/\xff".to_vec())));
        assert!(SnapshotPath::parse(OsStr::new("")).is_err());
        assert!(SnapshotPath::parse(OsStr::new(":/x")).is_err());
    }
}
