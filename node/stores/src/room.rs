//! How settings about room on disks are written: what of a disk stays free, and what of it is lent to friends.

use api::human::ByteSize;
use serde::{Deserialize, Serialize};
use upload_queue::space::MinFree;

/// What both call the built-in rule.
const AUTOMATIC: &str = "auto";

/// `min_free`: `auto`, a part of the disk (`2%`) or a size (`5G`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Written", into = "Written")]
pub struct KeepFree(pub MinFree);

/// `store_max`: bytes offered to all friends together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Written", into = "Written")]
pub enum Offered {
    /// `auto`: half of what is free or lent already, and at most 100 GiB.
    #[default]
    Automatic,
    /// A size.
    Bytes(u64),
}

impl Offered {
    /// Chosen: useful to a friend, unnoticed on today's disks.
    const AUTOMATIC_MAX: u64 = 100 << 30;

    /// Bytes offered, of which `used` are used, where `takable` more could be taken of the disk. Using what is offered changes
    /// nothing about it.
    pub fn bytes(self, used: u64, takable: u64) -> u64 {
        match self {
            Self::Automatic => (used.saturating_add(takable) / 2).min(Self::AUTOMATIC_MAX),
            Self::Bytes(bytes) => bytes,
        }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Written {
    Number(u64),
    Text(String),
}

impl TryFrom<Written> for KeepFree {
    type Error = String;

    fn try_from(written: Written) -> Result<Self, String> {
        let text = match written {
            Written::Number(bytes) => return Ok(Self(MinFree::Bytes(bytes))),
            Written::Text(text) => text,
        };
        let refused =
            || format!("`{text}` is neither {AUTOMATIC} nor a part of the disk such as 1% nor a size such as 5G");
        if text == AUTOMATIC {
            return Ok(Self(MinFree::Automatic));
        }
        match text.strip_suffix('%') {
            Some(percent) => match percent.trim().parse::<f64>() {
                Ok(percent) if (0.0..=100.0).contains(&percent) => Ok(Self(MinFree::Percent(percent))),
                _ => Err(refused()),
            },
            None => match text.parse::<ByteSize>() {
                Ok(size) => Ok(Self(MinFree::Bytes(size.0))),
                Err(_) => Err(refused()),
            },
        }
    }
}

impl From<KeepFree> for Written {
    fn from(kept: KeepFree) -> Self {
        match kept.0 {
            MinFree::Automatic => Self::Text(AUTOMATIC.to_owned()),
            MinFree::Percent(percent) => Self::Text(format!("{percent}%")),
            MinFree::Bytes(bytes) => Self::Number(bytes),
        }
    }
}

impl TryFrom<Written> for Offered {
    type Error = String;

    fn try_from(written: Written) -> Result<Self, String> {
        match written {
            Written::Number(bytes) => Ok(Self::Bytes(bytes)),
            Written::Text(text) if text == AUTOMATIC => Ok(Self::Automatic),
            Written::Text(text) => match text.parse::<ByteSize>() {
                Ok(size) => Ok(Self::Bytes(size.0)),
                Err(_) => Err(format!("`{text}` is neither {AUTOMATIC} nor a size such as 500G")),
            },
        }
    }
}

impl From<Offered> for Written {
    fn from(offered: Offered) -> Self {
        match offered {
            Offered::Automatic => Self::Text(AUTOMATIC.to_owned()),
            Offered::Bytes(bytes) => Self::Number(bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_are_read_as_people_write_them_and_written_so_that_they_are_read_again() {
        for (typed, kept) in [
            ("\"auto\"", MinFree::Automatic),
            ("\"2.5%\"", MinFree::Percent(2.5)),
            ("\"5G\"", MinFree::Bytes(5 << 30)),
            ("0", MinFree::Bytes(0)),
        ] {
            let read: KeepFree = serde_json::from_str(typed).unwrap();
            assert_eq!(read, KeepFree(kept), "{typed}");
            let again = serde_json::from_str::<KeepFree>(&serde_json::to_string(&read).unwrap());
            assert_eq!(again.unwrap(), read);
        }
        for typed in ["\"-1%\"", "\"101%\"", "\"nan%\"", "\"much\"", "-1", "\"\""] {
            assert!(serde_json::from_str::<KeepFree>(typed).is_err(), "{typed}");
        }
        assert_eq!(
            serde_json::from_str::<Offered>("\"1G\"").unwrap(),
            Offered::Bytes(1 << 30)
        );
        assert_eq!(serde_json::from_str::<Offered>("\"auto\"").unwrap(), Offered::Automatic);
    }

    #[test]
    fn half_of_the_disk_is_offered_and_stays_so_while_it_is_used() {
        let mib = 1 << 20;
        assert_eq!(Offered::Automatic.bytes(0, 60 * mib), 30 * mib);
        assert_eq!(Offered::Automatic.bytes(25 * mib, 35 * mib), 30 * mib);
        assert_eq!(Offered::Automatic.bytes(0, 1 << 50), 100 << 30);
        assert_eq!(Offered::Bytes(7).bytes(0, 1), 7);
    }
}
