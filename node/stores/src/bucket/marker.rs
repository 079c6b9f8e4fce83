//! The object that tells an account's part of a bucket from an empty bucket, and says how many slots it has and what the endpoint
//! can do.

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use proto::share_store::StoreError;
use s3::{Condition, Headers, LockMode};

use super::Bucket;

/// Most shares of a pack in one bucket: more than that on one domain protect from nothing.
pub const SHARES_MAX: u8 = 16;

const START: &str = "gridbackup bucket 1\nshares ";
/// Before the mode, where objects are locked.
const LOCKS: &str = "locks ";
/// Last line of the marker where a conditional put overwrites what is there.
const UNCONDITIONAL: &str = "conditions ignored";
/// Longest marker that is read, in bytes.
const BYTES_MAX: u64 = 256;

/// What there is to know about the store and its endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Nature {
    /// Slots that recovery looks into.
    pub slots: u8,
    /// A conditional put spares what is there.
    pub honours_conditions: bool,
    /// How objects are locked, if they are.
    pub locks: Option<LockMode>,
    /// Its clock against this machine's.
    pub ahead: SignedDuration,
}

impl Nature {
    /// By the endpoint's clock.
    pub fn now(&self) -> Timestamp {
        Timestamp::now() + self.ahead
    }
}

/// What the marker says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Marker {
    shares: u8,
    locks: Option<LockMode>,
    honours_conditions: bool,
}

impl Marker {
    pub(super) fn encode(&self) -> Bytes {
        let mut text = format!("{START}{}\n", self.shares);
        if let Some(mode) = self.locks {
            text += &format!("{LOCKS}{}\n", mode.name());
        }
        if !self.honours_conditions {
            text += &format!("{UNCONDITIONAL}\n");
        }
        text.into()
    }

    /// None: another version's. Lines that are not known are passed over.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut lines = std::str::from_utf8(bytes).ok()?.strip_prefix(START)?.lines();
        let shares = lines.next()?.parse().ok()?;
        let mut marker = Self {
            shares,
            locks: None,
            honours_conditions: true,
        };
        for line in lines {
            match line.strip_prefix(LOCKS) {
                Some(mode) => marker.locks = LockMode::named(mode),
                None => marker.honours_conditions &= line != UNCONDITIONAL,
            }
        }
        (1..=SHARES_MAX).contains(&shares).then_some(marker)
    }
}

impl Bucket {
    /// Makes the store, or changes how many shares of a pack it takes. Repeating it succeeds.
    pub async fn create(&self, shares: u8) -> Result<(), StoreError> {
        let mut marker = Marker {
            shares,
            locks: self.heard(self.0.client.lock_mode().await)?,
            honours_conditions: true,
        };
        self.put_marker(&marker, &Condition::Always).await?;
        match self.put_marker(&marker, &Condition::Absent).await {
            Err(StoreError::Refused { .. }) => {}
            Ok(()) => {
                marker.honours_conditions = false;
                self.put_marker(&marker, &Condition::Always).await?;
            }
            Err(error) => return Err(error),
        }
        self.check_here().await?;
        self.lock_marker().await
    }

    async fn put_marker(&self, marker: &Marker, condition: &Condition) -> Result<(), StoreError> {
        let (key, client) = (self.0.keys.marker(), &self.0.client);
        match self.heard(client.put(&key, marker.encode(), &Headers::default(), condition).await) {
            Ok(_) => Ok(()),
            Err(StoreError::NotFound) => Err(missing("there is no such bucket")),
            Err(error) => Err(error),
        }
    }

    /// What the endpoint can do, as the marker says.
    pub(super) async fn nature(&self) -> Result<Nature, StoreError> {
        if let Some(nature) = self.state().nature {
            return Ok(nature);
        }
        self.check_here().await?;
        let nature = self.state().nature;
        nature.ok_or_else(|| missing("its marker is gone"))
    }

    /// As `nature`, before something is put into a slot: the marker knows of all.
    pub(super) async fn ready(&self) -> Result<Nature, StoreError> {
        let nature = self.nature().await?;
        if nature.slots >= self.0.terms.slots {
            return Ok(nature);
        }
        self.create(self.0.terms.slots).await?;
        self.nature().await
    }

    /// How many slots there are; none: the account has no store here.
    pub async fn shares(&self) -> Result<Option<u8>, StoreError> {
        let Some(read) = self.read(&self.0.keys.marker(), BYTES_MAX).await? else {
            return Ok(None);
        };
        let Some(marker) = Marker::decode(&read.bytes) else {
            return Err(missing("its store was made by another version of gridbackup"));
        };
        let ahead = read.meta.answered.map(|theirs| theirs.duration_since(Timestamp::now()));
        self.state().nature = Some(Nature {
            slots: marker.shares,
            honours_conditions: marker.honours_conditions,
            locks: marker.locks,
            ahead: ahead.unwrap_or_default(),
        });
        Ok(Some(marker.shares))
    }

    /// That the store is there: an emptied bucket is to be missed, not filled anew.
    pub(super) async fn check_here(&self) -> Result<(), StoreError> {
        match self.shares().await? {
            Some(_) => Ok(()),
            None => Err(missing("this account has no store there; was it emptied?")),
        }
    }
}

fn missing(why: &str) -> StoreError {
    StoreError::Unreachable { reason: why.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markers_are_as_the_format_says() {
        let plain = Marker {
            shares: 2,
            locks: None,
            honours_conditions: true,
        };
        let all = Marker {
            locks: Some(LockMode::Governance),
            honours_conditions: false,
            ..plain
        };
        for (marker, text) in [
            (plain, "gridbackup bucket 1\nshares 2\n"),
            (
                all,
                "gridbackup bucket 1\nshares 2\nlocks GOVERNANCE\nconditions ignored\n",
            ),
        ] {
            assert_eq!(marker.encode(), text);
            assert_eq!(Marker::decode(text.as_bytes()), Some(marker));
        }
        let newer = b"gridbackup bucket 1\nshares 2\nsomething new\n";
        assert_eq!(Marker::decode(newer), Some(plain));
        for wrong in [
            "",
            "gridbackup bucket 2\nshares 2\n",
            "gridbackup bucket 1\nshares 17\n",
            "x",
        ] {
            assert_eq!(Marker::decode(wrong.as_bytes()), None, "{wrong}");
        }
    }
}
