//! A share as it is stored: data, leaf table, public manifest, trailer (docs/format/share.md).

use bytes::Bytes;

use crate::hash_tree;
use crate::hash_tree::{check_leaves, table_root};
use crate::id::ShareId;
use crate::manifest::Manifest;
use crate::shape::{MANIFEST_AREA_BYTES, ShareSize, TRAILER_BYTES};

/// First bytes of the trailer.
const MAGIC: [u8; 8] = *b"GRIDSHAR";
/// The version written, and the only one read.
const VERSION: u16 = 1;
/// Bytes of the trailer before its checksum: magic, version, manifest length, data length.
const TRAILER_FIELD_BYTES: usize = 16;

/// A share in its stored form. `data` is usually a slice of a whole pack's buffer: nothing is copied on the way to a peer.
#[derive(Clone, PartialEq, Eq)]
pub struct Share {
    /// Ciphertext or parity: `ShareSize::data_bytes` of it.
    pub data: Bytes,
    /// Leaf table, manifest area, trailer: `ShareSize::tail_bytes` of it.
    pub tail: Bytes,
}

/// A stored form that is not a share.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
pub enum ShareError {
    /// None of the sizes.
    #[error("{bytes} bytes are not the length of a stored share")]
    Length {
        /// The length found.
        bytes: usize,
    },
    /// Magic, version, lengths or checksum of the trailer are wrong.
    #[error("The share's trailer is damaged or of an unknown version")]
    Trailer,
    /// The leaf table does not hash to the share id.
    #[error("The share's leaf table does not match its id")]
    Table,
    /// A leaf does not match the table.
    #[error("Leaf {leaf} of the share is damaged")]
    Leaf {
        /// Number of the first leaf that is wrong, from 0.
        leaf: u32,
    },
    /// The manifest area does not hold a valid manifest that names this share.
    #[error("The share's manifest is damaged or names other shares")]
    Manifest,
}

impl Share {
    /// Builds the stored form around `data`. `table` is `hash_tree::leaf_table(&data)`.
    ///
    /// # Panics
    /// If `data` has none of the sizes or `table` does not belong to that size.
    pub fn new(data: Bytes, table: &[u8], manifest: &Manifest) -> Self {
        let size = ShareSize::from_data_bytes(data.len()).expect("a share's data has one of the sizes");
        assert_eq!(
            table.len(),
            hash_tree::table_bytes(data.len()),
            "a leaf table of another size"
        );
        let manifest = manifest.encode();
        let mut tail = Vec::with_capacity(size.tail_bytes());
        tail.extend_from_slice(table);
        tail.extend_from_slice(&manifest);
        tail.resize(table.len() + MANIFEST_AREA_BYTES, 0);
        tail.extend_from_slice(&trailer_fields(size, manifest.len()));
        let checksum = checksum(&tail[table.len()..]);
        tail.extend_from_slice(&checksum);
        Self {
            data,
            tail: tail.into(),
        }
    }

    /// Splits a stored form into data and tail, without checking either.
    pub fn from_stored(mut stored: Bytes) -> Result<Self, ShareError> {
        let size = ShareSize::from_stored_bytes(stored.len()).ok_or(ShareError::Length { bytes: stored.len() })?;
        let tail = stored.split_off(size.data_bytes());
        Ok(Self { data: stored, tail })
    }

    /// Size class.
    ///
    /// # Panics
    /// If `data` was put together by hand with none of the lengths.
    pub fn size(&self) -> ShareSize {
        ShareSize::from_data_bytes(self.data.len()).expect("`new` and `from_stored` make no other length")
    }

    /// Checks everything: trailer, table against `id`, every leaf, manifest names `id`.
    pub fn verify(&self, id: ShareId) -> Result<(), ShareError> {
        let manifest = self.manifest_bytes()?;
        let table = self.table();
        if table_root(table) != id {
            return Err(ShareError::Table);
        }
        check_leaves(table, 0, &self.data).map_err(|leaf| ShareError::Leaf { leaf })?;
        let manifest = Manifest::decode(manifest).map_err(|_| ShareError::Manifest)?;
        match manifest.shares.contains(&id) && manifest.shape.share == self.size() {
            true => Ok(()),
            false => Err(ShareError::Manifest),
        }
    }

    /// The public manifest inside, decoded and signature-checked. Whether it names this share only `verify` can tell.
    pub fn manifest(&self) -> Result<Manifest, ShareError> {
        Manifest::decode(self.manifest_bytes()?).map_err(|_| ShareError::Manifest)
    }

