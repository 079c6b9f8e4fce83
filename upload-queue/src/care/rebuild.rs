//! Shares of a pack built anew from others of it: fetched, checked, computed, checked. Needs no key.

use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use proto::erasure::ErasureError;
use proto::id::ShareId;
use proto::manifest::Manifest;
use proto::share::Share;
use proto::share_store::{PeerStore, StoreError};
use proto::{erasure, hash_tree};

/// A place where a share of the pack should be.
#[derive(Clone)]
pub struct Source {
    /// The share's number in the manifest.
    pub index: u8,
    /// Where it is.
    pub store: Arc<dyn PeerStore>,
}

/// Shares that could not be built.
#[derive(Debug, thiserror::Error)]
pub enum RebuildError {
    /// Fewer than k sound shares came.
    #[error("{have} sound shares could be fetched, {k} are needed")]
    TooFew {
        /// Different sound shares that came.
        have: usize,
        /// Shares needed.
        k: u8,
    },
    /// The code did not take them.
    #[error(transparent)]
    Code(#[from] ErasureError),
    /// What was computed is not what the manifest names: whoever made the pack made it wrong.
    #[error("Share {index} cannot be built: the pack's parity does not belong to its data")]
    Wrong {
        /// The share's number.
        index: u8,
    },
    /// The runtime is shutting down.
    #[error("The work was cut off")]
    Stopped,
}

/// What was built, and what it cost.
pub struct Built {
    /// Number, id and stored form of each share that was wanted.
    pub shares: Vec<(u8, ShareId, Share)>,
    /// Bytes that came from peers.
    pub bytes_fetched: u64,
    /// Sources that turned out not to have their share, or not intact: their numbers in the list given.
    pub bad: Vec<usize>,
}

/// Builds the shares `wanted` of a pack. Sources are tried in order, as many at a time as are needed. Holds up to n shares
/// in memory. May be dropped.
pub async fn build(manifest: &Manifest, sources: &[Source], wanted: &[u8]) -> Result<Built, RebuildError> {
    let needed = usize::from(manifest.shape.k);
    let (mut have, mut bad, mut bytes_fetched) = (Vec::<(u8, Share)>::new(), Vec::new(), 0);
    let mut next = sources.iter().enumerate();
    let mut asked = FuturesUnordered::new();
    let enough = |have: &[(u8, Share)]| {
        have.len() >= needed || wanted.iter().all(|index| have.iter().any(|(other, _)| other == index))
    };
    while !enough(&have) {
        while have.len() + asked.len() < needed {
            let Some((number, source)) = next.next() else { break };
            let id = manifest.shares[usize::from(source.index)];
            let stored_bytes = manifest.shape.share.stored_bytes() as u32;
            asked.push(async move {
                (
                    number,
                    source.index,
                    whole_share(&*source.store, id, stored_bytes).await,
                )
            });
        }
        let Some((number, index, fetched)) = asked.next().await else {
            break;
        };
        match fetched {
            Ok(share) => {
                bytes_fetched += share.stored_bytes() as u64;
                if have.iter().all(|(other, _)| *other != index) {
                    have.push((index, share));
                }
            }
            Err(error) => {
                tracing::info!(pack = %manifest.pack.short(), index, %error, "a share cannot be built from");
                if matches!(
                    error,
                    StoreError::NotFound | StoreError::Corrupt { .. } | StoreError::OutOfRange
                ) {
                    bad.push(number);
                }
            }
        }
    }
    if !enough(&have) {
        return Err(RebuildError::TooFew {
            have: have.len(),
            k: manifest.shape.k,
        });
    }
    let (manifest, wanted) = (manifest.clone(), wanted.to_vec());
    let shares = tokio::task::spawn_blocking(move || compute(&manifest, &have, &wanted))
        .await
        .map_err(|_| RebuildError::Stopped)??;
    Ok(Built {
        shares,
        bytes_fetched,
        bad,
    })
}

fn compute(
    manifest: &Manifest,
    have: &[(u8, Share)],
    wanted: &[u8],
) -> Result<Vec<(u8, ShareId, Share)>, RebuildError> {
    let ranges: Vec<(u8, &[u8])> = have
        .iter()
        .map(|(index, share)| (*index, share.data.as_ref()))
        .collect();
    let mut built = Vec::with_capacity(wanted.len());
    for &index in wanted {
        let id = *manifest
            .shares
            .get(usize::from(index))
            .ok_or(RebuildError::Wrong { index })?;
        let data = match have.iter().find(|(other, _)| *other == index) {
            Some((_, share)) => share.data.clone(),
            None => Bytes::from(erasure::rebuild(manifest.shape.k, manifest.shape.n, &ranges, index)?),
        };
        let table = hash_tree::leaf_table(&data);
        if hash_tree::table_root(&table) != id {
            return Err(RebuildError::Wrong { index });
        }
        built.push((index, id, Share::new(data, &table, manifest)));
    }
    Ok(built)
}

/// A share from a peer, whole and checked.
pub async fn whole_share(store: &dyn PeerStore, id: ShareId, stored_bytes: u32) -> Result<Share, StoreError> {
    let stored = store.get(id, 0..stored_bytes).await?;
    let corrupt = |reason: String| StoreError::Corrupt { reason };
    let checked = tokio::task::spawn_blocking(move || {
        let share = Share::from_stored(stored)?;
        share.verify(id).map(|()| share)
    });
    checked
        .await
        .map_err(|error| StoreError::Unreachable {
            reason: error.to_string(),
        })?
        .map_err(|error| corrupt(error.to_string()))
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::SigningKey;
    use proto::id::AccountId;
    use proto::pack;
    use proto::pack::PackKey;
    use proto::shape::PackShape;
    use proto::shape::ShareSize;
    use proto::share_store::ShareStore;
    use proto::share_store::memory::MemoryStore;

    use super::*;

    /// A pack and, for each of its shares, a store that has it.
    async fn pack(k: u8, n: u8) -> (Manifest, Vec<(ShareId, Share)>, Vec<Arc<MemoryStore>>) {
        let shape = PackShape {
            k,
            n,
            share: ShareSize::Small,
        };
        let key = PackKey([7; 32]);
        let sealed = pack::seal(&key, shape, b"content");
        let device = SigningKey::from_bytes(&[3; 32]);
        let manifest = Manifest::sign(key.pack_id(), shape, sealed.ids.clone(), AccountId([1; 32]), &device);
        let shares = sealed.shares(&manifest);
        let mut stores = Vec::new();
        for (id, share) in &shares {
            let store = Arc::new(MemoryStore::new());
            store.put(*id, share.clone()).await.unwrap();
            stores.push(store);
        }
        (manifest, shares, stores)
    }

    fn sources(stores: &[Arc<MemoryStore>], indexes: &[u8]) -> Vec<Source> {
        let source = |index: &u8| Source {
            index: *index,
            store: stores[usize::from(*index)].clone(),
        };
        indexes.iter().map(source).collect()
    }

    #[tokio::test]
    async fn any_share_is_built_from_any_k_others_byte_for_byte() {
        let (manifest, shares, stores) = pack(2, 4).await;
        for wanted in 0..4u8 {
            let others: Vec<u8> = (0..4).filter(|index| *index != wanted).collect();
            let built = build(&manifest, &sources(&stores, &others), &[wanted]).await.unwrap();
            let (id, share) = &shares[usize::from(wanted)];
            assert!(
                built.shares[0].1 == *id && built.shares[0].2 == *share,
                "share {wanted}"
            );
            assert_eq!(built.bytes_fetched, 2 * ShareSize::Small.stored_bytes() as u64);
        }
    }

    #[tokio::test]
    async fn missing_and_damaged_sources_are_named_and_made_up_for() {
        let (manifest, shares, stores) = pack(2, 5).await;
        assert!(stores[0].damage(shares[0].0, 100));
        stores[1].remove(shares[1].0).await.unwrap();
        let built = build(&manifest, &sources(&stores, &[0, 1, 2, 3]), &[4]).await.unwrap();
        assert!(built.shares[0].2 == shares[4].1);
        let mut bad = built.bad;
        bad.sort_unstable();
        assert_eq!(bad, [0, 1]);
        let error = build(&manifest, &sources(&stores, &[0, 1, 2]), &[4])
            .await
            .err()
            .unwrap();
        assert!(matches!(error, RebuildError::TooFew { have: 1, k: 2 }), "{error}");
    }

    #[tokio::test]
    async fn a_share_that_some_peer_has_is_copied_even_if_fewer_than_k_are_left() {
        let (manifest, shares, stores) = pack(3, 4).await;
        let built = build(&manifest, &sources(&stores, &[2]), &[2]).await.unwrap();
        assert!(built.shares[0].2 == shares[2].1);
    }
}
