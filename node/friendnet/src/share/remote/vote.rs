//! A vote on who writes a volume, seen from the account whose volume it is. What a friend says is believed only as far as a device of
//! the account signed it.

use bytes::Bytes;
use proto::id::{AccountId, VolumeId};
use proto::promise::{PROMISE_BYTES, Promise};
use proto::share_store::StoreError;
use proto::wire::share::ShareMessage;

use super::{RemoteStore, ask};
use crate::share::lane::wrong_answer;

impl RemoteStore {
    pub(super) async fn claim_volume(&self, encoded: Bytes) -> Result<Bytes, StoreError> {
        let claim = Promise::decode(&encoded).map_err(StoreError::refused)?;
        let request = self.inner.request(PROMISE_BYTES).await?;
        let message = ShareMessage::Claim {
            request: request.number(),
        };
        let (answer, promise) = match ask(request, &message, encoded).await? {
            (ShareMessage::PromiseIs { .. }, promise) => (decoded(&promise)?, promise),
            _ => return Err(wrong_answer()),
        };
        let is_of_it = (answer.account(), answer.volume) == (claim.account(), claim.volume);
        match is_of_it && answer.epoch() >= claim.epoch() {
            true => Ok(promise),
            false => Err(not_asked_for()),
        }
    }

    pub(super) async fn ask_promise(&self, account: AccountId, volume: VolumeId) -> Result<Option<Bytes>, StoreError> {
        if account != self.inner.owner() {
            return Err(StoreError::refused("The promise is for another account's volume"));
        }
        let request = self.inner.request(PROMISE_BYTES).await?;
        let message = ShareMessage::PromiseOf {
            request: request.number(),
            volume,
        };
        let promise = match ask(request, &message, Bytes::new()).await? {
            (ShareMessage::PromiseIs { .. }, promise) => promise,
            _ => return Err(wrong_answer()),
        };
        if promise.is_empty() {
            return Ok(None);
        }
        let answer = decoded(&promise)?;
        match (answer.account(), answer.volume) == (account, volume) {
            true => Ok(Some(promise)),
            false => Err(not_asked_for()),
        }
    }
}

fn decoded(promise: &[u8]) -> Result<Promise, StoreError> {
    Promise::decode(promise).map_err(|error| StoreError::Corrupt {
        reason: error.to_string(),
    })
}

fn not_asked_for() -> StoreError {
    StoreError::Corrupt {
        reason: "The promise is not an answer to what was asked".to_owned(),
    }
}
