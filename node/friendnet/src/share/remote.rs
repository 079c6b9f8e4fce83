//! A friend's node as a store: every operation is a request on one of two lanes.
//!
//! Uploads have a lane of their own, so that a small read never waits behind a queue of shares. Leaves out when to try again:
//! the caller knows what is urgent.

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use proto::discard::Evidence;
use proto::head::HEAD_BYTES;
use proto::id::{AccountId, DeviceId, ShareId, VolumeId, VoterId};
use proto::shape::ShareSize;
use proto::share::Share;
use proto::share_store::{
    BoxFuture, HeadPlace, HeadStore, OLD_HEADS_MAX, OldHead, OldHeads, PromiseStore, PutAck, ShareStore, Space,
    StoreError,
};
use proto::wire::SHARE_PROTOCOL;
use proto::wire::frame::IDS_MAX;
use proto::wire::frame::PAYLOAD_BYTES_MAX;
use proto::wire::greeting::Refusal;
use proto::wire::receipt::Receipt;
use proto::wire::share::ShareMessage;
use tokio::sync::{Mutex, Semaphore};

use super::lane::{Lane, Request, wrong_answer};
use super::serve::PUTS_MAX;
use crate::join::Membership;
use crate::net::core::{Core, OpenError};
use crate::net::frames::Frame;
use crate::net::greet::GreetError;

mod ask_proof;
mod give_up;
mod pass_on;
mod vote;

/// A failed attempt to connect answers for all that ask within this time: a hundred waiting puts are one dial.
const FAILURE_TIME: Duration = Duration::from_secs(2);

/// How long to stay away from a friend that has too many streams open.
const BUSY_TIME: Duration = Duration::from_secs(5);

/// A friend's node; clones share its lanes.
#[derive(Clone)]
pub struct RemoteStore {
    inner: Arc<Inner>,
}

struct Inner {
    core: Arc<Core>,
    /// Introduces this node to a friend that has not heard of it.
    membership: Arc<Membership>,
    device: DeviceId,
    /// Whose shares, if not our own.
    owner: Option<AccountId>,
    uploads: Mutex<Slot>,
    requests: Mutex<Slot>,
    putting: Semaphore,
}

/// Where a lane is, or why there was none a moment ago.
#[derive(Default)]
struct Slot {
    lane: Option<Arc<Lane>>,
    failed: Option<(Instant, StoreError)>,
}

impl RemoteStore {
    /// The store of our own shares on `device`. Nothing is sent before the first request.
    pub(crate) fn new(membership: Arc<Membership>, device: DeviceId, owner: Option<AccountId>) -> Self {
        let (uploads, requests) = Default::default();
        Self {
            inner: Arc::new(Inner {
                core: membership.core.clone(),
                membership,
                device,
                owner,
                uploads,
                requests,
                putting: Semaphore::new(PUTS_MAX),
            }),
        }
    }

    /// Which device.
    pub fn device(&self) -> DeviceId {
        self.inner.device
    }

    async fn put_share(&self, id: ShareId, share: Share) -> Result<PutAck, StoreError> {
        let _turn = self.inner.putting.acquire().await.expect("the turns are never closed");
        let lane = self.inner.lane(&self.inner.uploads).await?;
        let mut request = lane.request(0)?;
        let stored_bytes = share.stored_bytes() as u32;
        request
            .say(
                &ShareMessage::Put {
                    request: request.number(),
                    id,
                    stored_bytes,
                },
                Bytes::new(),
            )
            .await?;
        let mut bytes_sent = 0;
        loop {
            match request.answer().await?.0 {
                ShareMessage::PutFrom { offset, .. } if offset <= stored_bytes && bytes_sent == 0 => {
                    send(&mut request, &share, offset).await?;
                    bytes_sent = u64::from(stored_bytes - offset);
                }
                ShareMessage::PutAck { receipt, .. } => {
                    self.check_receipt(&receipt, id, stored_bytes)?;
                    request.settle();
                    return Ok(PutAck {
                        bytes_sent,
                        receipt: Some(Vec::from(receipt).into()),
                    });
                }
                _ => return Err(wrong_answer()),
            }
        }
    }

