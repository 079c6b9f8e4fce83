//! Sizes and durations as people write and read them, and what they meant when they mistyped a name.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Bytes; written as a number or as text (`500G`, `1.5TiB`). Powers of 1024 throughout, as restic and Borg have it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "Written", into = "u64")]
pub struct ByteSize(pub u64);

/// A length of time; written as a number of seconds or as text (`7d`, `1h30m`, `6mo`). `m` is minutes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "Written", into = "u64")]
pub struct Period(pub Duration);

/// How long ago a snapshot may be that a policy keeps. Written as in restic (`2y5m7d3h`): `m` is months, and where it could be
/// taken for minutes, as in `1h30m`, it is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Within(pub Period);

#[derive(Deserialize)]
#[serde(untagged)]
enum Written {
    Number(u64),
    Text(String),
}

/// Text that is no size or duration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// Not a size.
    #[error("`{text}` is no size: write for example 500G or 1.5TiB")]
    Size {
        /// As typed.
        text: String,
    },
    /// Not a duration.
    #[error("`{text}` is no duration: write for example 7d, 12h, 90min or 6mo (y, mo, w, d, h, min or m, s)")]
    Duration {
        /// As typed.
        text: String,
    },
    /// Not how long snapshots are kept.
    #[error(
        "`{text}` is no time to keep snapshots for: write for example 30d, 6m, 2y or 2y5m7d3h (m are months, as in restic)"
    )]
    Within {
        /// As typed.
        text: String,
    },
    /// `m` could mean both.
    #[error(
        "`{text}`: `m` is months here, as in restic, but looks like minutes; write `mo` for months or `min` for minutes"
    )]
    MonthsOrMinutes {
        /// As typed.
        text: String,
    },
}

const SIZE_UNITS: [&str; 7] = ["", "K", "M", "G", "T", "P", "E"];

/// Units that are read. A month counts 31 days and a year 366: what is kept for a time is never kept for less than was meant.
const PERIOD_UNITS: [(&str, u64); 8] = [
    ("y", 366 * 86_400),
    ("mo", 31 * 86_400),
    ("w", 604_800),
    ("d", 86_400),
    ("h", 3_600),
    ("min", 60),
    ("m", 60),
    ("s", 1),
];

/// Units that are shown.
const SHOWN_UNITS: [(&str, u64); 4] = [("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)];

impl std::str::FromStr for ByteSize {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let failed = || ParseError::Size { text: text.to_owned() };
        let trimmed = text.trim();
        let digits = trimmed
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(trimmed.len());
        let (number, unit) = trimmed.split_at(digits);
        let unit = unit.trim_start().to_ascii_uppercase();
        let unit = unit
            .strip_suffix("IB")
            .or_else(|| unit.strip_suffix('B'))
            .unwrap_or(&unit);
        let power = SIZE_UNITS.iter().position(|known| *known == unit).ok_or_else(failed)?;
        let factor = 1u64 << (10 * power);
        if let Ok(whole) = number.parse::<u64>() {
            return whole.checked_mul(factor).map(Self).ok_or_else(failed);
        }
        let bytes = number.parse::<f64>().map_err(|_| failed())? * factor as f64;
        // 2^63: past it a float says nothing exact, and no disk is that large.
        if bytes < 9.2e18 {
            Ok(Self(bytes.round() as u64))
        } else {
            Err(failed())
        }
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 < 1024 {
            return f.pad(&format!("{} B", self.0));
        }
        let mut value = self.0 as f64;
        let mut power = 0;
        // 1023.95 would be printed as 1024.0.
        while value >= 1023.95 && power + 1 < SIZE_UNITS.len() {
            value /= 1024.0;
            power += 1;
        }
        f.pad(&format!("{value:.1} {}iB", SIZE_UNITS[power]))
    }
}

impl std::str::FromStr for Period {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let secs = parts(text).and_then(|parts| seconds(&parts));
        secs.map(|secs| Self(Duration::from_secs(secs)))
            .ok_or_else(|| ParseError::Duration { text: text.to_owned() })
    }
}

