//! What a key needs, from what the folder, the inventory and the listing say. Pure.

use std::path::PathBuf;

use crate::event::Drift;
use crate::inventory::{Row, Seen, State};
use crate::routes::{Compress, Wish};
use crate::stat::Stat;

/// Longest object that S3 copies in one request, in bytes
/// (<https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html>).
const COPY_BYTES_MAX: u64 = 5 << 30;

/// What is known to be in the bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Known {
    /// Nothing that would help.
    Nothing,
    /// These contents, by their hash.
    Content {
        /// BLAKE3 of the file that was stored.
        hash: [u8; 32],
        /// Of the object.
        etag: String,
    },
    /// An object with this ETag: it may have the right bytes.
    Etag(String),
}

/// What a file needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Keep,
    /// Other headers.
    Headers {
        /// Of the object that gets them.
        etag: String,
    },
    /// To be read, and sent if its contents are not what is known.
    Read(Known),
}

/// Where an object's bytes come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// A file.
    File(PathBuf),
    /// They were made by this run, and wait in the inventory.
    Made,
}

/// What is in an object's place, as far as is known: what a put relies on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Expected {
    /// Somebody has to ask.
    Unknown,
    Absent,
    /// An object with this ETag.
    Etag(String),
}

/// What is expected where the inventory, or the listing if there is one, says this.
pub(crate) fn expected(rules: Rules, row: Option<&Row>, seen: Option<&Seen>) -> Expected {
    let etag = match (row, seen) {
        (_, Some(seen)) => &seen.etag,
        (_, None) if rules.is_listed => return Expected::Absent,
        (None, None) => return Expected::Absent,
        (Some(row), None) if row.state == State::Doubt => return Expected::Unknown,
        (Some(row), None) => &row.etag,
    };
    if etag.is_empty() {
        return Expected::Unknown;
    }
    Expected::Etag(etag.clone())
}

/// An object that needs something.
#[derive(Clone, Debug)]
pub(crate) struct Work {
    pub key: Vec<u8>,
    pub source: Source,
    pub stat: Stat,
    pub wish: Wish,
    pub step: Step,
    pub row: Option<Row>,
    pub expected: Expected,
}

/// What a run relies on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    /// The bucket was listed.
    pub is_listed: bool,
    /// Times prove nothing.
    pub checksum: bool,
}

/// What a file needs, and how the bucket differs from the inventory.
pub(crate) fn step(
    rules: Rules,
    stat: &Stat,
    wish: &Wish,
    row: Option<&Row>,
    seen: Option<&Seen>,
) -> (Step, Option<Drift>) {
    let as_seen = || Step::Read(seen.map_or(Known::Nothing, |seen| Known::Etag(seen.etag.clone())));
    let Some(row) = row.filter(|row| row.state != State::Doubt) else {
        return (as_seen(), None);
    };
    if rules.is_listed {
        match seen {
            None => return (Step::Read(Known::Nothing), Some(Drift::Missing)),
            Some(seen) if seen.etag != row.etag => return (as_seen(), Some(Drift::Changed)),
            Some(_) => {}
        }
    }
    if row.compress != wish.compress {
        return (Step::Read(Known::Nothing), None);
    }
    let are_headers_same = row.headers == wish.headers_hash();
    let is_file_same = row.stat == *stat && row.state == State::Sure && !rules.checksum;
    let etag = row.etag.clone();
    // Whether compression helped decides over Content-Encoding, and is found by compressing again.
    let step = match (is_file_same, are_headers_same) {
        (true, true) => Step::Keep,
        (true, false) if stat.bytes <= COPY_BYTES_MAX && wish.compress == Compress::None => Step::Headers { etag },
        (_, false) if stat.bytes > COPY_BYTES_MAX => Step::Read(Known::Nothing),
        _ => Step::Read(Known::Content { hash: row.hash, etag }),
    };
    (step, None)
}

#[cfg(test)]
mod tests {
    use s3::Headers;

    use super::*;

    fn wish() -> Wish {
        Wish {
            headers: Headers::default(),
            compress: Compress::None,
        }
    }

