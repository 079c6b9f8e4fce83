//! `find`: entries by name, in all snapshots or in one.

use api::message::EntryKind;
use api::request::{Find, Request};
use jiff::Timestamp;
use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;

use super::snapshot_path::SnapshotPath;

/// Arguments of `find`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Glob (`*.jpg`) on the name, or on the path if it has a slash; case does not matter; without `*` or `?` any part
    pattern: String,
    /// Only in this snapshot, and at and below this path; without it: in all, each state of a file once
    #[arg(long, value_name = "SNAPSHOT[:PATH]")]
    snapshot: Option<SnapshotPath>,
    /// Only what was modified after: a date, a time, or how long ago (`7d`)
    #[arg(long, value_name = "TIME", value_parser = moment)]
    newer: Option<Timestamp>,
    /// Only what was modified before
    #[arg(long, value_name = "TIME", value_parser = moment)]
    older: Option<Timestamp>,
    /// Only these: f, d, l (file, directory, symlink), p, s, c, b
    #[arg(long = "type", value_name = "TYPE", value_parser = kind)]
    kind: Option<EntryKind>,
}

impl Args {
    pub fn request(self) -> Request {
        let (snapshot, path) = self.snapshot.map_or((None, None), |at| (Some(at.snapshot), at.path));
        Request::Find(Find {
            pattern: self.pattern,
            snapshot,
            path,
            newer: self.newer,
            older: self.older,
            kind: self.kind,
        })
    }
}

/// A moment as typed.
fn moment(typed: &str) -> Result<Timestamp, String> {
    let local = |time: DateTime| time.to_zoned(TimeZone::system()).map(|zoned| zoned.timestamp()).ok();
    let absolute = typed.parse::<Timestamp>().ok();
    let civil = || typed.parse::<DateTime>().ok().and_then(local);
    let date = || {
        typed
            .parse::<Date>()
            .ok()
            .and_then(|date| local(date.to_datetime(jiff::civil::Time::midnight())))
    };
    let ago = || {
        let period: api::human::Period = typed.parse().ok()?;
        Timestamp::now().checked_sub(period.0).ok()
    };
    absolute
        .or_else(civil)
        .or_else(date)
        .or_else(ago)
        .ok_or_else(|| "write for example 2026-11-21, 2026-11-21T10:00 or 7d".to_owned())
}

/// A kind from its letter, as `find` and `ls` have them, or from its name.
fn kind(typed: &str) -> Result<EntryKind, String> {
    let by_letter = match typed {
        "f" => EntryKind::File,
        "d" => EntryKind::Directory,
        "l" => EntryKind::Symlink,
        "p" => EntryKind::Fifo,
        "s" => EntryKind::Socket,
        "c" => EntryKind::CharDevice,
        "b" => EntryKind::BlockDevice,
        name => return name.parse().map_err(|_| "it is one of f, d, l, p, s, c, b".to_owned()),
    };
    Ok(by_letter)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_dates_times_or_ages() {
        assert_eq!(moment("1970-01-01T00:00:10Z").unwrap().as_second(), 10);
        assert!(moment("2026-11-21").unwrap() < moment("2026-11-21T10:00").unwrap());
        assert!(moment("7d").unwrap() < Timestamp::now());
        assert!(moment("soon").is_err());
        assert!(kind("x").is_err());
    }
}
