//! A vote on who writes a volume, seen from the voter: only devices of the account whose volume it is are answered.

use bytes::Bytes;
use proto::id::VolumeId;
use proto::share_store::{PromiseStore, StoreError};
use proto::wire::share::ShareMessage;

use super::Handlers;

impl Handlers {
    /// Judges a claim, and answers with what is promised then. Whoever brings it, it is its signer's; the store refuses one of
    /// another account.
    pub(super) async fn judge(&self, request: u32, claim: Bytes) -> Result<(), StoreError> {
        self.only_owner()?;
        let word = self.core.roster().word(self.caller.owner).cloned();
        let promise = self.shelf.store.judge(claim, word).await?;
        self.say(&ShareMessage::PromiseIs { request }, promise).await;
        Ok(())
    }

    /// Says what is promised.
    pub(super) async fn promise(&self, request: u32, volume: VolumeId) -> Result<(), StoreError> {
        self.only_owner()?;
        let promise = self.shelf.store.promise(self.caller.owner, volume).await?;
        self.say(&ShareMessage::PromiseIs { request }, promise.unwrap_or_default())
            .await;
        Ok(())
    }
}
