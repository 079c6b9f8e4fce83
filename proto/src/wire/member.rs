//! Joining and the roster: what is said on `/gridbackup/member/1` (docs/protocol/member.md).

use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};

use crate::id::DeviceId;
use crate::wire::by_device::ByDevice;
use crate::wire::ticket::TicketId;

/// A message about membership. The side that opened the stream says its hello and one of `Join` and `Digest`.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub enum MemberMessage {
    /// From a stranger, right behind its hello: I was invited. Answers: a welcome and `Roster`, or a refusal.
    #[n(0)]
    Join {
        /// Which ticket.
        #[n(0)]
        ticket: TicketId,
        /// Proof that the speaker holds its secret, good for this connection only.
        #[cbor(n(1), with = "minicbor::bytes")]
        proof: [u8; 32],
        /// The joining account's name for people, at most `roster::NAME_BYTES_MAX` bytes.
        #[n(2)]
        name: String,
        /// The joining account's word that it wants its membership (`roster::acceptance`).
        #[n(3)]
        acceptance: ByDevice,
        /// Encoded `AccountWord`, the newest that the account has said: that it left this grid is taken back by a newer one.
        #[n(4)]
        word: Option<ByteVec>,
    },
    /// From a member, right behind its hello: the BLAKE3 hash of my encoded roster. Answers: a welcome, then `Same` or
    /// `Roster`.
    #[n(1)]
    Digest {
        /// The hash.
        #[cbor(n(0), with = "minicbor::bytes")]
        hash: [u8; 32],
    },
    /// My roster is the same as yours; the stream ends.
    #[n(2)]
    Same,
    /// The payload is the roster as I know it (`wire::roster`). The asker merges it; when it knows more than this, it says
    /// `Roster` too, and the other merges and says `Same`.
    #[n(3)]
    Roster,
}

/// The proof in a `Join`: keyed by the ticket's verifier, over both ends of the connection, so that it is worth nothing to
/// whoever hears it.
pub fn join_proof(verifier: &[u8; 32], inviter: DeviceId, joiner: DeviceId) -> [u8; 32] {
    let mut ends = [0; 64];
    ends[..32].copy_from_slice(&inviter.0);
    ends[32..].copy_from_slice(&joiner.0);
    *blake3::keyed_hash(verifier, &ends).as_bytes()
}
