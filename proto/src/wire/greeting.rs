//! The first words on every stream: who is there (docs/protocol/greeting.md).

use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};

use crate::id::AccountId;

/// The first frame each way on every stream.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub enum Greeting {
    /// From the side that opened the stream.
    #[n(0)]
    Hello {
        /// [`super::VERSION`] of the speaker.
        #[n(0)]
        version: u16,
        /// The speaker's encoded `DeviceCert`: its device must be the connection's.
        #[n(1)]
        cert: ByteVec,
        /// Whose shares this stream is about, when not the speaker's own: reading only, for audit and repair.
        #[n(2)]
        owner: Option<AccountId>,
    },
    /// The other side's answer when it goes on.
    #[n(1)]
    Welcome {
        /// [`super::VERSION`] of the speaker.
        #[n(0)]
        version: u16,
        /// The speaker's encoded `DeviceCert`.
        #[n(1)]
        cert: ByteVec,
    },
    /// The other side's answer when it does not; the stream ends.
    #[n(2)]
    Refused {
        /// What the caller can act on.
        #[n(0)]
        refusal: Refusal,
        /// For people.
        #[n(1)]
        text: String,
    },
}

/// Why a greeting was not welcome.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(index_only)]
pub enum Refusal {
    /// The account is no member of the grid.
    #[n(0)]
    Stranger,
    /// The certificate is damaged, or another device's.
    #[n(1)]
    Certificate,
    /// The version is not spoken here.
    #[n(2)]
    Version,
    /// Too many streams now: try again later.
    #[n(3)]
    Busy,
    /// The inviter does not know the ticket, or the proof is wrong.
    #[n(4)]
    TicketUnknown,
    /// The ticket has expired.
    #[n(5)]
    TicketExpired,
    /// Somebody else used the ticket.
    #[n(6)]
    TicketUsed,
    /// The inviter cannot admit members: its device may not, or it may not take this account back.
    #[n(7)]
    CannotAdmit,
    /// What was said is no message of this protocol.
    #[n(8)]
    Malformed,
    /// The grid has as many members as a grid can have.
    #[n(9)]
    GridFull,
    /// The account has left this grid, and has said nothing newer by its words.
    #[n(10)]
    HasLeft,
    /// The account has revoked this device. The frame's payload is the account's word that says so.
    #[n(11)]
    Revoked,
    /// Others keep the account out, too: the inviter alone cannot take it back.
    #[n(12)]
    KeptOut,
}
