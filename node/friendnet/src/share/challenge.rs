//! Challenging a peer: a friend's node by question and proof, any other place by ranged reads.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use proto::hash_tree;
use proto::hash_tree::LEAF_BYTES;
use proto::id::{DeviceId, ShareId};
use proto::shape::ShareSize;
use proto::share_store::{PeerStore, StoreError};
use proto::wire::audit;
use proto::wire::audit::{Challenge, Committing};
use upload_queue::care::audit::{Leaf, Outcome};

use crate::share::remote::RemoteStore;

/// How long a peer that was reached may take for all of its answer: then the challenge was left open. Chosen: 1 MiB on a
/// slow line, behind other work.
const ANSWER_TIME: Duration = Duration::from_secs(120);

/// A leaf to be proved, and the size of its share.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    /// Which.
    pub leaf: Leaf,
    /// The share's size.
    pub size: ShareSize,
}

/// What a challenge has found so far.
#[derive(Default)]
struct Found {
    missing: BTreeSet<ShareId>,
    damaged: BTreeSet<ShareId>,
}

impl Found {
    fn outcome(self) -> Outcome {
        if self.missing.is_empty() && self.damaged.is_empty() {
            return Outcome::Success;
        }
        Outcome::Failure {
            missing: self.missing.into_iter().collect(),
            damaged: self.damaged.into_iter().collect(),
        }
    }
}

/// Challenges a friend's node. `nonce` is fresh randomness.
pub async fn friend(store: &RemoteStore, asked: &[Asked], nonce: [u8; 32]) -> Outcome {
    let leaves = asked.iter().map(|asked| (asked.leaf.share, asked.leaf.leaf)).collect();
    let Some(challenge) = Challenge::new(leaves) else {
        return Outcome::Unknown;
    };
    let sizes: Vec<ShareSize> = asked.iter().map(|asked| asked.size).collect();
    // A disk that sleeps takes seconds to wake up; that must not count against its owner.
    if let Some(first) = Challenge::new(challenge.leaves()[..1].to_vec()) {
        let _woken = tokio::time::timeout(ANSWER_TIME, store.challenge(&first, &sizes[..1], nonce)).await;
    }
    let reached = tokio::time::timeout(ANSWER_TIME, store.ping()).await;
    match reached {
        Ok(Ok(())) => {}
        Ok(Err(StoreError::Refused { .. })) => return Outcome::Unknown,
        Ok(Err(_)) | Err(_) => return Outcome::Offline,
    }
    let answer = tokio::time::timeout(ANSWER_TIME, store.challenge(&challenge, &sizes, nonce)).await;
    match answer {
        Ok(Ok(answer)) => judge(store.device(), asked, nonce, &answer).outcome(),
        // It was there a moment ago: not answering is left open, whatever the reason.
        Ok(Err(StoreError::Unreachable { .. } | StoreError::Busy { .. })) | Err(_) => Outcome::Contained,
        Ok(Err(_)) => Outcome::Unknown,
    }
}

/// The answer to a challenge, as it came.
pub struct Answer {
    /// The commitment.
    pub hash: [u8; 32],
    /// Bit i: leaf i is not there.
    pub lacking: u64,
    /// The proofs, end to end.
    pub proofs: Vec<u8>,
}

/// Bytes of the proofs of the leaves that are not lacking.
pub fn proof_bytes(sizes: impl Iterator<Item = ShareSize>, lacking: u64) -> usize {
    let present = sizes.enumerate().filter(|(number, _)| lacking >> number & 1 == 0);
    present.map(|(_, size)| audit::proof_bytes(size)).sum()
}

fn judge(speaker: DeviceId, asked: &[Asked], nonce: [u8; 32], answer: &Answer) -> Found {
    let mut found = Found::default();
    let mut committing = Committing::new(&nonce, speaker);
    let mut rest = answer.proofs.as_slice();
    for (number, Asked { leaf, size }) in asked.iter().enumerate() {
        if answer.lacking >> number & 1 == 1 {
            found.missing.insert(leaf.share);
            continue;
        }
        let Some((proof, behind)) = rest.split_at_checked(audit::proof_bytes(*size)) else {
            found.missing.insert(leaf.share);
            continue;
        };
        rest = behind;
        if audit::proved(leaf.share, leaf.leaf, proof).is_none() {
            found.damaged.insert(leaf.share);
        }
        committing.leaf(leaf.share, leaf.leaf, &proof[..LEAF_BYTES]);
    }
    // It had other bytes when it committed than it shows now: what it shows was fetched since, all of it is doubted.
    if committing.finish() != answer.hash {
        found.damaged.extend(asked.iter().map(|asked| asked.leaf.share));
        found.damaged.retain(|share| !found.missing.contains(share));
    }
    found
}