impl std::str::FromStr for Within {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let failed = || ParseError::Within { text: text.to_owned() };
        let mut parts = parts(text).ok_or_else(failed)?;
        let months = parts.iter().position(|(_, unit)| *unit == "m");
        let hours = parts.iter().position(|(_, unit)| *unit == "h");
        if hours.is_some_and(|hours| months.is_some_and(|months| hours < months)) {
            return Err(ParseError::MonthsOrMinutes { text: text.to_owned() });
        }
        let months = parts.iter_mut().filter(|(_, unit)| *unit == "m");
        months.for_each(|(_, unit)| *unit = "mo");
        let secs = seconds(&parts).ok_or_else(failed)?;
        Ok(Self(Period(Duration::from_secs(secs))))
    }
}

/// Numbers with their units: `1h 30m` is two.
fn parts(text: &str) -> Option<Vec<(u64, &str)>> {
    let mut rest = text.trim();
    let mut parts = Vec::new();
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let (number, tail) = rest.split_at(digits);
        let letters = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(letters);
        parts.push((number.parse().ok()?, unit.trim()));
        rest = tail;
    }
    (!parts.is_empty()).then_some(parts)
}

fn seconds(parts: &[(u64, &str)]) -> Option<u64> {
    parts.iter().try_fold(0u64, |secs, (number, unit)| {
        let (_, factor) = PERIOD_UNITS.iter().find(|(name, _)| name == unit)?;
        secs.checked_add(number.checked_mul(*factor)?)
    })
}

/// Of the names that are known, the one that was probably meant: the most alike, if no more than a quarter of it is mistyped.
pub fn nearest<'a>(typed: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let allowed = 1 + typed.chars().count() / 4;
    let measured = known.into_iter().map(|name| (mistakes(typed, name), name));
    measured
        .filter(|(mistakes, _)| *mistakes <= allowed)
        .min_by_key(|(mistakes, _)| *mistakes)
        .map(|(_, name)| name)
}

/// Letters to insert, delete or replace, or neighbours to swap, until one is the other; case does not matter (Damerau and Levenshtein,
/// optimal string alignment).
fn mistakes(one: &str, other: &str) -> usize {
    let one: Vec<char> = one.to_lowercase().chars().collect();
    let other: Vec<char> = other.to_lowercase().chars().collect();
    let mut rows: Vec<Vec<usize>> = vec![(0..=other.len()).collect()];
    for i in 1..=one.len() {
        let mut row = vec![i];
        for j in 1..=other.len() {
            let replaced = rows[i - 1][j - 1] + usize::from(one[i - 1] != other[j - 1]);
            let mut least = replaced.min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && one[i - 1] == other[j - 2] && one[i - 2] == other[j - 1] {
                least = least.min(rows[i - 2][j - 2] + 1);
            }
            row.push(least);
        }
        rows.push(row);
    }
    rows[one.len()][other.len()]
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0.as_secs();
        let mut parts = Vec::new();
        for (unit, factor) in &SHOWN_UNITS {
            if rest >= *factor {
                parts.push(format!("{}{unit}", rest / factor));
                rest %= factor;
            }
        }
        // Two parts say enough: 3d4h, not 3d4h12m7s.
        parts.truncate(2);
        f.pad(
            if parts.is_empty() {
                "0s".to_owned()
            } else {
                parts.concat()
            }
            .as_str(),
        )
    }
}

impl TryFrom<Written> for ByteSize {
    type Error = ParseError;

    fn try_from(written: Written) -> Result<Self, Self::Error> {
        match written {
            Written::Number(bytes) => Ok(Self(bytes)),
            Written::Text(text) => text.parse(),
        }
    }
}

impl TryFrom<Written> for Period {
    type Error = ParseError;

    fn try_from(written: Written) -> Result<Self, Self::Error> {
        match written {
            Written::Number(secs) => Ok(Self(Duration::from_secs(secs))),
            Written::Text(text) => text.parse(),
        }
    }
}

impl From<ByteSize> for u64 {
    fn from(size: ByteSize) -> Self {
        size.0
    }
}

impl From<Period> for u64 {
    fn from(period: Period) -> Self {
        period.0.as_secs()
    }
}

