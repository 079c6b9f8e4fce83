//! The object that tells an account's part of a bucket from an empty bucket, and how many slots it has.

use bytes::Bytes;
use proto::share_store::StoreError;
use s3::Condition;

use super::Bucket;

/// Most shares of a pack in one bucket: more than that on one domain protect from nothing.
pub const SHARES_MAX: u8 = 16;

const START: &str = "gridbackup bucket 1\nshares ";
/// Longest marker that is read, in bytes.
const BYTES_MAX: u64 = 256;

impl Bucket {
    /// Makes the store, or changes how many shares of a pack it takes. Repeating it succeeds.
    pub async fn create(&self, shares: u8) -> Result<(), StoreError> {
        let body = Bytes::from(format!("{START}{shares}\n"));
        let (client, key) = (&self.0.client, self.0.keys.marker());
        self.heard(client.put(&key, body, &Default::default(), &Condition::Always).await)
            .map(drop)
            .map_err(|error| match error {
                StoreError::NotFound => missing("there is no such bucket"),
                error => error,
            })
    }

    /// How many slots there are; none: the account has no store here.
    pub async fn shares(&self) -> Result<Option<u8>, StoreError> {
        let Some(marker) = self.read(&self.0.keys.marker(), BYTES_MAX).await? else {
            return Ok(None);
        };
        let text = std::str::from_utf8(&marker.bytes).unwrap_or_default();
        let shares = text
            .strip_prefix(START)
            .and_then(|rest| rest.strip_suffix('\n'))
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
