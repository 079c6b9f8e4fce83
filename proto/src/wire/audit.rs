//! Challenges: prove now that you hold these leaves (docs/protocol/audit.md).
//!
//! First comes a commitment of 32 bytes, for which all leaves must have been read: how long it takes says little about the
//! line and much about where the leaves are. Then come the leaves themselves, each with its way up the hash tree, so that
//! the asker needs to know share ids only. The commitment binds nonce and speaker: nothing said before, or by another
//! device, is an answer. Leaves out whom to ask for what, and how long to wait.

use crate::hash_tree;
use crate::hash_tree::LEAF_BYTES;
use crate::id::{DeviceId, ShareId};
use crate::shape::ShareSize;
use crate::wire::frame::PAYLOAD_BYTES_MAX;

/// Most leaves of a challenge: as many as `lacking` has bits.
pub const LEAVES_MAX: usize = 64;
/// Most proofs in one frame: they fill its payload.
pub const PROOFS_PER_FRAME: usize = PAYLOAD_BYTES_MAX / PROOF_BYTES_MAX;
/// Most bytes of a proof: a leaf of the large share and its way up.
pub const PROOF_BYTES_MAX: usize = LEAF_BYTES + 8 * HASH_BYTES;

/// Bytes of a BLAKE3 hash.
const HASH_BYTES: usize = 32;
/// Bytes of an entry of the payload: share id, number of the leaf (u32, little endian).
const ENTRY_BYTES: usize = ShareId::LEN + 4;
/// What the commitment's key is derived for.
const CONTEXT: &str = "gridbackup 2026 audit commitment";

/// What is asked for: share and number of the leaf.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Challenge {
    leaves: Vec<(ShareId, u32)>,
}

impl Challenge {
    /// `None` for no leaves, or more than [`LEAVES_MAX`].
    pub fn new(leaves: Vec<(ShareId, u32)>) -> Option<Self> {
        (1..=LEAVES_MAX).contains(&leaves.len()).then_some(Self { leaves })
    }

    /// The leaves, in order.
    pub fn leaves(&self) -> &[(ShareId, u32)] {
        &self.leaves
    }

    /// The payload that travels.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.leaves.len() * ENTRY_BYTES);
        for (share, leaf) in &self.leaves {
            bytes.extend_from_slice(&share.0);
            bytes.extend_from_slice(&leaf.to_le_bytes());
        }
        bytes
    }

    /// Reads a payload; `None` if it is none.
    pub fn decode(payload: &[u8]) -> Option<Self> {
        let (entries, rest) = payload.as_chunks::<ENTRY_BYTES>();
        if !rest.is_empty() || entries.len() > LEAVES_MAX {
            return None;
        }
        let entry = |entry: &[u8; ENTRY_BYTES]| {
            let (share, leaf) = entry.split_first_chunk::<{ ShareId::LEN }>()?;
            Some((ShareId(*share), u32::from_le_bytes(leaf.try_into().ok()?)))
        };
        Self::new(entries.iter().filter_map(entry).collect())
    }
}

/// A commitment as it is made.
pub struct Committing(blake3::Hasher);

impl Committing {
    /// By this device, for this nonce.
    pub fn new(nonce: &[u8; 32], speaker: DeviceId) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key(CONTEXT);
        hasher.update(nonce).update(&speaker.0);
        Self(hasher)
    }

    /// The next leaf that is not lacking.
    pub fn leaf(&mut self, share: ShareId, leaf: u32, bytes: &[u8]) {
        self.0.update(&share.0).update(&leaf.to_le_bytes()).update(bytes);
    }

    /// The commitment.
    pub fn finish(&self) -> [u8; 32] {
        *self.0.finalize().as_bytes()
    }
}

/// The proof of a leaf, as it travels: its bytes, then its way up.
pub fn proof(table: &[u8], leaf: u32, bytes: &[u8]) -> Option<Vec<u8>> {
    let path = hash_tree::path(table, leaf)?;
    Some([bytes, path.as_flattened()].concat())
}

