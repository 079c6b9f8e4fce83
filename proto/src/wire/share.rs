//! Shares, heads, promises and space: what is said on `/gridbackup/share/1` (docs/protocol/share.md).
//!
//! The side that opened the stream asks, the other answers. Many requests may be open; `request` is chosen by the asker and
//! comes back with every answer. Bytes of shares travel as payloads.

use std::time::Duration;

use minicbor::bytes::{ByteArray, ByteVec};
use minicbor::{Decode, Encode};

use crate::id::{AccountId, ShareId, VolumeId};
use crate::share_store::{HeadPlace, StoreError};

/// Most bytes of a reason for people.
pub const REASON_BYTES_MAX: usize = 512;

/// A message about shares.
///
/// Every one has the number of the request that it makes or answers, which the asker chose.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
#[expect(missing_docs, reason = "`request` is the same in all variants, and said above")]
pub enum ShareMessage {
    /// I have a share for you. Answers: `PutFrom`, `PutAck` or `Failed`.
    #[n(0)]
    Put {
        #[n(0)]
        request: u32,
        #[n(1)]
        id: ShareId,
        /// Bytes of its stored form.
        #[n(2)]
        stored_bytes: u32,
    },
    /// Send it, from this offset on: what lies before is here already.
    #[n(1)]
    PutFrom {
        #[n(0)]
        request: u32,
        /// First byte to send.
        #[n(1)]
        offset: u32,
    },
    /// The payload is the stored form from `offset` on. Offsets are without gaps.
    #[n(2)]
    PutBytes {
        #[n(0)]
        request: u32,
        /// Where the payload belongs.
        #[n(1)]
        offset: u32,
    },
    /// The share is durable here.
    #[n(3)]
    PutAck {
        #[n(0)]
        request: u32,
        /// Encoded [`super::receipt::Receipt`].
        #[n(1)]
        receipt: ByteVec,
    },
    /// Give me this range of a stored form. Answers: `GetBytes` until all is sent, or `Failed`.
    #[n(4)]
    Get {
        #[n(0)]
        request: u32,
        #[n(1)]
        id: ShareId,
        /// First byte.
        #[n(2)]
        start: u32,
        /// One behind the last byte.
        #[n(3)]
        end: u32,
    },
    /// The payload is the stored form from `offset` on. Offsets are without gaps; an empty range has one empty payload.
    #[n(5)]
    GetBytes {
        #[n(0)]
        request: u32,
        /// Where the payload belongs.
        #[n(1)]
        offset: u32,
    },
    /// Which shares of mine do you hold? Answers: `Ids` or `Failed`.
    #[n(6)]
    List {
        #[n(0)]
        request: u32,
        /// Only ids greater than this one.
        #[n(1)]
        after: Option<ShareId>,
        /// Most ids wanted; the answer has at most [`IDS_MAX`](super::frame::IDS_MAX).
        #[n(2)]
        limit: u32,
    },
    /// The payload is ids, ascending.
    #[n(7)]
    Ids {
        #[n(0)]
        request: u32,
    },
    /// Forget a share. Answers: `Done` or `Failed`.
    #[n(8)]
    Remove {
        #[n(0)]
        request: u32,
        #[n(1)]
        id: ShareId,
    },
    /// It is done, durably where that matters.
    #[n(9)]
    Done {
        #[n(0)]
        request: u32,
    },
    /// How much of your space do I use? Answers: `SpaceIs` or `Failed`.
    #[n(10)]
    Space {
        #[n(0)]
        request: u32,
    },
    /// This much.
    #[n(11)]
    SpaceIs {
        #[n(0)]
        request: u32,
        /// Bytes of the caller's stored shares.
        #[n(1)]
        used_bytes: u64,
        /// Bytes still granted.
        #[n(2)]
        free_bytes: Option<u64>,
    },
    /// The payload is a head of mine: keep it. Answers: `Done` or `Failed`.
    #[n(12)]
    PutHead {
        #[n(0)]
        request: u32,
    },
    /// Which heads of this account do you hold? Answers: `HeadsAre` or `Failed`.
    #[n(13)]
    Heads {
        #[n(0)]
        request: u32,
        #[n(1)]
        account: AccountId,
    },
    /// The payload is heads, `HEAD_BYTES` each.
    #[n(14)]
    HeadsAre {
        #[n(0)]
        request: u32,
    },
    /// The request failed; nothing more comes for it.
    #[n(15)]
    Failed {
        #[n(0)]
        request: u32,
        #[n(1)]
        failure: Failure,
    },
    /// I no longer want an answer. What was sent of a share is kept for a later put.
    #[n(16)]
    Cancel {
        #[n(0)]
        request: u32,
    },
    /// Which discard of mine did you take last? Answers: `LastDiscardIs` or `Failed`.
    #[n(17)]
    LastDiscard {
        #[n(0)]
        request: u32,
    },
    /// This one; number and hash are zero when there was none.
    #[n(18)]
    LastDiscardIs {
        #[n(0)]
        request: u32,
        #[n(1)]
        number: u64,
        /// BLAKE3 of its encoding.
        #[n(2)]
        hash: ByteArray<32>,
    },
    /// The payload is ids, ascending: move those shares to the trash. Answers: `Discarded` or `Failed`.
    #[n(19)]
    Discard {
        #[n(0)]
        request: u32,
        /// Encoded [`crate::discard::Discard`].
        #[n(1)]
        discard: ByteVec,
    },
    /// It is done, durably.
    #[n(20)]
    Discarded {
        #[n(0)]
        request: u32,
        /// Shares that were there and are in the trash now.
        #[n(1)]
        count: u32,
    },
    /// Which shares of mine are in your trash? Answers: `Ids` or `Failed`.
    #[n(21)]
    Trash {
        #[n(0)]
        request: u32,
        /// Only ids greater than this one.
        #[n(1)]
        after: Option<ShareId>,
        /// Most ids wanted; the answer has at most [`IDS_MAX`](super::frame::IDS_MAX).
        #[n(2)]
        limit: u32,
    },
    /// The payload is ids, ascending: take those shares out of the trash. Answers: `Ids` with those that are kept now, or
    /// `Failed`.
    #[n(22)]
    Recall {
        #[n(0)]
        request: u32,
    },
    /// Which heads of this account were replaced lately? Answers: `OldHeadsAre` or `Failed`.
    #[n(23)]
    OldHeads {
        #[n(0)]
        request: u32,
        #[n(1)]
        account: AccountId,
        /// Only those with places behind this one.
        #[n(2)]
        after: Option<HeadPlace>,
    },
    /// The payload is a [`super::pass_on::PassOrder`]: bring a pack of mine to its holders. Answers: `Passing` or `Failed`.
    #[n(24)]
    PassOn {
        #[n(0)]
        request: u32,
    },
    /// The order is durable; this is how far it is. The payload is the receipts of those who have their share
    /// ([`super::pass_on::read_receipts`]).
    #[n(25)]
    Passing {
        #[n(0)]
        request: u32,
        /// Numbers of the shares that are here.
        #[n(1)]
        have: ByteVec,
        /// Numbers of the shares that could not be brought to their target when that was last tried.
        #[n(2)]
        failing: ByteVec,
    },
    /// A share of a pack that is to be passed on, not kept. Answers: `PutFrom`, `Done` or `Failed`.
    #[n(26)]
    PutToPass {
        #[n(0)]
        request: u32,
        #[n(1)]
        id: ShareId,
        /// Bytes of its stored form.
        #[n(2)]
        stored_bytes: u32,
    },
    /// The payload is heads that were replaced, `HEAD_BYTES` each, in the order of their places.
    #[n(27)]
    OldHeadsAre {
        #[n(0)]
        request: u32,
        /// Of each, the whole days since the day that it began.
        #[n(1)]
        ages: Vec<u16>,
        /// The place of the last, if there are more behind it.
        #[n(2)]
        next: Option<HeadPlace>,
    },
    /// By which discard was this share given up, which is in your trash? Answers: `EvidenceIs` or `Failed`.
    #[n(28)]
    Evidence {
        #[n(0)]
        request: u32,
        #[n(1)]
        id: ShareId,
    },
    /// By this one; the payload is its ids.
    #[n(29)]
    EvidenceIs {
        #[n(0)]
        request: u32,
        /// Encoded [`crate::discard::Discard`].
        #[n(1)]
        discard: ByteVec,
    },
    /// Answer at once, without looking at anything. Answer: `Done`.
    #[n(32)]
    Ping {
        #[n(0)]
        request: u32,
    },
    /// Prove that you hold the leaves in the payload ([`super::audit::Challenge`]). Answers: `Commitment`, then `Proofs`
    /// until all leaves that are not lacking are proved; or `Failed`.
    #[n(33)]
    Challenge {
        #[n(0)]
        request: u32,
        /// Fresh randomness of the asker.
        #[cbor(n(1), with = "minicbor::bytes")]
        nonce: [u8; 32],
    },
    /// What is here was read: this is its hash (`audit::Committing`), to be proved next.
    #[n(34)]
    Commitment {
        #[n(0)]
        request: u32,
        /// Over nonce, speaker and leaves.
        #[cbor(n(1), with = "minicbor::bytes")]
        hash: [u8; 32],
        /// Bit i: leaf i of the challenge is not here.
        #[n(2)]
        lacking: u64,
    },
    /// The payload is proofs, in the order of the challenge, of the leaves that are not lacking.
    #[n(35)]
    Proofs {
        #[n(0)]
        request: u32,
    },
    /// The payload is a [`Promise`](crate::promise::Promise) that a device of mine signed: judge it. Answers: `PromiseIs` with what is
    /// promised then, durably; or `Failed`.
    #[n(36)]
    Claim {
        #[n(0)]
        request: u32,
    },
    /// What is promised of this volume of mine? Answers: `PromiseIs` or `Failed`.
    #[n(37)]
    PromiseOf {
        #[n(0)]
        request: u32,
        #[n(1)]
        volume: VolumeId,
    },
    /// The payload is the promise, `PROMISE_BYTES`; empty: there is none.
    #[n(38)]
    PromiseIs {
        #[n(0)]
        request: u32,
    },
}

