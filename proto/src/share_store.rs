//! The trait that everything which keeps shares implements: a friend's node, a folder, a bucket, memory.
//!
//! It is small on purpose: limiter, recorder and faults are decorators of it, and audits need nothing but ranged `get`.

use std::future::Future;
use std::ops::Range;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use minicbor::{Decode, Encode};

use crate::discard::Evidence;
use crate::id::{AccountId, DeviceId, ShareId, VolumeId, VoterId};
use crate::share::Share;

pub mod contract;
pub mod faulty;
pub mod memory;

/// A future that can be stored behind a trait object.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Why a store did not do what was asked, sorted by what the caller does about it.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
pub enum StoreError {
    /// Ask elsewhere.
    #[error("The share or record is not there")]
    NotFound,
    /// Place the share elsewhere; ask again when space was made.
    #[error("No space left: {reason}")]
    Full {
        /// What is full: the disk, the quota.
        reason: String,
    },
    /// Ask again, not before `retry_after`.
    #[error("Busy, try again in {} s", retry_after.as_secs())]
    Busy {
        /// The shortest wait the store asks for.
        retry_after: Duration,
    },
    /// Ask again later, with back-off.
    #[error("Not reachable: {reason}")]
    Unreachable {
        /// What the transport said.
        reason: String,
    },
    /// Never ask this again in this form.
    #[error("Refused: {reason}")]
    Refused {
        /// What the store said.
        reason: String,
    },
    /// The store holds something else than what was put: repair it, and count it against the peer.
    #[error("Corrupt: {reason}")]
    Corrupt {
        /// What did not match.
        reason: String,
    },
    /// The range ends behind the stored form of the share.
    #[error("Range is outside of the share")]
    OutOfRange,
}

impl StoreError {
    /// A refusal for this reason.
    pub fn refused(reason: impl std::fmt::Display) -> Self {
        Self::Refused {
            reason: reason.to_string(),
        }
    }
}

/// What a store did for a `put`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PutAck {
    /// Bytes that really travelled or were written: less than the share when it was there in part or in full.
    pub bytes_sent: u64,
    /// The peer's signed receipt (`wire::Receipt`, encoded), where the peer is one that signs.
    pub receipt: Option<Bytes>,
}

/// Space as a store reports it to this caller.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Space {
    /// Bytes that this caller's shares take, in stored form.
    pub used_bytes: u64,
    /// Bytes still granted to this caller; `None` when the store sets no limit that it can tell.
    pub free_bytes: Option<u64>,
}

/// Most heads in one answer about those that were replaced (docs/protocol/share.md).
pub const OLD_HEADS_MAX: usize = 64;

/// Where a replaced head stands among those of its account: by the day on which it was replaced, then by device. A store counts its
/// own days.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Encode, Decode)]
pub struct HeadPlace {
    /// The day.
    #[n(0)]
    pub day: u32,
    /// The device.
    #[n(1)]
    pub device: DeviceId,
}

/// A head that was replaced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OldHead {
    /// As it was put.
    pub encoded: Bytes,
    /// It was put more than so many days ago, as the store counts: it was the newest of its device when a day began.
    pub age_days: u16,
}

/// Some of the heads that were replaced, in the order of their places.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OldHeads {
    /// At most [`OLD_HEADS_MAX`].
    pub heads: Vec<OldHead>,
    /// The place of the last of them, to be asked for those behind it; `None`: there are no more.
    pub next: Option<HeadPlace>,
}

/// A place that keeps shares.
///
/// Callers may drop any future: a `put` is then complete, resumable or invisible, never half visible.
pub trait ShareStore: Send + Sync {
    /// Keeps `share` durably before it answers. The same share again succeeds and costs nothing; bytes that do not hash
    /// to `id` are `Refused`.
    fn put(&self, id: ShareId, share: Share) -> BoxFuture<'_, Result<PutAck, StoreError>>;
    /// Returns exactly `range` of the stored form (data, then tail), or `OutOfRange`. The caller checks the bytes: a
    /// store is never trusted.
    fn get(&self, id: ShareId, range: Range<u32>) -> BoxFuture<'_, Result<Bytes, StoreError>>;
    /// Ids greater than `after`, ascending, at most `limit` of them: those that this caller put.
    fn list(&self, after: Option<ShareId>, limit: u32) -> BoxFuture<'_, Result<Vec<ShareId>, StoreError>>;
    /// Gives a share up: it is no longer listed, but may be got while the store's trash keeps it. Removing what is not there
    /// succeeds.
    fn remove(&self, id: ShareId) -> BoxFuture<'_, Result<(), StoreError>>;
    /// Bytes used by this caller and bytes still granted to it.
    fn space(&self) -> BoxFuture<'_, Result<Space, StoreError>>;

