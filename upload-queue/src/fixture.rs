//! Packs for tests.

use ed25519_dalek::SigningKey;
use proto::cap_index::PackRecord;
use proto::id::AccountId;
use proto::keys::WRAPPED_KEY_BYTES;
use proto::manifest::Manifest;
use proto::pack;
use proto::pack::PackKey;
use proto::shape::PackShape;
use proto::shape::ShareSize;

use crate::packs::Purpose;
use crate::uploader::OutgoingPack;

/// A sealed pack of small shares; `seed` makes it different from others.
pub(crate) fn pack(seed: u8, k: u8, n: u8) -> OutgoingPack {
    let shape = PackShape {
        k,
        n,
        share: ShareSize::Small,
    };
    let key = PackKey([seed; 32]);
    let sealed = pack::seal(&key, shape, &[seed; 1000]);
    let device = SigningKey::from_bytes(&[3; 32]);
    let manifest = Manifest::sign(key.pack_id(), shape, sealed.ids.clone(), AccountId([1; 32]), &device);
    OutgoingPack {
        record: PackRecord {
            manifest: manifest.encode(),
            wrapped_key: [seed; WRAPPED_KEY_BYTES],
        },
        shares: sealed.shares(&manifest),
        manifest,
        purpose: Purpose::Data,
    }
}
