//! The promises of an account as a voter: one object a volume, the same for all slots, raised by conditional puts and never deleted
//! (docs/format/promise.md §4). And which voter a bucket is.
//!
//! Which devices are revoked is not looked at: whoever has the bucket's credentials can do what it likes with the objects.

use std::time::Duration;

use bytes::Bytes;
use data_encoding::HEXLOWER;
use proto::epoch::Verdict;
use proto::id::{AccountId, VolumeId, VoterId};
use proto::promise::{PROMISE_BYTES, Promise};
use proto::share_store::StoreError;
use s3::{Condition, Object};

use super::Bucket;
use crate::folder::VOLUMES_MAX;

/// Attempts against other writers. Chosen: each that fails is somebody's higher claim, and of those there are few.
const ATTEMPTS_MAX: u32 = 8;
/// What the object with a bucket's id begins with.
const ID_TITLE: &str = "gridbackup voter 1\n";
/// Bytes of that object.
const ID_BYTES: usize = ID_TITLE.len() + 2 * VoterId::LEN + 1;

impl Bucket {
    /// Judges a claim of the account's.
    pub(super) async fn judge(&self, encoded: Bytes) -> Result<Bytes, StoreError> {
        let claim = Promise::decode(&encoded).map_err(StoreError::refused)?;
        if claim.account() != self.account_id() {
            return Err(StoreError::refused("The claim is of another account's volume"));
        }
        self.voter().await?;
        let (key, headers) = (self.0.keys.promise(claim.volume), Self::headers(&self.nature().await?));
        for _ in 0..ATTEMPTS_MAX {
            let condition = match self.held(claim.volume).await? {
                Some((promise, held)) if claim.verdict(Some(&promise)) != Verdict::Raise => return Ok(held.bytes),
                Some((_, held)) => Condition::Is(held.meta.etag),
                None => {
                    self.check_volumes().await?;
                    Condition::Absent
                }
            };
            match self.0.client.put(&key, encoded.clone(), &headers, &condition).await {
                // Lost; or an earlier attempt of this very put was not, and its answer was.
                Err(s3::Error::Changed(_)) => {}
                Err(s3::Error::NotFound(_)) => return Err(removed(claim.volume)),
                put => return self.heard(put).map(|_| encoded),
            }
        }
        let retry_after = Duration::from_secs(1);
        Err(StoreError::Busy { retry_after })
    }

    /// The promise of a volume of the account.
    pub(super) async fn promise_of(&self, account: AccountId, volume: VolumeId) -> Result<Option<Bytes>, StoreError> {
        if account != self.account_id() {
            return Err(StoreError::refused("The promise is for another account's volume"));
        }
        self.check_conditions().await?;
        Ok(self.held(volume).await?.map(|(_, held)| held.bytes))
    }

    /// Which voter the bucket is, which is settled when that is first asked for. Refused where conditions are ignored: of two who
    /// claim at once both would win.
    pub(super) async fn voter(&self) -> Result<VoterId, StoreError> {
        self.check_conditions().await?;
        if let Some(voter) = self.state().voter {
            return Ok(voter);
        }
        let id = self.id().await?;
        self.try_if_match(id).await?;
        self.state().voter = Some(id);
        Ok(id)
    }

    /// As the marker says.
    async fn check_conditions(&self) -> Result<(), StoreError> {
        match self.ready().await?.honours_conditions {
            true => Ok(()),
            false => Err(no_voter("If-None-Match")),
        }
    }

    /// The marker was made with the other condition. Whoever ignores this one writes what is there already.
    async fn try_if_match(&self, id: VoterId) -> Result<(), StoreError> {
        let (key, headers) = (self.0.keys.voter(), Self::headers(&self.nature().await?));
        let never = Condition::Is(s3::etag_of(b"nothing has this content"));
        match self.0.client.put(&key, id_text(id), &headers, &never).await {
            Err(s3::Error::Changed(_)) => Ok(()),
            put => self.heard(put).and(Err(no_voter("If-Match"))),
        }
    }

    /// Random bytes that lie in the bucket, whoever put them there first.
    async fn id(&self) -> Result<VoterId, StoreError> {
        let (key, headers) = (self.0.keys.voter(), Self::headers(&self.nature().await?));
        for _ in 0..ATTEMPTS_MAX {
            if let Some(there) = self.read(&key, ID_BYTES as u64).await? {
                return read_id(&there.bytes).ok_or_else(|| StoreError::Corrupt {
                    reason: "the object `voter` is damaged: nobody can tell which voter this bucket is".to_owned(),
                });
            }
            self.check_here().await?;
            let mut id = VoterId([0; VoterId::LEN]);
            getrandom::fill(&mut id.0).map_err(|error| StoreError::Unreachable {
                reason: format!("the system gives no randomness: {error}"),
            })?;
            let put = self.0.client.put(&key, id_text(id), &headers, &Condition::Absent).await;
            if !matches!(put, Err(s3::Error::Changed(_))) {
                return self.heard(put).map(|_| id);
            }
        }
        let retry_after = Duration::from_secs(1);
        Err(StoreError::Busy { retry_after })
    }

    /// What is promised of a volume; none only of a bucket that was not emptied.
    async fn held(&self, volume: VolumeId) -> Result<Option<(Promise, Object)>, StoreError> {
        let Some(held) = self.read(&self.0.keys.promise(volume), PROMISE_BYTES as u64).await? else {
            return self.check_here().await.map(|()| None);
        };
        let damaged = |what: &str| StoreError::Corrupt {
            reason: format!("The promise of volume {volume} in the bucket {what}"),
        };
        let promise = Promise::decode(&held.bytes).map_err(|error| damaged(&format!("is damaged: {error}")))?;
        match (promise.account(), promise.volume) == (self.account_id(), volume) {
            true => Ok(Some((promise, held))),
            false => Err(damaged("is that of another volume")),
        }
    }

    async fn check_volumes(&self) -> Result<(), StoreError> {
        let promises = self.list(self.0.keys.promises(), Vec::new(), VOLUMES_MAX).await?.0;
        match promises.len() < VOLUMES_MAX {
            true => Ok(()),
            false => Err(StoreError::Full {
                reason: format!("promises of {VOLUMES_MAX} volumes of this account are kept already"),
            }),
        }
    }
}

fn no_voter(condition: &str) -> StoreError {
    StoreError::Refused {
        reason: format!(
            "this bucket's endpoint ignores the condition {condition}, so of two writers of a disk both would win: it is no voter"
        ),
    }
}

fn removed(volume: VolumeId) -> StoreError {
    StoreError::Unreachable {
        reason: format!("the promise of volume {volume} was removed from the bucket a moment ago"),
    }
}

fn id_text(id: VoterId) -> Bytes {
    format!("{ID_TITLE}{id}\n").into()
}

/// The id in the object `voter`.
pub(super) fn read_id(bytes: &[u8]) -> Option<VoterId> {
    let digits = bytes.strip_prefix(ID_TITLE.as_bytes())?.strip_suffix(b"\n")?;
    VoterId::from_slice(&HEXLOWER.decode(digits).ok()?)
}