    /// A receipt that does not say what we want to be sure of is no acknowledgement.
    fn check_receipt(&self, receipt: &[u8], id: ShareId, stored_bytes: u32) -> Result<(), StoreError> {
        let receipt = Receipt::decode(receipt).map_err(|error| StoreError::Corrupt {
            reason: error.to_string(),
        })?;
        let body = receipt.body;
        let owner = self.inner.owner();
        if (body.share, body.owner, body.holder, body.stored_bytes) == (id, owner, self.inner.device, stored_bytes) {
            return Ok(());
        }
        Err(StoreError::Corrupt {
            reason: "The receipt is for something else".into(),
        })
    }

    async fn get_range(&self, id: ShareId, range: Range<u32>) -> Result<Bytes, StoreError> {
        if range.start > range.end || range.end as usize > ShareSize::LARGEST.stored_bytes() {
            return Err(StoreError::OutOfRange);
        }
        let mut request = self.inner.request(range.len()).await?;
        let (number, start, end) = (request.number(), range.start, range.end);
        request
            .say(
                &ShareMessage::Get {
                    request: number,
                    id,
                    start,
                    end,
                },
                Bytes::new(),
            )
            .await?;
        let mut received = BytesMut::new();
        loop {
            let (answer, payload) = request.answer().await?;
            let expected = start + received.len() as u32;
            if answer
                != (ShareMessage::GetBytes {
                    request: number,
                    offset: expected,
                })
            {
                return Err(wrong_answer());
            }
            if payload.len() == range.len() {
                // All in one frame: most reads of a restore end here, without a copy.
                request.settle();
                return Ok(payload);
            }
            received.reserve(range.len() - received.len());
            received.extend_from_slice(&payload);
            if received.len() == range.len() {
                request.settle();
                return Ok(received.freeze());
            }
        }
    }

    async fn list_ids(&self, after: Option<ShareId>, limit: u32) -> Result<Vec<ShareId>, StoreError> {
        let limit = limit.min(IDS_MAX);
        let list = move |request| ShareMessage::List { request, after, limit };
        self.ask_ids(limit, list, Bytes::new()).await
    }

    async fn ask_ids(
        &self,
        limit: u32,
        message: impl FnOnce(u32) -> ShareMessage,
        payload: Bytes,
    ) -> Result<Vec<ShareId>, StoreError> {
        let request = self.inner.request(limit as usize * ShareId::LEN).await?;
        let message = message(request.number());
        match ask(request, &message, payload).await? {
            (ShareMessage::Ids { .. }, payload) => {
                let (ids, rest) = payload.as_chunks();
                if rest.is_empty() {
                    Ok(ids.iter().copied().map(ShareId).collect())
                } else {
                    Err(wrong_answer())
                }
            }
            _ => Err(wrong_answer()),
        }
    }

    async fn ask_heads(&self, account: AccountId) -> Result<Vec<Bytes>, StoreError> {
        let request = self.inner.request(PAYLOAD_BYTES_MAX).await?;
        let message = ShareMessage::Heads {
            request: request.number(),
            account,
        };
        match ask(request, &message, Bytes::new()).await? {
            (ShareMessage::HeadsAre { .. }, payload) => heads_in(&payload),
            _ => Err(wrong_answer()),
        }
    }

    async fn ask_old_heads(&self, account: AccountId, after: Option<HeadPlace>) -> Result<OldHeads, StoreError> {
        let request = self.inner.request(PAYLOAD_BYTES_MAX).await?;
        let message = ShareMessage::OldHeads {
            request: request.number(),
            account,
            after,
        };
        let (ages, next, heads) = match ask(request, &message, Bytes::new()).await? {
            (ShareMessage::OldHeadsAre { ages, next, .. }, payload) => (ages, next, heads_in(&payload)?),
            _ => return Err(wrong_answer()),
        };
        if heads.len() != ages.len() || heads.len() > OLD_HEADS_MAX {
            return Err(wrong_answer());
        }
        let heads = heads.into_iter().zip(ages);
        let heads = heads.map(|(encoded, age_days)| OldHead { encoded, age_days });
        Ok(OldHeads {
            heads: heads.collect(),
            next,
        })
    }

