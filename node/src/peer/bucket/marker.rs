//! The object that tells an account's part of a bucket from an empty bucket, and says how many slots it has, and whether the endpoint
//! honours conditions.

use bytes::Bytes;
use proto::share_store::StoreError;
use s3::Condition;

use super::Bucket;

/// Most shares of a pack in one bucket: more than that on one domain protect from nothing.
pub const SHARES_MAX: u8 = 16;

const START: &str = "gridbackup bucket 1\nshares ";
/// Last line of the marker where a conditional put overwrites what is there.
const UNCONDITIONAL: &str = "conditions ignored\n";
/// Longest marker that is read, in bytes.
const BYTES_MAX: u64 = 256;

impl Bucket {
    /// Makes the store, or changes how many shares of a pack it takes. Repeating it succeeds.
    pub async fn create(&self, shares: u8) -> Result<(), StoreError> {
        let text = format!("{START}{shares}\n");
        self.put_marker(&text, &Condition::Always).await?;
        match self.put_marker(&text, &Condition::Absent).await {
            Err(StoreError::Refused { .. }) => Ok(()),
            Ok(()) => self.put_marker(&(text + UNCONDITIONAL), &Condition::Always).await,
            Err(error) => Err(error),
        }
    }

    async fn put_marker(&self, text: &str, condition: &Condition) -> Result<(), StoreError> {
        let (body, key) = (Bytes::copy_from_slice(text.as_bytes()), self.0.keys.marker());
        let put = self.0.client.put(&key, body, &Default::default(), condition).await;
        match self.heard(put) {
            Ok(_) => Ok(()),
            Err(StoreError::NotFound) => Err(missing("there is no such bucket")),
            Err(error) => Err(error),
        }
    }

    /// Whether a conditional put spares what is there.
    pub(super) async fn honours_conditions(&self) -> Result<bool, StoreError> {
        if self.known_to_honour().is_none() {
            self.check_here().await?;
        }
        Ok(self.known_to_honour().unwrap_or(true))
    }

    fn known_to_honour(&self) -> Option<bool> {
        *self
            .0
            .honours_conditions
            .lock()
            .expect("nothing panics while it is locked")
    }

    /// How many slots there are; none: the account has no store here.
    pub async fn shares(&self) -> Result<Option<u8>, StoreError> {
        let Some(marker) = self.read(&self.0.keys.marker(), BYTES_MAX).await? else {
            return Ok(None);
        };
        let text = std::str::from_utf8(&marker.bytes).unwrap_or_default();
        let is_honoured = !text.ends_with(UNCONDITIONAL);
        *self
            .0
            .honours_conditions
            .lock()
            .expect("nothing panics while it is locked") = Some(is_honoured);
        let shares = text
            .strip_prefix(START)
            .and_then(|rest| rest.lines().next())
            .and_then(|shares| shares.parse().ok())
            .filter(|shares| (1..=SHARES_MAX).contains(shares));
        match shares {
            Some(shares) => Ok(Some(shares)),
            None => Err(missing("its store was made by another version of gridbackup")),
        }
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
