//! Asking a friend's node for a ping and for proofs.

use bytes::Bytes;
use proto::shape::ShareSize;
use proto::share_store::StoreError;
use proto::wire::audit::{Challenge, PROOF_BYTES_MAX};
use proto::wire::share::ShareMessage;

use super::{RemoteStore, ask, wrong_answer};
use crate::share::challenge::{Answer, proof_bytes};

impl RemoteStore {
    /// Whether it answers at all, on the lane that proofs travel on.
    pub async fn ping(&self) -> Result<(), StoreError> {
        let request = self.inner.request(0).await?;
        let message = ShareMessage::Ping {
            request: request.number(),
        };
        match ask(request, &message, Bytes::new()).await?.0 {
            ShareMessage::Done { .. } => Ok(()),
            _ => Err(wrong_answer()),
        }
    }

    /// Asks for proofs of leaves of shares that have these sizes. The answer is not judged here.
    pub async fn challenge(
        &self,
        challenge: &Challenge,
        sizes: &[ShareSize],
        nonce: [u8; 32],
    ) -> Result<Answer, StoreError> {
        let mut request = self.inner.request(sizes.len() * PROOF_BYTES_MAX).await?;
        let message = ShareMessage::Challenge {
            request: request.number(),
            nonce,
        };
        request.say(&message, challenge.encode().into()).await?;
        let (ShareMessage::Commitment { hash, lacking, .. }, _) = request.answer().await? else {
            return Err(wrong_answer());
        };
        let expected = proof_bytes(sizes.iter().copied(), lacking);
        let mut proofs = Vec::with_capacity(expected);
        while proofs.len() < expected {
            match request.answer().await? {
                (ShareMessage::Proofs { .. }, payload) if proofs.len() + payload.len() <= expected => {
                    proofs.extend_from_slice(&payload);
                }
                _ => return Err(wrong_answer()),
            }
        }
        request.settle();
        Ok(Answer { hash, lacking, proofs })
    }
}