    /// Moves shares to the store's trash, where they wait for some time before they are gone; returns how many were there.
    /// `ids` ascend and are at most [`IDS_MAX`](crate::wire::frame::IDS_MAX). Repeating it succeeds.
    fn discard(&self, ids: Vec<ShareId>) -> BoxFuture<'_, Result<u32, StoreError>> {
        drop(ids);
        Box::pin(std::future::ready(Err(StoreError::Refused {
            reason: "this store keeps no trash".to_owned(),
        })))
    }
    /// As `list`, of the shares in the trash.
    fn list_trash(&self, after: Option<ShareId>, limit: u32) -> BoxFuture<'_, Result<Vec<ShareId>, StoreError>> {
        let _no_trash = (after, limit);
        Box::pin(std::future::ready(Ok(Vec::new())))
    }
    /// By which discard a share in the trash was given up: what shows to others than its owner that it was.
    fn evidence(&self, id: ShareId) -> BoxFuture<'_, Result<Evidence, StoreError>> {
        let _no_trash = id;
        Box::pin(std::future::ready(Err(StoreError::NotFound)))
    }
    /// Takes shares out of the trash; returns those of `ids` that are kept now. Limits as of `discard`.
    fn recall(&self, ids: Vec<ShareId>) -> BoxFuture<'_, Result<Vec<ShareId>, StoreError>> {
        drop(ids);
        Box::pin(std::future::ready(Ok(Vec::new())))
    }
}

/// A place that keeps the signed roots of backups, so that they are found again with nothing but the phrase.
pub trait HeadStore: Send + Sync {
    /// Keeps an encoded [`crate::head::Head`]. A head older than the one held for that device is `Refused`; the same
    /// again succeeds.
    fn put_head(&self, head: Bytes) -> BoxFuture<'_, Result<(), StoreError>>;
    /// The newest head of each device of `account`, encoded; the caller checks signatures.
    fn heads(&self, account: AccountId) -> BoxFuture<'_, Result<Vec<Bytes>, StoreError>>;
    /// Heads that were replaced, as far back as the store's trash goes: of each device and day, the one with which the day
    /// began. Those with places behind `after`, as many as one answer holds.
    fn old_heads(&self, account: AccountId, after: Option<HeadPlace>) -> BoxFuture<'_, Result<OldHeads, StoreError>> {
        let _no_trash = (account, after);
        Box::pin(std::future::ready(Ok(OldHeads::default())))
    }
}

/// A place that votes on who writes a volume: it keeps one [`Promise`](crate::promise::Promise) a volume, never lowers it and never
/// forgets it (docs/format/promise.md §3).
///
/// What is no voter says so by the methods that it leaves out: `Refused`. Any other error says nothing about what became of a claim:
/// it may be the promise by now, and is brought again. A caller checks what it is answered, as it checks shares.
pub trait PromiseStore: Send + Sync {
    /// Judges an encoded claim; answers with the promise that the store has then, durably: the claim's epoch, or the higher one that
    /// refuses it. Bytes that are no claim, or one of an account or a device that may not claim here, are `Refused`.
    fn claim(&self, claim: Bytes) -> BoxFuture<'_, Result<Bytes, StoreError>> {
        drop(claim);
        no_voter()
    }
    /// The promise of a volume of `account`, as it is read: only an answer to a claim says that it is durable. One that is damaged is
    /// `Corrupt`, never none.
    fn promise(&self, account: AccountId, volume: VolumeId) -> BoxFuture<'_, Result<Option<Bytes>, StoreError>> {
        let _no_voter = (account, volume);
        no_voter()
    }
    /// Which voter it is, whichever machine asks, and by whichever of its stores: those of one bucket are one voter.
    fn voter(&self) -> BoxFuture<'_, Result<VoterId, StoreError>> {
        no_voter()
    }
}

fn no_voter<T: Send + 'static>() -> BoxFuture<'static, Result<T, StoreError>> {
    let refused = StoreError::refused("this place is no voter");
    Box::pin(std::future::ready(Err(refused)))
}

/// What a peer of a backup is: shares, heads and promises.
pub trait PeerStore: ShareStore + HeadStore + PromiseStore {}

impl<T: ShareStore + HeadStore + PromiseStore + ?Sized> PeerStore for T {}
