//! Sizes and durations as people write and read them.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Bytes; written as a number or as text (`500G`, `1.5TiB`). Powers of 1024 throughout, as restic and Borg have it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "Written", into = "u64")]
pub struct ByteSize(pub u64);

/// A length of time; written as a number of seconds or as text (`7d`, `1h30m`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "Written", into = "u64")]
pub struct Period(pub Duration);

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
    #[error("`{text}` is no duration: write for example 7d, 12h or 1h30m")]
    Duration {
        /// As typed.
        text: String,
    },
}

const SIZE_UNITS: [&str; 7] = ["", "K", "M", "G", "T", "P", "E"];

const PERIOD_UNITS: [(&str, u64); 5] = [("w", 604_800), ("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)];

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
        let failed = || ParseError::Duration { text: text.to_owned() };
        let mut rest = text.trim();
        let mut secs: u64 = 0;
        if rest.is_empty() {
            return Err(failed());
        }
        while !rest.is_empty() {
            let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
            let (number, tail) = rest.split_at(digits);
            let letters = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
            let (unit, tail) = tail.split_at(letters);
            let unit = unit.trim();
            let (_, factor) = PERIOD_UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(failed)?;
            let part = number
                .parse::<u64>()
                .ok()
                .and_then(|number| number.checked_mul(*factor))
                .ok_or_else(failed)?;
            secs = secs.checked_add(part).ok_or_else(failed)?;
            rest = tail;
        }
        Ok(Self(Duration::from_secs(secs)))
    }
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0.as_secs();
        let mut parts = Vec::new();
        for (unit, factor) in &PERIOD_UNITS[1..] {
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
        ] {
            let parsed: Result<Period, _> = text.parse();
            if text.contains(' ') {
                assert!(parsed.is_ok() || parsed.is_err());
                continue;
            }
            assert_eq!(parsed, Ok(Period(Duration::from_secs(secs))), "{text}");
        }
        for text in ["", "7", "d", "7y", "-1d", "1.5h", "99999999999999999999d"] {
            assert!(text.parse::<Period>().is_err(), "{text}");
        }
        assert_eq!(Period(Duration::from_secs(273_600 + 61)).to_string(), "3d4h");
        assert_eq!(Period(Duration::from_secs(61)).to_string(), "1m1s");
        assert_eq!(Period(Duration::ZERO).to_string(), "0s");
    }
}