/// Bytes of a proof in a share of this size.
pub fn proof_bytes(size: ShareSize) -> usize {
    let leaves = size.data_bytes() / LEAF_BYTES;
    LEAF_BYTES + leaves.ilog2() as usize * HASH_BYTES
}

/// The leaf's bytes, if `proof` proves that they are leaf number `leaf` of `share`.
pub fn proved(share: ShareId, leaf: u32, proof: &[u8]) -> Option<&[u8]> {
    let (bytes, path) = proof.split_at_checked(LEAF_BYTES)?;
    let (path, rest) = path.as_chunks::<HASH_BYTES>();
    let tree_root = hash_tree::path_root(leaf, bytes, path)?;
    (rest.is_empty() && tree_root == share).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::fixtures::pattern;

    #[test]
    fn a_proof_holds_for_its_leaf_only() {
        for size in ShareSize::ALL {
            let bytes = pattern("audit", size.data_bytes());
            let table = hash_tree::leaf_table(&bytes);
            let share = hash_tree::table_root(&table);
            let good = proof(&table, 3, &bytes[3 * LEAF_BYTES..4 * LEAF_BYTES]).unwrap();
            assert_eq!(good.len(), proof_bytes(size));
            assert!(good.len() <= PROOF_BYTES_MAX);
            assert_eq!(proved(share, 3, &good), Some(&good[..LEAF_BYTES]));
            assert_eq!(proved(share, 2, &good), None);
            assert_eq!(proved(ShareId([1; 32]), 3, &good), None);
            for at in [0, LEAF_BYTES - 1, LEAF_BYTES, good.len() - 1] {
                let mut bad = good.clone();
                bad[at] ^= 1;
                assert_eq!(proved(share, 3, &bad), None);
            }
            assert_eq!(proved(share, 3, &good[..good.len() - 1]), None);
            assert_eq!(proved(share, 3, &good[..100]), None);
        }
    }

    #[test]
    fn a_commitment_depends_on_nonce_speaker_and_every_leaf() {
        let commit = |nonce: u8, speaker: u8, leaf: u32, byte: u8| {
            let mut committing = Committing::new(&[nonce; 32], DeviceId([speaker; 32]));
            committing.leaf(ShareId([9; 32]), leaf, &[byte; 100]);
            committing.finish()
        };
        let all = [
            commit(1, 1, 1, 1),
            commit(2, 1, 1, 1),
            commit(1, 2, 1, 1),
            commit(1, 1, 2, 1),
            commit(1, 1, 1, 2),
        ];
        let distinct: std::collections::BTreeSet<_> = all.iter().collect();
        assert_eq!(distinct.len(), all.len());
    }

    #[test]
    fn the_longest_answer_fits_its_frames() {
        const { assert!(PROOFS_PER_FRAME * PROOF_BYTES_MAX <= PAYLOAD_BYTES_MAX && PROOFS_PER_FRAME > 0) };
        assert!(Challenge::new(Vec::new()).is_none());
        assert!(Challenge::new(vec![(ShareId([0; 32]), 0); LEAVES_MAX + 1]).is_none());
    }

    proptest! {
        #[test]
        fn challenges_come_back_and_any_bytes_are_read_without_harm(
            leaves in prop::collection::vec((any::<[u8; 32]>(), any::<u32>()), 1..=LEAVES_MAX),
            other in prop::collection::vec(any::<u8>(), 0..300),
        ) {
            let challenge = Challenge::new(leaves.into_iter().map(|(id, leaf)| (ShareId(id), leaf)).collect()).unwrap();
            prop_assert_eq!(Challenge::decode(&challenge.encode()), Some(challenge));
            if let Some(read) = Challenge::decode(&other) {
                prop_assert_eq!(read.encode(), other);
            }
        }
    }
}