/// Whether a character has no shape of its own, and may change how others are shown: Unicode's category Cf.
pub fn is_unseen(c: char) -> bool {
    matches!(c,
        '\u{ad}' | '\u{600}'..='\u{605}' | '\u{61c}' | '\u{6dd}' | '\u{70f}' | '\u{890}' | '\u{891}' | '\u{8e2}' | '\u{180e}'
        | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}'
        | '\u{110bd}' | '\u{110cd}' | '\u{13430}'..='\u{1343f}' | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}'
        | '\u{e0001}' | '\u{e0020}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_people_write_them() {
        for (text, bytes) in [
            ("0", 0),
            ("17", 17),
            ("17B", 17),
            ("1k", 1024),
            ("500G", 500 << 30),
            ("1.5TiB", 3 << 39),
            ("2 MiB", 2 << 20),
            ("4mb", 4 << 20),
        ] {
            assert_eq!(text.parse(), Ok(ByteSize(bytes)), "{text}");
        }
        for text in ["", "G", "-1", "1X", "1..2G", "999999E", "1e3", "nan"] {
            assert!(text.parse::<ByteSize>().is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_are_shown_with_one_decimal_and_never_as_1024() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            ((1 << 20) - 1, "1.0 MiB"),
            (5 << 30, "5.0 GiB"),
            (u64::MAX, "16.0 EiB"),
        ] {
            assert_eq!(ByteSize(bytes).to_string(), text);
        }
    }

    #[test]
    fn durations_are_read_and_shown() {
        for (text, secs) in [
            ("7d", 604_800),
            ("12h", 43_200),
            ("1h30m", 5_400),
            ("1h 30m", 5_400),
            ("90s", 90),
            ("90min", 5_400),
            ("6m", 360),
            ("6mo", 6 * 31 * 86_400),
            ("1y", 366 * 86_400),
        ] {
            let parsed: Result<Period, _> = text.parse();
            assert_eq!(parsed, Ok(Period(Duration::from_secs(secs))), "{text}");
        }
        for text in [
            "",
            "7",
            "d",
            "7x",
            "7M",
            "-1d",
            "1.5h",
            "99999999999999999999d",
            "999999999999y",
        ] {
            assert!(text.parse::<Period>().is_err(), "{text}");
        }
        assert_eq!(Period(Duration::from_secs(273_600 + 61)).to_string(), "3d4h");
        assert_eq!(Period(Duration::from_secs(61)).to_string(), "1m1s");
        assert_eq!(Period(Duration::ZERO).to_string(), "0s");
    }

    /// `--keep-within 6m` was six minutes: of 24 monthly snapshots 23 were forgotten.
    #[test]
    fn snapshots_are_kept_within_months_as_in_restic() {
        let days = |days: u64| Ok(Within(Period(Duration::from_secs(days * 86_400))));
        for (text, wanted) in [
            ("6m", days(6 * 31)),
            ("6mo", days(6 * 31)),
            ("1y", days(366)),
            ("2y5m7d", days(2 * 366 + 5 * 31 + 7)),
            ("30d", days(30)),
            ("2w", days(14)),
            ("48h", days(2)),
            ("1m24h", days(32)),
            ("1440min", days(1)),
        ] {
            assert_eq!(text.parse(), wanted, "{text}");
        }
        for text in ["1h30m", "12h 5m"] {
            let refused = text.parse::<Within>().unwrap_err().to_string();
            assert!(refused.contains("`mo` for months or `min` for minutes"), "{refused}");
        }
        for text in ["", "6", "6M", "m", "-6m", "999999999999y"] {
            assert!(text.parse::<Within>().is_err(), "{text}");
        }
    }

    #[test]
    fn what_was_mistyped_is_found_and_what_is_another_word_is_not() {
        let known = ["trip", "before-the-move", "usb1"];
        for (typed, meant) in [
            ("tripp", Some("trip")),
            ("tirp", Some("trip")),
            ("TRIP", Some("trip")),
            ("befor-the-mov", Some("before-the-move")),
            ("usb", Some("usb1")),
            ("car", None),
            ("", None),
        ] {
            assert_eq!(nearest(typed, known), meant, "{typed}");
        }
    }
}
