//! Giving up and taking back, seen from the holder: discards, the trash, heads that were replaced.

use bytes::Bytes;
use proto::discard;
use proto::discard::{Discard, DiscardError, Evidence};
use proto::id::{AccountId, ShareId};
use proto::share_store::{HeadPlace, HeadStore, OldHeads, ShareStore, StoreError};
use proto::wire::frame::IDS_MAX;
use proto::wire::share::ShareMessage;

use super::Handlers;

impl Handlers {
    /// Says which discard was the last.
    pub(super) async fn last_discard(&self, request: u32) -> Result<(), StoreError> {
        self.only_owner()?;
        let last = self.shelf.store.last_discard().await?;
        let answer = ShareMessage::LastDiscardIs {
            request,
            number: last.number,
            hash: last.hash.into(),
        };
        self.say(&answer, Bytes::new()).await;
        Ok(())
    }

    /// Moves what a discard names to the trash.
    pub(super) async fn discard(&self, request: u32, encoded: &[u8], ids: &[u8]) -> Result<(), StoreError> {
        self.only_owner()?;
        let discard = Discard::decode(encoded).map_err(refused)?;
        let ids = discard.ids(ids).map_err(refused)?;
        let count = self.shelf.store.take_discard(discard, ids, self.core.device).await?;
        self.say(&ShareMessage::Discarded { request, count }, Bytes::new())
            .await;
        Ok(())
    }

    /// Lists the trash.
    pub(super) async fn list_trash(&self, request: u32, after: Option<ShareId>, limit: u32) -> Result<(), StoreError> {
        let ids = self.shelf.store.list_trash(after, limit.min(IDS_MAX)).await?;
        self.say_ids(request, &ids).await;
        Ok(())
    }

    /// Takes shares out of the trash.
    pub(super) async fn recall(&self, request: u32, ids: &[u8]) -> Result<(), StoreError> {
        self.only_owner()?;
        let ids = discard::read_ids(ids).map_err(refused)?;
        let held = self.shelf.store.recall(ids).await?;
        self.say_ids(request, &held).await;
        Ok(())
    }

    /// Shows by which discard a share was given up.
    pub(super) async fn evidence(&self, request: u32, id: ShareId) -> Result<(), StoreError> {
        let Evidence { discard, ids } = self.shelf.store.evidence(id).await?;
        let discard = discard.encode().into();
        self.say(
            &ShareMessage::EvidenceIs { request, discard },
            discard::write_ids(&ids).into(),
        )
        .await;
        Ok(())
    }

    /// Sends heads that were replaced.
    pub(super) async fn old_heads(
        &self,
        request: u32,
        account: AccountId,
        after: Option<HeadPlace>,
    ) -> Result<(), StoreError> {
        let OldHeads { heads, next } = self.shelf.store.old_heads(account, after).await?;
        let ages = heads.iter().map(|head| head.age_days).collect();
        let payload: Vec<Bytes> = heads.into_iter().map(|head| head.encoded).collect();
        let answer = ShareMessage::OldHeadsAre { request, ages, next };
        self.say(&answer, payload.concat().into()).await;
        Ok(())
    }

    pub(super) async fn say_ids(&self, request: u32, ids: &[ShareId]) {
        self.say(&ShareMessage::Ids { request }, discard::write_ids(ids).into())
            .await;
    }
}

fn refused(error: DiscardError) -> StoreError {
    StoreError::Refused {
        reason: error.to_string(),
    }
}