    fn row() -> Row {
        Row {
            key: b"k".to_vec(),
            state: State::Sure,
            stat: Stat {
                bytes: 3,
                mtime_ns: 5,
                ctime_ns: 6,
                inode: 7,
            },
            hash: [1; 32],
            etag: "e".into(),
            version: None,
            headers: wish().headers_hash(),
            compress: Compress::None,
        }
    }

    fn seen(etag: &str) -> Seen {
        Seen {
            key: b"k".to_vec(),
            etag: etag.into(),
        }
    }

    const TRUST: Rules = Rules {
        is_listed: false,
        checksum: false,
    };
    const LISTED: Rules = Rules {
        is_listed: true,
        checksum: false,
    };

    #[test]
    fn what_did_not_change_is_not_read() {
        let row = row();
        assert_eq!(step(TRUST, &row.stat, &wish(), Some(&row), None), (Step::Keep, None));
        assert_eq!(
            step(LISTED, &row.stat, &wish(), Some(&row), Some(&seen("e"))),
            (Step::Keep, None)
        );
    }

    #[test]
    fn whatever_could_be_a_change_is_read_and_compared() {
        let known = Step::Read(Known::Content {
            hash: [1; 32],
            etag: "e".into(),
        });
        let row = row();
        let stats = [
            Stat { bytes: 4, ..row.stat },
            Stat {
                mtime_ns: 4,
                ..row.stat
            },
            Stat {
                ctime_ns: 7,
                ..row.stat
            },
            Stat { inode: 8, ..row.stat },
        ];
        for stat in stats {
            assert_eq!(step(TRUST, &stat, &wish(), Some(&row), None).0, known);
        }
        let racy = Row {
            state: State::Racy,
            ..row.clone()
        };
        assert_eq!(step(TRUST, &row.stat, &wish(), Some(&racy), None).0, known);
        let checksum = Rules {
            checksum: true,
            ..TRUST
        };
        assert_eq!(step(checksum, &row.stat, &wish(), Some(&row), None).0, known);
    }

    #[test]
    fn what_was_on_its_way_is_not_relied_on() {
        let doubt = Row {
            state: State::Doubt,
            ..row()
        };
        assert_eq!(
            step(TRUST, &doubt.stat, &wish(), Some(&doubt), None).0,
            Step::Read(Known::Nothing)
        );
        let found = step(LISTED, &doubt.stat, &wish(), Some(&doubt), Some(&seen("f")));
        assert_eq!(found, (Step::Read(Known::Etag("f".into())), None));
    }

    #[test]
    fn a_put_relies_on_what_is_known_last() {
        let row = row();
        let doubt = Row {
            state: State::Doubt,
            ..row.clone()
        };
        let etag = |etag: &str| Expected::Etag(etag.to_owned());
        assert_eq!(expected(TRUST, Some(&row), None), etag("e"));
        assert_eq!(expected(TRUST, Some(&doubt), None), Expected::Unknown);
        assert_eq!(expected(TRUST, None, None), Expected::Absent);
        assert_eq!(expected(LISTED, Some(&row), None), Expected::Absent);
        assert_eq!(expected(LISTED, Some(&doubt), Some(&seen("f"))), etag("f"));
        assert_eq!(expected(LISTED, None, Some(&seen(""))), Expected::Unknown);
    }

    #[test]
    fn drift_is_seen_and_named() {
        let row = row();
        let missing = step(LISTED, &row.stat, &wish(), Some(&row), None);
        assert_eq!(missing, (Step::Read(Known::Nothing), Some(Drift::Missing)));
        let changed = step(LISTED, &row.stat, &wish(), Some(&row), Some(&seen("f")));
        assert_eq!(changed, (Step::Read(Known::Etag("f".into())), Some(Drift::Changed)));
    }

    #[test]
    fn other_headers_do_not_send_the_bytes_again() {
        let row = row();
        let other = Wish {
            headers: Headers {
                acl: Some("private".into()),
                ..Headers::default()
            },
            ..wish()
        };
        assert_eq!(
            step(TRUST, &row.stat, &other, Some(&row), None).0,
            Step::Headers { etag: "e".into() }
        );
        let gzip = Wish {
            compress: Compress::Gzip,
            ..wish()
        };
        assert_eq!(
            step(TRUST, &row.stat, &gzip, Some(&row), None).0,
            Step::Read(Known::Nothing)
        );
    }
}
