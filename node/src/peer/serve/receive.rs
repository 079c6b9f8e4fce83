//! A put, seen from the holder: offer the offset to go on from, append what comes, check, make durable, sign for it.

use std::time::Duration;

use bytes::Bytes;
use proto::id::ShareId;
use proto::share::ShareSize;
use proto::share_store::StoreError;
use proto::wire::receipt::{Receipt, ReceiptBody};
use proto::wire::share::ShareMessage;
use tokio::sync::mpsc;

use super::Handlers;
use crate::peer::partial::Partial;

/// A put that sends nothing for this long gives up its place; its bytes stay.
const QUIET_TIME: Duration = Duration::from_secs(60);

impl Handlers {
    /// Receives one share and answers for it.
    pub(super) async fn receive(
        &self,
        request: u32,
        id: ShareId,
        stored_bytes: u32,
        bytes: mpsc::Receiver<(u32, Bytes)>,
    ) {
        match self.received(request, id, stored_bytes, bytes).await {
            Ok(true) => {
                let receipt = self.receipt(id, stored_bytes);
                self.say(
                    &ShareMessage::PutAck {
                        request,
                        receipt: receipt.encode().into(),
                    },
                    Bytes::new(),
                )
                .await;
            }
            Ok(false) => {}
            Err(error) => self.fail(request, error).await,
        }
    }

    /// True when the share is durable here, false when the sender stopped sending it.
    async fn received(
        &self,
        request: u32,
        id: ShareId,
        stored_bytes: u32,
        mut bytes: mpsc::Receiver<(u32, Bytes)>,
    ) -> Result<bool, StoreError> {
        self.only_owner()?;
        if ShareSize::from_stored_bytes(stored_bytes as usize).is_none() {
            return Err(StoreError::Refused {
                reason: format!("{stored_bytes} bytes are not the length of a share"),
            });
        }
        let _turn = self
            .core
            .kept
            .receiving
            .acquire()
            .await
            .expect("the turns are never closed");
        let Some(mut partial) = self.open(id, stored_bytes).await? else {
            return Ok(true);
        };
        self.say(
            &ShareMessage::PutFrom {
                request,
                offset: partial.received(),
            },
            Bytes::new(),
        )
        .await;
        while !partial.is_complete() {
            let next = tokio::time::timeout(QUIET_TIME, bytes.recv()).await;
            let Ok(Some((offset, piece))) = next else {
                return Ok(false);
            };
            partial = self.append(partial, offset, piece).await?;
        }
        self.finish(partial).await?;
        self.core.counters.kept();
        Ok(true)
    }

    /// `None` when the share is here already.
    async fn open(&self, id: ShareId, stored_bytes: u32) -> Result<Option<Partial>, StoreError> {
        let _turn = self
            .core
            .kept
            .checking
            .acquire()
            .await
            .expect("the turns are never closed");
        let shelf = self.shelf.clone();
        blocking(move || shelf.partials.open(id, stored_bytes, &shelf.store)).await
    }

    async fn append(&self, mut partial: Partial, offset: u32, bytes: Bytes) -> Result<Partial, StoreError> {
        blocking(move || partial.append(offset, &bytes).map(|()| partial)).await
    }

    async fn finish(&self, partial: Partial) -> Result<(), StoreError> {
        let memory = self
            .core
            .kept
            .checking
            .clone()
            .acquire_owned()
            .await
            .expect("the turns are never closed");
        let store = self.shelf.store.clone();
        blocking(move || partial.finish(&store, memory)).await
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

async fn blocking<T, F>(work: F) -> Result<T, StoreError>
where
    T: Send + 'static,
    F: FnOnce() -> Result<T, StoreError> + Send + 'static,
{
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(stopped) => Err(StoreError::Unreachable {
            reason: format!("The store's thread stopped: {stopped}"),
        }),
    }
}