    async fn do_simple(&self, message: impl FnOnce(u32) -> ShareMessage, payload: Bytes) -> Result<(), StoreError> {
        let request = self.inner.request(0).await?;
        let message = message(request.number());
        match ask(request, &message, payload).await? {
            (ShareMessage::Done { .. }, _) => Ok(()),
            _ => Err(wrong_answer()),
        }
    }

    async fn ask_space(&self) -> Result<Space, StoreError> {
        let request = self.inner.request(0).await?;
        let message = ShareMessage::Space {
            request: request.number(),
        };
        match ask(request, &message, Bytes::new()).await? {
            (
                ShareMessage::SpaceIs {
                    used_bytes, free_bytes, ..
                },
                _,
            ) => Ok(Space { used_bytes, free_bytes }),
            _ => Err(wrong_answer()),
        }
    }
}

impl Inner {
    /// Whose shares.
    fn owner(&self) -> AccountId {
        self.owner.unwrap_or(self.core.cert.account)
    }

    async fn request(&self, bytes: usize) -> Result<Request, StoreError> {
        self.lane(&self.requests).await?.request(bytes)
    }

    /// The lane in `slot`, opened when it is not there or broken. Those who wait for it share one attempt.
    async fn lane(&self, slot: &Mutex<Slot>) -> Result<Arc<Lane>, StoreError> {
        let mut slot = slot.lock().await;
        if let Some(lane) = slot.lane.as_ref().filter(|lane| !lane.is_broken()) {
            return Ok(lane.clone());
        }
        if let Some((at, error)) = &slot.failed
            && at.elapsed() < FAILURE_TIME
        {
            return Err(error.clone());
        }
        match self.open_lane().await {
            Ok(lane) => {
                *slot = Slot {
                    lane: Some(lane.clone()),
                    failed: None,
                };
                Ok(lane)
            }
            Err(error) => {
                *slot = Slot {
                    lane: None,
                    failed: Some((Instant::now(), error.clone())),
                };
                Err(error)
            }
        }
    }

    async fn open_lane(&self) -> Result<Arc<Lane>, StoreError> {
        let hello = [Frame::bare(&self.core.hello(self.owner))];
        let mut opened = self.core.open(self.device, SHARE_PROTOCOL, &hello).await;
        // It may not have heard yet who joined a moment ago.
        if let Err(OpenError::Greet(GreetError::Refused {
            refusal: Refusal::Stranger | Refusal::Revoked | Refusal::HasLeft,
            ..
        })) = &opened
            && self.membership.exchange(self.device).await.is_ok()
        {
            opened = self.core.open(self.device, SHARE_PROTOCOL, &hello).await;
        }
        match opened {
            Ok(stream) => Ok(Lane::start(self.core.clone(), stream)),
            Err(OpenError::Greet(GreetError::Refused {
                refusal: Refusal::Busy, ..
            })) => Err(StoreError::Busy { retry_after: BUSY_TIME }),
            Err(OpenError::Greet(GreetError::Refused { text, .. })) => Err(StoreError::Refused { reason: text }),
            Err(error) => Err(StoreError::Unreachable {
                reason: error.to_string(),
            }),
        }
    }
}

/// Sends a share from `offset` on. Nothing is copied: frames are slices of the pack that the share was cut from.
async fn send(request: &mut Request, share: &Share, offset: u32) -> Result<(), StoreError> {
    let number = request.number();
    let mut part_start = 0;
    for part in [&share.data, &share.tail] {
        let part_end = part_start + part.len();
        let mut at = (offset as usize).max(part_start);
        while at < part_end {
            if let Some(error) = request.interruption() {
                return Err(error);
            }
            let end = part_end.min(at + PAYLOAD_BYTES_MAX);
            let message = ShareMessage::PutBytes {
                request: number,
                offset: at as u32,
            };
            request
                .say(&message, part.slice(at - part_start..end - part_start))
                .await?;
            at = end;
        }
        part_start = part_end;
    }
    Ok(())
}

