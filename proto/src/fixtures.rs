//! What the unit tests of the formats share: reproducible bytes, a manifest, golden files.

use ed25519_dalek::SigningKey;

use crate::id::{AccountId, PackId, ShareId};
use crate::keep_days::KeepDays;
use crate::manifest::Manifest;
use crate::shape::PackShape;

/// Reproducible bytes that do not compress: the same for every run and for ever.
pub(crate) fn pattern(name: &str, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new_derive_key("gridbackup test pattern")
        .update(name.as_bytes())
        .finalize_xof()
        .fill(&mut bytes);
    bytes
}

/// `pattern`, as an array.
pub(crate) fn pattern_array<const N: usize>(name: &str) -> [u8; N] {
    *pattern(name, N).first_chunk().unwrap()
}

/// A manifest for `shares`, or for made-up ones if there are none.
pub(crate) fn manifest(shape: PackShape, shares: &[ShareId]) -> Manifest {
    keeping(30, shape, shares)
}

/// As `manifest`, of shares that are kept for so many days after they were given up.
pub(crate) fn keeping(days: u8, shape: PackShape, shares: &[ShareId]) -> Manifest {
    let made_up = |i| ShareId(pattern_array(&format!("share {i}")));
    let shares = match shares {
        [] => (0..shape.n).map(made_up).collect(),
        given => given.to_vec(),
    };
    let device = SigningKey::from_bytes(&pattern_array("device"));
    Manifest::sign_keeping(
        KeepDays::new(days).unwrap(),
        PackId(pattern_array("pack")),
        shape,
        shares,
        AccountId(pattern_array("account")),
        &device,
    )
}

/// Bytes on disk are compared with what the code writes today; the file itself is never written by a test.
pub(crate) fn assert_golden(path: &str, written: &[u8]) -> Vec<u8> {
    let path = format!("{}/golden/{path}", env!("CARGO_MANIFEST_DIR"));
    let golden = std::fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    assert!(golden == written, "{path} is not what is written today");
    golden
}
