//! A friend's node as a steward: giving it orders, and shares that it passes on.

use bytes::Bytes;
use proto::id::ShareId;
use proto::share::Share;
use proto::share_store::StoreError;
use proto::wire::frame::PAYLOAD_BYTES_MAX;
use proto::wire::pass_on::{PassOrder, read_receipts};
use proto::wire::receipt::Receipt;
use proto::wire::share::ShareMessage;

use super::{RemoteStore, ask, send};
use crate::share::lane::wrong_answer;

/// What a steward says of an order.
pub struct Passing {
    /// Shares that it has, by their numbers.
    pub have: Vec<u8>,
    /// Shares that their target did not take.
    pub failing: Vec<u8>,
    /// Whose signatures hold; what they are for is still to be checked.
    pub receipts: Vec<Receipt>,
}

impl RemoteStore {
    /// Gives an order, or asks how far one is. Durable at the steward when this returns.
    pub async fn pass_on(&self, order: &PassOrder) -> Result<Passing, StoreError> {
        let request = self.inner.request(PAYLOAD_BYTES_MAX).await?;
        let message = ShareMessage::PassOn {
            request: request.number(),
        };
        match ask(request, &message, order.encode().into()).await? {
            (ShareMessage::Passing { have, failing, .. }, receipts) => Ok(Passing {
                have: Vec::from(have),
                failing: Vec::from(failing),
                receipts: read_receipts(&receipts).map_err(|error| StoreError::Corrupt {
                    reason: error.to_string(),
                })?,
            }),
            _ => Err(wrong_answer()),
        }
    }

    /// Puts a share of a pack with an order, to be passed on. Returns the bytes that travelled.
    pub async fn put_to_pass(&self, id: ShareId, share: Share) -> Result<u64, StoreError> {
        let _turn = self.inner.putting.acquire().await.expect("the turns are never closed");
        let lane = self.inner.lane(&self.inner.uploads).await?;
        let mut request = lane.request(0)?;
        let stored_bytes = share.stored_bytes() as u32;
        let message = ShareMessage::PutToPass {
            request: request.number(),
            id,
            stored_bytes,
        };
        request.say(&message, Bytes::new()).await?;
        let mut bytes_sent = 0;
        loop {
            match request.answer().await?.0 {
                ShareMessage::PutFrom { offset, .. } if offset <= stored_bytes && bytes_sent == 0 => {
                    send(&mut request, &share, offset).await?;
                    bytes_sent = u64::from(stored_bytes - offset);
                }
                ShareMessage::Done { .. } => {
                    request.settle();
                    return Ok(bytes_sent);
                }
                _ => return Err(wrong_answer()),
            }
        }
    }
}