impl ShareMessage {
    /// Number of the request that this message belongs to.
    pub fn request(&self) -> u32 {
        match self {
            Self::Put { request, .. }
            | Self::PutFrom { request, .. }
            | Self::PutBytes { request, .. }
            | Self::PutAck { request, .. }
            | Self::Get { request, .. }
            | Self::GetBytes { request, .. }
            | Self::List { request, .. }
            | Self::Ids { request }
            | Self::Remove { request, .. }
            | Self::Done { request }
            | Self::Space { request }
            | Self::SpaceIs { request, .. }
            | Self::PutHead { request }
            | Self::Heads { request, .. }
            | Self::HeadsAre { request }
            | Self::Failed { request, .. }
            | Self::Cancel { request }
            | Self::LastDiscard { request }
            | Self::LastDiscardIs { request, .. }
            | Self::Discard { request, .. }
            | Self::Discarded { request, .. }
            | Self::Trash { request, .. }
            | Self::Recall { request }
            | Self::OldHeads { request, .. }
            | Self::OldHeadsAre { request, .. }
            | Self::Evidence { request, .. }
            | Self::EvidenceIs { request, .. }
            | Self::PassOn { request }
            | Self::Passing { request, .. }
            | Self::PutToPass { request, .. }
            | Self::Ping { request }
            | Self::Challenge { request, .. }
            | Self::Commitment { request, .. }
            | Self::Proofs { request }
            | Self::Claim { request }
            | Self::PromiseOf { request, .. }
            | Self::PromiseIs { request } => *request,
        }
    }
}

