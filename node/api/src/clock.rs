//! The wall clock, in the units that the crates below take as arguments.

use jiff::Timestamp;

/// Now, nanoseconds since 1970.
pub fn now_ns() -> i64 {
    Timestamp::now().as_nanosecond().try_into().unwrap_or(i64::MAX)
}

/// Now, seconds since 1970.
pub fn now_secs() -> u64 {
    Timestamp::now().as_second().try_into().unwrap_or(0)
}

/// A moment in seconds since 1970, for people.
pub fn moment(secs: u64) -> Option<Timestamp> {
    Timestamp::from_second(i64::try_from(secs).ok()?).ok()
}

/// A moment of the catalog for people; the ends of time are as near as it gets.
pub fn timestamp(ns: i64) -> Timestamp {
    Timestamp::from_nanosecond(i128::from(ns)).unwrap_or(Timestamp::UNIX_EPOCH)
}

/// Seconds that local time was, or will be, ahead of UTC at a moment in seconds since 1970; the zone is `TZ`'s or the system's.
pub fn utc_offset_secs(at_secs: i64) -> i32 {
    let at = Timestamp::from_second(at_secs).unwrap_or(Timestamp::UNIX_EPOCH);
    jiff::tz::TimeZone::system().to_offset(at).seconds()
}