    /// The leaf table, for `hash_tree::check_leaves` on ranges of the data.
    pub fn table(&self) -> &[u8] {
        &self.tail[..hash_tree::table_bytes(self.data.len())]
    }

    /// Bytes of the stored form.
    pub fn stored_bytes(&self) -> usize {
        self.data.len() + self.tail.len()
    }

    /// The encoded manifest, once lengths and trailer are checked (docs/format/share.md §3).
    fn manifest_bytes(&self) -> Result<&[u8], ShareError> {
        let length = ShareError::Length {
            bytes: self.stored_bytes(),
        };
        let size = ShareSize::from_data_bytes(self.data.len()).ok_or(length.clone())?;
        if self.tail.len() != size.tail_bytes() {
            return Err(length);
        }
        manifest_bytes(size, &self.tail)
    }
}

/// The public manifest in the tail of a stored share of this size, decoded and signature-checked: which pack it belongs to,
/// without reading its data.
pub fn manifest_in_tail(size: ShareSize, tail: &[u8]) -> Result<Manifest, ShareError> {
    if tail.len() != size.tail_bytes() {
        return Err(ShareError::Length {
            bytes: size.data_bytes() + tail.len(),
        });
    }
    Manifest::decode(manifest_bytes(size, tail)?).map_err(|_| ShareError::Manifest)
}

/// The encoded manifest in a tail of the right length.
fn manifest_bytes(size: ShareSize, tail: &[u8]) -> Result<&[u8], ShareError> {
    let checked = &tail[hash_tree::table_bytes(size.data_bytes())..];
    let (checked, sum) = checked.split_at(MANIFEST_AREA_BYTES + TRAILER_FIELD_BYTES);
    let (area, fields) = checked.split_at(MANIFEST_AREA_BYTES);
    let manifest_bytes = usize::from(u16::from_le_bytes([fields[10], fields[11]]));
    if sum != checksum(checked)
        || manifest_bytes > MANIFEST_AREA_BYTES
        || fields != trailer_fields(size, manifest_bytes)
    {
        return Err(ShareError::Trailer);
    }
    let (manifest, padding) = area.split_at(manifest_bytes);
    match padding.iter().all(|byte| *byte == 0) {
        true => Ok(manifest),
        false => Err(ShareError::Manifest),
    }
}

fn trailer_fields(size: ShareSize, manifest_bytes: usize) -> [u8; TRAILER_FIELD_BYTES] {
    let mut fields = [0; TRAILER_FIELD_BYTES];
    fields[..8].copy_from_slice(&MAGIC);
    fields[8..10].copy_from_slice(&VERSION.to_le_bytes());
    fields[10..12].copy_from_slice(&(manifest_bytes as u16).to_le_bytes());
    fields[12..].copy_from_slice(&(size.data_bytes() as u32).to_le_bytes());
    fields
}

