//! Bytes of packs from peers: the ranges of data shares first, k others where one is missing or damaged.

use proto::cap_index::PackRecord;
use proto::pack::PackKey;
use upload_queue::packs::KnownPack;

use crate::restore::{Reader, RestoreError};

/// What fetching has cost and found so far.
#[derive(Clone, Debug, Default)]
pub struct FetchStats {
    /// Bytes fetched from peers.
    pub bytes_fetched: u64,
    /// Names of the peers that served.
    pub peers_used: std::collections::BTreeSet<String>,
    /// Names of the peers that served damaged shares, with what was wrong.
    pub peers_bad: std::collections::BTreeMap<String, String>,
}

impl Reader {
    /// Plaintext ranges `(offset, len)` of a pack, in the order asked. Ranges are merged and fetched in parallel; damaged
    /// or missing shares are made up from others and named in `stats`.
    pub async fn read_pack(
        &self,
        _pack: &KnownPack,
        _key: &PackKey,
        _ranges: &[(u32, u32)],
        _stats: &std::sync::Mutex<FetchStats>,
    ) -> Result<Vec<bytes::Bytes>, RestoreError> {
        todo!()
    }
    /// A pack's key.
    pub fn unwrap(&self, _record: &PackRecord) -> Result<PackKey, RestoreError> {
        todo!()
    }
}
