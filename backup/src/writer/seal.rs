//! A pack's plaintext becomes a sealed, signed, coded pack with a key of its own.

use proto::cap_index::PackRecord;
use proto::keep_days::KeepDays;
use proto::manifest::Manifest;
use proto::pack::PackKey;
use proto::shape::PackShape;
use upload_queue::packs::Purpose;
use upload_queue::uploader::OutgoingPack;

use super::{WriteError, Writer};

/// Days that holders keep packs of disks which were given up. Chosen: a disk writes the same blocks over and over
/// (docs/decisions/0067-keep-days.md).
pub(super) const DISK_KEEP_DAYS: KeepDays = KeepDays::new(2).expect("within the limits");

/// 32 bytes that nobody can guess.
pub fn random() -> Result<[u8; 32], WriteError> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(|error| WriteError::Random(error.to_string()))?;
    Ok(bytes)
}

impl Writer {
    /// Seals `plain`, which fits `shape`, under a fresh key.
    pub(super) fn seal(&self, shape: PackShape, plain: &[u8], purpose: Purpose) -> Result<OutgoingPack, WriteError> {
        let key = PackKey(random()?);
        let sealed = proto::pack::seal(&key, shape, plain);
        let keep_days = match purpose {
            Purpose::Disk => DISK_KEEP_DAYS,
            Purpose::Data | Purpose::Metadata => KeepDays::MOST,
        };
        let manifest = Manifest::sign_keeping(
            keep_days,
            key.pack_id(),
            shape,
            sealed.ids.clone(),
            self.keys.account_id(),
            &self.device,
        );
        let record = PackRecord {
            manifest: manifest.encode(),
            wrapped_key: self.keys.put.wrap(&key, random()?),
        };
        let shares = sealed.shares(&manifest);
        Ok(OutgoingPack {
            record,
            manifest,
            shares,
            purpose,
        })
    }
}