fn checksum(area_and_fields: &[u8]) -> [u8; TRAILER_BYTES - TRAILER_FIELD_BYTES] {
    let hash = blake3::hash(area_and_fields);
    *hash.as_bytes().first_chunk().expect("16 of 32 bytes")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{assert_golden, manifest, pattern};
    use crate::hash_tree::{LEAF_BYTES, leaf_table};
    use crate::shape::PackShape;

    fn share(size: ShareSize) -> (ShareId, Share) {
        let data = Bytes::from(pattern("share", size.data_bytes()));
        let id = ShareId(*blake3::hash(&data).as_bytes());
        let manifest = manifest(
            PackShape {
                k: 1,
                n: 2,
                share: size,
            },
            &[id, id],
        );
        (id, Share::new(data.clone(), &leaf_table(&data), &manifest))
    }

    fn stored(share: &Share) -> Vec<u8> {
        [share.data.as_ref(), share.tail.as_ref()].concat()
    }

    #[test]
    fn the_stored_lengths_are_those_of_the_specification() {
        assert_eq!(ShareSize::Tiny.stored_bytes(), 67_744);
        assert_eq!(ShareSize::Small.stored_bytes(), 264_736);
        assert_eq!(ShareSize::Large.stored_bytes(), 4_204_576);
    }

    #[test]
    fn a_stored_share_checks_itself_and_tells_its_pack() {
        for size in ShareSize::ALL {
            let (id, written) = share(size);
            let read = Share::from_stored(Bytes::from(stored(&written))).unwrap();
            assert!(read == written);
            assert_eq!((read.size(), read.stored_bytes()), (size, size.stored_bytes()));
            assert_eq!(read.verify(id), Ok(()));
            assert_eq!(read.manifest().unwrap().shares, [id, id]);
            assert_eq!(manifest_in_tail(size, &read.tail).unwrap().shares, [id, id]);
            assert!(manifest_in_tail(size, &read.tail[1..]).is_err());
        }
    }

    #[test]
    fn version_1_is_written_and_read_as_ever() {
        for (size, golden) in [
            // Made by `golden/tiny.py`, which shares nothing with this crate.
            (ShareSize::Tiny, "share/v1-tiny-tail.bin"),
            (ShareSize::Small, "share/v1-small-tail.bin"),
        ] {
            let (id, written) = share(size);
            let tail = assert_golden(golden, &written.tail).into();
            let data = written.data;
            assert_eq!(Share { data, tail }.verify(id), Ok(()));
        }
    }

    #[test]
    fn a_length_is_that_of_one_size_only() {
        for size in ShareSize::ALL {
            assert_eq!(ShareSize::from_data_bytes(size.data_bytes()), Some(size));
            assert_eq!(ShareSize::from_stored_bytes(size.stored_bytes()), Some(size));
            for beside in [size.stored_bytes() - 1, size.stored_bytes() + 1, size.data_bytes()] {
                assert_eq!(ShareSize::from_stored_bytes(beside), None);
            }
        }
        assert!(ShareSize::ALL.is_sorted() && ShareSize::ALL.last() == Some(&ShareSize::LARGEST));
    }

    #[test]
    fn every_flipped_byte_is_detected_and_named() {
        let (id, good) = share(ShareSize::Small);
        let good = stored(&good);
        let (table, area) = (ShareSize::Small.data_bytes(), ShareSize::Small.data_bytes() + 16 * 32);
        // The tail byte by byte; the data, of which a leaf's hash covers all alike, at every 1,021st (a prime).
        for at in (0..table).step_by(1_021).chain(table..good.len()) {
            let mut bytes = good.clone();
            bytes[at] ^= 0x10;
            let error = Share::from_stored(bytes.into()).unwrap().verify(id).unwrap_err();
            let expected = match at {
                at if at < table => ShareError::Leaf {
                    leaf: (at / LEAF_BYTES) as u32,
                },
                at if at < area => ShareError::Table,
                _ => ShareError::Trailer,
            };
            assert_eq!(error, expected, "byte {at}");
        }
    }

    #[test]
    fn other_lengths_are_refused() {
        for bytes in [0, 1, ShareSize::Small.data_bytes(), ShareSize::Small.stored_bytes() - 1] {
            assert_eq!(
                Share::from_stored(vec![0; bytes].into()).err(),
                Some(ShareError::Length { bytes })
            );
        }
        let (id, good) = share(ShareSize::Small);
        for cut in [
            Share {
                data: good.data.slice(1..),
                ..good.clone()
            },
            Share {
                tail: good.tail.slice(1..),
                ..good
            },
        ] {
            let length = ShareError::Length {
                bytes: cut.stored_bytes(),
            };
            assert_eq!(cut.verify(id), Err(length.clone()));
            assert_eq!(cut.manifest(), Err(length));
        }
    }

    #[test]
    fn a_manifest_of_other_shares_or_of_another_size_is_refused() {
        let (id, good) = share(ShareSize::Small);
        let small = PackShape {
            k: 1,
            n: 2,
            share: ShareSize::Small,
        };
        let large = PackShape {
            share: ShareSize::Large,
            ..small
        };
        for wrong in [manifest(small, &[]), manifest(large, &[id, id])] {
            let wrong = Share::new(good.data.clone(), good.table(), &wrong);
            assert_eq!(wrong.verify(id), Err(ShareError::Manifest));
            assert!(wrong.manifest().is_ok());
        }
    }

    #[test]
    fn a_forged_manifest_under_a_right_checksum_is_refused() {
        let (id, good) = share(ShareSize::Small);
        let area = ShareSize::Small.tail_bytes() - TRAILER_BYTES - MANIFEST_AREA_BYTES;
        let fields = ShareSize::Small.tail_bytes() - TRAILER_BYTES + TRAILER_FIELD_BYTES;
        // A byte of the manifest, and one of the padding behind it.
        for at in [area + 40, area + MANIFEST_AREA_BYTES - 1] {
            let mut tail = good.tail.to_vec();
            tail[at] ^= 1;
            let sum = checksum(&tail[area..fields]);
            tail[fields..].copy_from_slice(&sum);
            let forged = Share {
                data: good.data.clone(),
                tail: tail.into(),
            };
            assert_eq!(forged.manifest(), Err(ShareError::Manifest));
            assert_eq!(forged.verify(id), Err(ShareError::Manifest));
        }
    }
}
