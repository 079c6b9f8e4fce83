//! One chunk, one zstd frame, unless that saves next to nothing: then the chunk is stored as it is.

use std::io;

use proto::size::KIB;
use zstd::bulk::Compressor as Zstd;

use crate::chunk::FileClass;

/// A frame must save at least one part in so many: less is not worth a decompression at each restore.
const SAVING_PARTS: usize = 32;
/// From this length on a chunk is probed before it is compressed in full.
const PROBE_CHUNK_BYTES_MIN: usize = 64 * KIB;
/// Bytes probed at the beginning and in the middle of a chunk.
const PROBE_BYTES: usize = 8 * KIB;

/// A thread's compressor: contexts and output buffer are used again and again.
pub struct Compressor {
    zstd: Zstd<'static>,
    probe: Zstd<'static>,
    out: Vec<u8>,
}

impl Compressor {
    /// A compressor of zstd level `level`.
    pub fn new(level: i32) -> io::Result<Self> {
        Ok(Self {
            zstd: Zstd::new(level)?,
            probe: Zstd::new(1)?,
            out: Vec::new(),
        })
    }

    /// What to store for a chunk of a file of this class: a frame that is shorter than the chunk, or the chunk itself.
    pub fn compress<'a>(&'a mut self, class: FileClass, plain: &'a [u8]) -> &'a [u8] {
        if class == FileClass::Media || !self.promises(plain) {
            return plain;
        }
        match frame(&mut self.zstd, &mut self.out, plain) {
            true => &self.out,
            false => plain,
        }
    }

    fn promises(&mut self, plain: &[u8]) -> bool {
        if plain.len() < PROBE_CHUNK_BYTES_MIN {
            return true;
        }
        let middle = plain.len() / 2;
        [&plain[..PROBE_BYTES], &plain[middle..middle + PROBE_BYTES]]
            .into_iter()
            .any(|sample| frame(&mut self.probe, &mut self.out, sample))
    }
}

/// Whether the frame in `out` is short enough. zstd fails when the frame outgrows `out`: that is an answer, not an error.
fn frame(zstd: &mut Zstd<'_>, out: &mut Vec<u8>, plain: &[u8]) -> bool {
    let frame_bytes_max = plain.len().saturating_sub((plain.len() / SAVING_PARTS).max(1));
    out.clear();
    out.reserve(zstd::zstd_safe::compress_bound(plain.len()));
    zstd.compress_to_buffer(plain, out)
        .is_ok_and(|bytes| bytes <= frame_bytes_max)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(bytes: usize) -> Vec<u8> {
        let mut out = vec![0; bytes];
        blake3::Hasher::new().finalize_xof().fill(&mut out);
        out
    }

    #[test]
    fn only_what_shrinks_is_compressed() {
        let mut compressor = Compressor::new(3).unwrap();
        for bytes in [1, 100, 5_000, 100_000] {
            let random = noise(bytes);
            assert_eq!(compressor.compress(FileClass::Ordinary, &random), random);
        }
        let text = b"all work and no play makes jack a dull boy ".repeat(5_000);
        let stored = compressor.compress(FileClass::Ordinary, &text).to_vec();
        assert!(stored.len() < text.len() / 20);
        assert_eq!(zstd::bulk::decompress(&stored, text.len()).unwrap(), text);
        assert_eq!(compressor.compress(FileClass::Media, &text), text);
    }

    #[test]
    fn a_chunk_that_is_half_text_is_compressed() {
        let mut mixed = noise(200_000);
        mixed[100_000..].fill(b'a');
        let stored = Compressor::new(1).unwrap().compress(FileClass::Ordinary, &mixed).len();
        assert!(stored < 110_000);
    }
}