/// The heads of a payload.
fn heads_in(payload: &Bytes) -> Result<Vec<Bytes>, StoreError> {
    if !payload.len().is_multiple_of(HEAD_BYTES) {
        return Err(wrong_answer());
    }
    let starts = (0..payload.len()).step_by(HEAD_BYTES);
    Ok(starts.map(|at| payload.slice(at..at + HEAD_BYTES)).collect())
}

/// One message, one answer.
async fn ask(
    mut request: Request,
    message: &ShareMessage,
    payload: Bytes,
) -> Result<(ShareMessage, Bytes), StoreError> {
    request.say(message, payload).await?;
    let answer = request.answer().await?;
    request.settle();
    Ok(answer)
}

impl ShareStore for RemoteStore {
    fn put(&self, id: ShareId, share: Share) -> BoxFuture<'_, Result<PutAck, StoreError>> {
        Box::pin(self.put_share(id, share))
    }
    fn get(&self, id: ShareId, range: Range<u32>) -> BoxFuture<'_, Result<Bytes, StoreError>> {
        Box::pin(self.get_range(id, range))
    }
    fn list(&self, after: Option<ShareId>, limit: u32) -> BoxFuture<'_, Result<Vec<ShareId>, StoreError>> {
        Box::pin(self.list_ids(after, limit))
    }
    fn remove(&self, id: ShareId) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move { self.discard_shares(vec![id]).await.map(drop) })
    }
    fn space(&self) -> BoxFuture<'_, Result<Space, StoreError>> {
        Box::pin(self.ask_space())
    }
    fn discard(&self, ids: Vec<ShareId>) -> BoxFuture<'_, Result<u32, StoreError>> {
        Box::pin(self.discard_shares(ids))
    }
    fn list_trash(&self, after: Option<ShareId>, limit: u32) -> BoxFuture<'_, Result<Vec<ShareId>, StoreError>> {
        Box::pin(self.list_trashed(after, limit))
    }
    fn evidence(&self, id: ShareId) -> BoxFuture<'_, Result<Evidence, StoreError>> {
        Box::pin(self.ask_evidence(id))
    }
    fn recall(&self, ids: Vec<ShareId>) -> BoxFuture<'_, Result<Vec<ShareId>, StoreError>> {
        Box::pin(self.recall_shares(ids))
    }
}

impl HeadStore for RemoteStore {
    fn put_head(&self, head: Bytes) -> BoxFuture<'_, Result<(), StoreError>> {
        if head.len() != HEAD_BYTES {
            let reason = format!("{} bytes are not the length of a head", head.len());
            return Box::pin(std::future::ready(Err(StoreError::Refused { reason })));
        }
        Box::pin(self.do_simple(|request| ShareMessage::PutHead { request }, head))
    }
    fn heads(&self, account: AccountId) -> BoxFuture<'_, Result<Vec<Bytes>, StoreError>> {
        Box::pin(self.ask_heads(account))
    }
    fn old_heads(&self, account: AccountId, after: Option<HeadPlace>) -> BoxFuture<'_, Result<OldHeads, StoreError>> {
        Box::pin(self.ask_old_heads(account, after))
    }
}

impl PromiseStore for RemoteStore {
    fn claim(&self, claim: Bytes) -> BoxFuture<'_, Result<Bytes, StoreError>> {
        Box::pin(self.claim_volume(claim))
    }
    fn promise(&self, account: AccountId, volume: VolumeId) -> BoxFuture<'_, Result<Option<Bytes>, StoreError>> {
        Box::pin(self.ask_promise(account, volume))
    }
    fn voter(&self) -> BoxFuture<'_, Result<VoterId, StoreError>> {
        let voter = VoterId(self.inner.device.0);
        Box::pin(std::future::ready(Ok(voter)))
    }
}
