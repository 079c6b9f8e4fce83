//! Giving up and taking back, seen from the owner: signing discards in a holder's order, asking for its trash.

use bytes::Bytes;
use proto::discard;
use proto::discard::{Discard, Evidence, Order};
use proto::id::ShareId;
use proto::keys::power;
use proto::share_store::StoreError;
use proto::wire::frame::IDS_MAX;
use proto::wire::frame::PAYLOAD_BYTES_MAX;
use proto::wire::share::ShareMessage;

use super::{RemoteStore, ask};
use crate::share::lane::wrong_answer;

/// How often a discard is signed anew because another device of the account was faster.
const TRIES_MAX: u32 = 3;

impl RemoteStore {
    pub(super) async fn discard_shares(&self, ids: Vec<ShareId>) -> Result<u32, StoreError> {
        let core = &self.inner.core;
        if self.inner.owner.is_some_and(|owner| owner != core.cert.account) || core.cert.powers & power::GIVE_UP == 0 {
            return Err(StoreError::Refused {
                reason: "this device may not give up these shares".to_owned(),
            });
        }
        if ids.is_empty() {
            return Ok(0);
        }
        let mut tries = 0;
        loop {
            let order = self.next_order().await?;
            let discard = Discard::sign(&core.device_key, &core.cert, order, &ids).map_err(StoreError::refused)?;
            let request = self.inner.request(0).await?;
            let message = ShareMessage::Discard {
                request: request.number(),
                discard: discard.encode().into(),
            };
            tries += 1;
            match ask(request, &message, discard::write_ids(&ids).into()).await {
                Ok((ShareMessage::Discarded { count, .. }, _)) => return Ok(count),
                Ok(_) => return Err(wrong_answer()),
                Err(StoreError::Refused { reason }) if tries < TRIES_MAX => {
                    tracing::debug!("A discard is signed again: {reason}");
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// What the next discard that the holder takes has to say.
    async fn next_order(&self) -> Result<Order, StoreError> {
        let request = self.inner.request(0).await?;
        let message = ShareMessage::LastDiscard {
            request: request.number(),
        };
        match ask(request, &message, Bytes::new()).await? {
            (ShareMessage::LastDiscardIs { number, hash, .. }, _) => Ok(Order {
                holder: self.inner.device,
                number: number.saturating_add(1),
                previous: *hash,
                issued_secs: self.inner.core.now_secs(),
            }),
            _ => Err(wrong_answer()),
        }
    }

    pub(super) async fn list_trashed(&self, after: Option<ShareId>, limit: u32) -> Result<Vec<ShareId>, StoreError> {
        let limit = limit.min(IDS_MAX);
        let trash = move |request| ShareMessage::Trash { request, after, limit };
        self.ask_ids(limit, trash, Bytes::new()).await
    }

    pub(super) async fn ask_evidence(&self, id: ShareId) -> Result<Evidence, StoreError> {
        let request = self.inner.request(PAYLOAD_BYTES_MAX).await?;
        let message = ShareMessage::Evidence {
            request: request.number(),
            id,
        };
        match ask(request, &message, Bytes::new()).await? {
            (ShareMessage::EvidenceIs { discard, .. }, ids) => {
                Evidence::read(&discard, &ids).map_err(|error| StoreError::Corrupt {
                    reason: error.to_string(),
                })
            }
            _ => Err(wrong_answer()),
        }
    }

    pub(super) async fn recall_shares(&self, ids: Vec<ShareId>) -> Result<Vec<ShareId>, StoreError> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let (limit, payload) = (ids.len() as u32, discard::write_ids(&ids).into());
        self.ask_ids(limit, |request| ShareMessage::Recall { request }, payload)
            .await
    }
}