/// A `StoreError` on the wire.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub enum Failure {
    /// `StoreError::NotFound`.
    #[n(0)]
    NotFound,
    /// `StoreError::Full`.
    #[n(1)]
    Full(#[n(0)] String),
    /// `StoreError::Busy`, with the seconds to wait.
    #[n(2)]
    Busy(#[n(0)] u32),
    /// `StoreError::Unreachable`: the holder's own store does not answer.
    #[n(3)]
    Unreachable(#[n(0)] String),
    /// `StoreError::Refused`.
    #[n(4)]
    Refused(#[n(0)] String),
    /// `StoreError::Corrupt`.
    #[n(5)]
    Corrupt(#[n(0)] String),
    /// `StoreError::OutOfRange`.
    #[n(6)]
    OutOfRange,
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::NotFound => Self::NotFound,
            StoreError::Full { reason } => Self::Full(shortened(reason)),
            StoreError::Busy { retry_after } => Self::Busy(u32::try_from(retry_after.as_secs()).unwrap_or(u32::MAX)),
            StoreError::Unreachable { reason } => Self::Unreachable(shortened(reason)),
            StoreError::Refused { reason } => Self::Refused(shortened(reason)),
            StoreError::Corrupt { reason } => Self::Corrupt(shortened(reason)),
            StoreError::OutOfRange => Self::OutOfRange,
        }
    }
}

impl From<Failure> for StoreError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::NotFound => Self::NotFound,
            Failure::Full(reason) => Self::Full {
                reason: shortened(reason),
            },
            Failure::Busy(secs) => Self::Busy {
                retry_after: Duration::from_secs(secs.into()),
            },
            Failure::Unreachable(reason) => Self::Unreachable {
                reason: shortened(reason),
            },
            Failure::Refused(reason) => Self::Refused {
                reason: shortened(reason),
            },
            Failure::Corrupt(reason) => Self::Corrupt {
                reason: shortened(reason),
            },
            Failure::OutOfRange => Self::OutOfRange,
        }
    }
}

/// A reason within its limit.
pub fn shortened(mut reason: String) -> String {
    reason.truncate(reason.floor_char_boundary(REASON_BYTES_MAX));
    reason
}
