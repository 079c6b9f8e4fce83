//! A challenge, seen from the holder: read all leaves and commit to them, then prove them (docs/protocol/audit.md).
//!
//! The leaves are read twice, so that no answer takes more memory than a frame; the second time they come from the cache.

use std::fs::File;
use std::os::unix::fs::FileExt;

use bytes::Bytes;
use proto::hash_tree::{LEAF_BYTES, table_bytes};
use proto::id::{DeviceId, ShareId};
use proto::shape::ShareSize;
use proto::share_store::StoreError;
use proto::wire::audit;
use proto::wire::audit::{Challenge, Committing, PROOFS_PER_FRAME};
use proto::wire::share::ShareMessage;
use stores::folder::{FolderStore, store_error};

use super::Handlers;
use crate::blocking::blocking;

impl Handlers {
    /// Answers a challenge.
    pub(super) async fn prove(&self, request: u32, nonce: &[u8; 32], payload: &[u8]) -> Result<(), StoreError> {
        let challenge = Challenge::decode(payload).ok_or_else(|| StoreError::Refused {
            reason: "The challenge is malformed".into(),
        })?;
        let (store, speaker, nonce) = (self.shelf.store.clone(), self.core.device, *nonce);
        let (committed, challenge) = blocking(move || {
            let committed = commit(&store, &challenge, &nonce, speaker)?;
            Ok((committed, challenge))
        })
        .await?;
        let (hash, lacking) = committed;
        self.say(&ShareMessage::Commitment { request, hash, lacking }, Bytes::new())
            .await;
        let leaves = challenge.leaves().iter().enumerate();
        let present: Vec<(ShareId, u32)> = leaves
            .filter(|(number, _)| lacking >> number & 1 == 0)
            .map(|(_, leaf)| *leaf)
            .collect();
        for frame in present.chunks(PROOFS_PER_FRAME) {
            let (store, frame) = (self.shelf.store.clone(), frame.to_vec());
            let proofs = blocking(move || proofs(&store, &frame)).await?;
            self.say(&ShareMessage::Proofs { request }, proofs.into()).await;
        }
        Ok(())
    }
}

/// The commitment, and which leaves are not here.
fn commit(
    store: &FolderStore,
    challenge: &Challenge,
    nonce: &[u8; 32],
    speaker: DeviceId,
) -> Result<([u8; 32], u64), StoreError> {
    let (mut committing, mut lacking) = (Committing::new(nonce, speaker), 0);
    for (number, (share, leaf)) in challenge.leaves().iter().enumerate() {
        match open(store, *share, *leaf) {
            Ok((file, _)) => committing.leaf(*share, *leaf, &read_leaf(&file, *leaf)?),
            Err(StoreError::NotFound | StoreError::OutOfRange) => lacking |= 1 << number,
            Err(error) => return Err(error),
        }
    }
    Ok((committing.finish(), lacking))
}

fn proofs(store: &FolderStore, leaves: &[(ShareId, u32)]) -> Result<Vec<u8>, StoreError> {
    let mut proofs = Vec::new();
    for (share, leaf) in leaves {
        let (file, size) = open(store, *share, *leaf)?;
        let mut table = vec![0; table_bytes(size.data_bytes())];
        file.read_exact_at(&mut table, size.data_bytes() as u64)
            .map_err(|error| store_error("reading a share", &error))?;
        let bytes = read_leaf(&file, *leaf)?;
        proofs.extend(audit::proof(&table, *leaf, &bytes).ok_or(StoreError::OutOfRange)?);
    }
    Ok(proofs)
}

/// A share that has this leaf. A file that is no share counts as not there.
fn open(store: &FolderStore, share: ShareId, leaf: u32) -> Result<(File, ShareSize), StoreError> {
    let (file, bytes) = store.open_share(share)?;
    let size = usize::try_from(bytes).ok().and_then(ShareSize::from_stored_bytes);
    let size = size.ok_or(StoreError::NotFound)?;
    match (leaf as usize) < size.data_bytes() / LEAF_BYTES {
        true => Ok((file, size)),
        false => Err(StoreError::OutOfRange),
    }
}

fn read_leaf(file: &File, leaf: u32) -> Result<Vec<u8>, StoreError> {
    let mut bytes = vec![0; LEAF_BYTES];
    file.read_exact_at(&mut bytes, u64::from(leaf) * LEAF_BYTES as u64)
        .map_err(|error| store_error("reading a share", &error))?;
    Ok(bytes)
}
