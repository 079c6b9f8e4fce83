//! A put, seen from the holder: offer the offset to go on from, append what comes, check, make durable, sign for it.

use std::time::Duration;

use bytes::Bytes;
use proto::id::{AccountId, ShareId};
use proto::shape::ShareSize;
use proto::share::Share;
use proto::share_store::StoreError;
use proto::wire::receipt::{Receipt, ReceiptBody};
use proto::wire::share::ShareMessage;
use stores::partial::{Partial, Turn};
use stores::shelf::Shelf;
use tokio::sync::mpsc;

use super::Handlers;
use crate::blocking::blocking;
use crate::roster::Roster;

/// A put that sends nothing for this long gives up its place; its bytes stay.
const QUIET_TIME: Duration = Duration::from_secs(60);

/// What becomes of a share that is put here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Purpose {
    /// It is kept, and signed for.
    Keep,
    /// It goes on to another peer.
    PassOn,
}

/// A put that the other side asked for.
pub(super) struct Incoming {
    pub request: u32,
    pub id: ShareId,
    pub stored_bytes: u32,
    pub purpose: Purpose,
    /// Taken when the request was read: handlers may start in another order.
    pub turn: Turn,
    /// Its frames, as they come.
    pub bytes: mpsc::Receiver<(u32, Bytes)>,
}

impl Handlers {
    /// Receives one share and answers for it.
    pub(super) async fn receive(&self, incoming: Incoming) {
        let (request, id, stored_bytes) = (incoming.request, incoming.id, incoming.stored_bytes);
        let purpose = incoming.purpose;
        match self.received(incoming).await {
            Ok(true) if purpose == Purpose::PassOn => {
                self.kept.passing.changed.notify_one();
                self.say(&ShareMessage::Done { request }, Bytes::new()).await;
            }
            Ok(true) => {
                self.kept.passing.changed.notify_one();
                let receipt = self.receipt(id, stored_bytes).encode().into();
                self.say(&ShareMessage::PutAck { request, receipt }, Bytes::new()).await;
            }
            Ok(false) => {}
            Err(error) => self.fail(request, error).await,
        }
    }

    /// True when the share is durable here, false when the sender stopped sending it.
    async fn received(&self, mut incoming: Incoming) -> Result<bool, StoreError> {
        let stored_bytes = incoming.stored_bytes;
        if ShareSize::from_stored_bytes(stored_bytes as usize).is_none() {
            return Err(StoreError::Refused {
                reason: format!("{stored_bytes} bytes are not the length of a share"),
            });
        }
        let _receiving = self.seat.guest().receive().await;
        let shelf = match incoming.purpose {
            Purpose::Keep => self.shelf.clone(),
            Purpose::PassOn => self.passing_shelf(incoming.id, stored_bytes).await?,
        };
        let Some(mut partial) = self.open(&incoming, shelf.clone()).await? else {
            return Ok(true);
        };
        let kept = self.kept.clone();
        let _room = blocking(move || kept.room(stored_bytes.into())).await?;
        let (request, offset) = (incoming.request, partial.received());
        self.say(&ShareMessage::PutFrom { request, offset }, Bytes::new()).await;
        while !partial.is_complete() {
            let next = tokio::time::timeout(QUIET_TIME, incoming.bytes.recv()).await;
            let Ok(Some((offset, piece))) = next else {
                return Ok(false);
            };
            partial = self.append(partial, offset, piece).await?;
        }
        self.finish(partial, shelf).await?;
        self.core.counters.kept();
        Ok(true)
    }

    /// `None` when the share is here already.
    async fn open(&self, incoming: &Incoming, shelf: Shelf) -> Result<Option<Partial>, StoreError> {
        let checking = self.kept.checking.acquire().await;
        let _checking = checking.expect("the turns are never closed");
        let (id, stored_bytes, turn) = (incoming.id, incoming.stored_bytes, incoming.turn);
        let is_owner = self.only_owner().is_ok();
        blocking(move || {
            // A share that is put comes out of the trash, and only its owner takes anything out of there.
            if !is_owner && shelf.store.is_given_up(id) {
                return Err(StoreError::Refused {
                    reason: "Its owner has given this share up".to_owned(),
                });
            }
            shelf.partials.open(id, stored_bytes, turn, &shelf.store)
        })
        .await
    }

    async fn append(&self, mut partial: Partial, offset: u32, bytes: Bytes) -> Result<Partial, StoreError> {
        blocking(move || partial.append(offset, &bytes).map(|()| partial)).await
    }

    async fn finish(&self, partial: Partial, shelf: Shelf) -> Result<(), StoreError> {
        let memory = self
            .kept
            .checking
            .clone()
            .acquire_owned()
            .await
            .expect("the turns are never closed");
        let store = shelf.store;
        if self.only_owner().is_ok() {
            return blocking(move || partial.finish(&store, memory)).await;
        }
        let (owner, roster) = (self.caller.owner, self.core.roster());
        blocking(move || partial.finish_if(&store, memory, |share| made_by_owner(share, owner, &roster))).await
    }

    fn receipt(&self, share: ShareId, stored_bytes: u32) -> Receipt {
        let body = ReceiptBody {
            share,
            owner: self.caller.owner,
            holder: self.core.device,
            stored_bytes,
            kept_secs: self.core.now_secs(),
        };
        Receipt::sign(&self.core.device_key, body)
    }
}

/// A member that repairs for an owner may bring what the owner's devices made and signed, nothing else: so it can neither
/// fill the owner's quota with noise nor change a byte.
fn made_by_owner(share: &Share, owner: AccountId, roster: &Roster) -> Result<(), StoreError> {
    let refused = |reason: &str| StoreError::Refused {
        reason: reason.to_owned(),
    };
    let manifest = share.manifest().map_err(|error| refused(&error.to_string()))?;
    let maker = roster.device(manifest.device).map(|device| device.cert.account);
    if manifest.account == owner && maker == Some(owner) {
        return Ok(());
    }
    Err(refused("The share was not made by a device of this account"))
}
