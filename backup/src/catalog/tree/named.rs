//! Finding the snapshot that a name means which somebody typed: `latest`, an id or its first digits, a date.

use rusqlite::Connection;

use super::forget::{forgotten, kept};
use super::snapshots::{by_time, snapshots};
use super::{FindError, OffsetAt, Snapshot};

/// Fewest hexadecimal digits by which a snapshot may be named.
const PREFIX_DIGITS_MIN: usize = 4;
const NANOS: i64 = 1_000_000_000;

/// The snapshot that `name` means: `latest`, `latest~N`, an id or its prefix (4 digits or more), a date
/// (`2026-11-21`, `2026-11-21T10:00` in local time): the last one not after the end of that day or minute.
/// Forgotten ones are not found.
pub fn find_snapshot(conn: &Connection, name: &str, offset_at: OffsetAt<'_>) -> Result<Snapshot, FindError> {
    find_among(kept(conn)?, name, offset_at)
}

/// The forgotten snapshot that `name` means: as `find_snapshot`, among those that were forgotten.
pub fn find_forgotten(conn: &Connection, name: &str, offset_at: OffsetAt<'_>) -> Result<Snapshot, FindError> {
    let forgotten = forgotten(conn)?;
    let mut all = snapshots(conn)?;
    all.retain(|snapshot| forgotten.contains_key(&snapshot.record.seq));
    find_among(all, name, offset_at)
}

/// Whether `name` is a date, with or without a time, and the snapshot that it means was made before that day or minute.
pub fn is_of_earlier_date(name: &str, snapshot: &Snapshot, offset_at: OffsetAt<'_>) -> bool {
    let len_secs = if name.contains(['T', ' ']) { 60 } else { 86_400 };
    end_of_date(name).is_some_and(|end_secs| local_secs(snapshot, offset_at) < end_secs - len_secs)
}

/// When a snapshot was made by the clocks of its time: seconds since 1970 in local time.
fn local_secs(snapshot: &Snapshot, offset_at: OffsetAt<'_>) -> i64 {
    let secs = snapshot.record.time_ns.div_euclid(NANOS);
    secs + i64::from(offset_at(secs))
}

/// As `find_snapshot`, among these.
fn find_among(all: Vec<Snapshot>, name: &str, offset_at: OffsetAt<'_>) -> Result<Snapshot, FindError> {
    let unknown = || FindError::Unknown { name: name.to_owned() };
    let all = by_time(all);
    if let Some(back) = steps_back(name) {
        return all.into_iter().rev().nth(back).ok_or_else(unknown);
    }
    if let Some(end_secs) = end_of_date(name) {
        let fits = all
            .into_iter()
            .filter(|snapshot| local_secs(snapshot, offset_at) < end_secs);
        return fits.max_by_key(|snapshot| snapshot.record.time_ns).ok_or_else(unknown);
    }
    if name.len() < PREFIX_DIGITS_MIN {
        return Err(unknown());
    }
    let prefix = name.to_ascii_lowercase();
    let fits = all
        .into_iter()
        .filter(|snapshot| snapshot.record.id.to_string().starts_with(&prefix));
    let mut fits: Vec<Snapshot> = fits.collect();
    match fits.len() {
        1 => Ok(fits.remove(0)),
        0 => Err(unknown()),
        count => Err(FindError::Ambiguous {
            name: name.to_owned(),
            count,
        }),
    }
}

/// How many snapshots before the newest one `latest` or `latest~N` means.
fn steps_back(name: &str) -> Option<usize> {
    match name.strip_prefix("latest")? {
        "" => Some(0),
        rest => rest.strip_prefix('~')?.parse().ok(),
    }
}

/// The first second after the day or minute that `text` names, since 1970 in its own time zone.
fn end_of_date(text: &str) -> Option<i64> {
    let (date, time) = match text.split_once(['T', ' ']) {
        Some((date, time)) => (date, Some(time)),
        None => (text, None),
    };
    let mut parts = date.split('-').map(|part| part.parse::<i64>().ok());
    let (year, month, day) = (parts.next()??, parts.next()??, parts.next()??);
    let valid = (1970..10_000).contains(&year) && (1..=12).contains(&month) && (1..=31).contains(&day);
    if !valid || parts.next().is_some() {
        return None;
    }
    let midnight = days_since_1970(year, month, day) * 86_400;
    let Some(time) = time else {
        return Some(midnight + 86_400);
    };
    let (hour, minute) = time.split_once(':')?;
    let (hour, minute): (i64, i64) = (hour.parse().ok()?, minute.parse().ok()?);
    let valid = (0..24).contains(&hour) && (0..60).contains(&minute);
    valid.then_some(midnight + hour * 3600 + minute * 60 + 60)
}

/// Days from 1970-01-01 in the Gregorian calendar; years are counted from March so that the leap day comes last.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    365 * year + year / 4 - year / 100 + year / 400 + day_of_year - 719_468
}

#[cfg(test)]
mod tests {
    use proto::id::{DeviceId, SnapshotId};
    use proto::log_record::SnapshotRecord;

    use super::*;

    #[test]
    fn dates_end_with_their_day_or_minute() {
        assert_eq!(end_of_date("1970-01-01"), Some(86_400));
        assert_eq!(end_of_date("2000-03-01"), Some(951_868_800 + 86_400));
        assert_eq!(end_of_date("2026-11-21T10:00"), Some(1_795_255_200 + 60));
        assert_eq!(end_of_date("2026-13-21"), None);
        assert_eq!(end_of_date("2026"), None);
    }

    /// A day of last summer ends by summer time, whatever the time is now.
    #[test]
    fn a_date_means_the_day_by_its_own_clocks() {
        const SUMMER_DAY_SECS: i64 = 1_782_000_000; // 2026-06-21T00:00Z
        let berlin = |secs: i64| if secs < 1_792_890_000 { 7_200 } else { 3_600 };
        let made = |seq: u64, secs: i64| Snapshot {
            record: SnapshotRecord {
                seq,
                id: SnapshotId([seq as u8; 16]),
                time_ns: secs * NANOS,
                parent: None,
                source_roots: Vec::new(),
                files: 0,
                bytes: 0,
            },
            device: DeviceId([0; 32]),
        };
        // 23:30 of the 20th and 00:15 of the 21st in Berlin.
        let all = vec![made(1, SUMMER_DAY_SECS - 9_000), made(2, SUMMER_DAY_SECS - 6_300)];
        let found = |name: &str| find_among(all.clone(), name, &berlin).map(|found| found.record.seq);
        assert_eq!(found("2026-06-20").unwrap(), 1);
        assert_eq!(found("2026-06-21").unwrap(), 2);
        assert_eq!(found("2026-06-20T23:30").unwrap(), 1);
        assert!(!is_of_earlier_date("2026-06-20", &all[0], &berlin));
        assert!(is_of_earlier_date("2026-06-22", &all[1], &berlin));
        assert!(is_of_earlier_date("2026-06-21T00:16", &all[1], &berlin));
        assert!(!is_of_earlier_date("latest", &all[1], &berlin));
    }

    #[test]
    fn latest_counts_backwards() {
        assert_eq!(steps_back("latest"), Some(0));
        assert_eq!(steps_back("latest~3"), Some(3));
        assert_eq!(steps_back("latest3"), None);
        assert_eq!(steps_back("abcd"), None);
    }
}