/// Challenges a place that only keeps: a folder, a bucket. Each leaf is two ranged reads.
pub async fn place(store: &dyn PeerStore, asked: &[Asked]) -> Outcome {
    let mut found = Found::default();
    let began = Instant::now();
    for Asked { leaf, size } in asked {
        if began.elapsed() > ANSWER_TIME {
            return Outcome::Contained;
        }
        match leaf_of(store, *leaf, *size).await {
            Ok(true) => {}
            Ok(false) | Err(StoreError::Corrupt { .. } | StoreError::OutOfRange) => {
                found.damaged.insert(leaf.share);
            }
            Err(StoreError::NotFound) => {
                found.missing.insert(leaf.share);
            }
            Err(StoreError::Unreachable { .. }) => return Outcome::Offline,
            Err(_) => return Outcome::Unknown,
        }
    }
    found.outcome()
}

async fn leaf_of(store: &dyn PeerStore, leaf: Leaf, size: ShareSize) -> Result<bool, StoreError> {
    let data_bytes = size.data_bytes() as u32;
    let start = leaf.leaf.saturating_mul(LEAF_BYTES as u32);
    let table_end = data_bytes + hash_tree::table_bytes(size.data_bytes()) as u32;
    let bytes = store
        .get(leaf.share, start..start.saturating_add(LEAF_BYTES as u32))
        .await?;
    let table = store.get(leaf.share, data_bytes..table_end).await?;
    let right_table =
        table.len() == hash_tree::table_bytes(size.data_bytes()) && hash_tree::table_root(&table) == leaf.share;
    Ok(right_table && hash_tree::check_leaves(&table, leaf.leaf, &bytes).is_ok())
}

#[cfg(test)]
mod tests {
    use proto::share_store::ShareStore;
    use proto::share_store::contract::Fixture;
    use proto::share_store::memory::MemoryStore;

    use super::*;

    /// A share, a leaf of it, and the right answer of `SPEAKER` to a challenge for that leaf.
    fn answered(nonce: [u8; 32]) -> (Vec<Asked>, Answer) {
        let (id, share) = Fixture::new(1).share(0);
        let asked = vec![Asked {
            leaf: Leaf { share: id, leaf: 1 },
            size: share.size(),
        }];
        let bytes = &share.data[LEAF_BYTES..2 * LEAF_BYTES];
        let mut committing = Committing::new(&nonce, SPEAKER);
        committing.leaf(id, 1, bytes);
        let answer = Answer {
            hash: committing.finish(),
            lacking: 0,
            proofs: audit::proof(share.table(), 1, bytes).unwrap(),
        };
        (asked, answer)
    }

    const SPEAKER: DeviceId = DeviceId([4; 32]);

    #[test]
    fn an_answer_holds_for_its_nonce_and_its_speaker_only() {
        let (asked, answer) = answered([1; 32]);
        let share = asked[0].leaf.share;
        let failure = Outcome::Failure {
            missing: Vec::new(),
            damaged: vec![share],
        };
        let outcome = |speaker, nonce| judge(speaker, &asked, nonce, &answer).outcome();
        assert_eq!(outcome(SPEAKER, [1; 32]), Outcome::Success);
        assert_eq!(outcome(SPEAKER, [2; 32]), failure, "an old answer");
        assert_eq!(outcome(DeviceId([5; 32]), [1; 32]), failure, "another device's answer");
    }

    #[test]
    fn whoever_commits_before_it_has_the_bytes_is_found_out() {
        let (asked, mut answer) = answered([1; 32]);
        answer.hash = [0; 32];
        assert!(matches!(
            judge(SPEAKER, &asked, [1; 32], &answer).outcome(),
            Outcome::Failure { .. }
        ));
        let (asked, mut answer) = answered([1; 32]);
        answer.proofs[7] ^= 1;
        assert!(matches!(
            judge(SPEAKER, &asked, [1; 32], &answer).outcome(),
            Outcome::Failure { .. }
        ));
        let (asked, mut answer) = answered([1; 32]);
        (answer.lacking, answer.proofs) = (1, Vec::new());
        let missing = Outcome::Failure {
            missing: vec![asked[0].leaf.share],
            damaged: Vec::new(),
        };
        answer.hash = Committing::new(&[1; 32], SPEAKER).finish();
        assert_eq!(judge(SPEAKER, &asked, [1; 32], &answer).outcome(), missing);
    }

    #[tokio::test]
    async fn a_folder_s_missing_and_damaged_shares_are_told_apart() {
        let (fixture, store) = (Fixture::new(1), MemoryStore::new());
        let mut asked = Vec::new();
        for number in 0..3 {
            let (id, share) = fixture.share(number);
            asked.push(Asked {
                leaf: Leaf { share: id, leaf: 1 },
                size: share.size(),
            });
            store.put(id, share).await.unwrap();
        }
        assert_eq!(place(&store, &asked).await, Outcome::Success);
        store.remove(asked[0].leaf.share).await.unwrap();
        assert!(store.damage(asked[1].leaf.share, LEAF_BYTES + 5));
        let failure = Outcome::Failure {
            missing: vec![asked[0].leaf.share],
            damaged: vec![asked[1].leaf.share],
        };
        assert_eq!(place(&store, &asked).await, failure);
    }
}
