//! Compression on the way up, where it helps. The same bytes always become the same bytes.

use std::io::Write;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;

use crate::routes::Compress;

/// What is left must be at most so much of 100, else it is sent as it is: less is not worth a browser's time.
const PERCENT_MAX: u64 = 95;
/// Brotli's quality. Chosen: 11 takes ten times as long for some percent.
const BROTLI_QUALITY: u32 = 9;
/// Brotli's window, 2^22 bytes: what every browser takes.
const BROTLI_WINDOW: u32 = 22;

/// The bytes to send and their `Content-Encoding`.
pub(crate) fn compress(bytes: Bytes, how: Compress) -> (Bytes, Option<&'static str>) {
    let (shorter, encoding) = match how {
        Compress::None => return (bytes, None),
        Compress::Gzip => (gzip(&bytes), "gzip"),
        Compress::Brotli => (brotli(&bytes), "br"),
    };
    match shorter {
        Ok(shorter) if shorter.len() as u64 * 100 <= bytes.len() as u64 * PERCENT_MAX => {
            (Bytes::from(shorter), Some(encoding))
        }
        _ => (bytes, None),
    }
}

fn gzip(bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    // No time and no name in its header: it depends on the bytes alone.
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes)?;
    encoder.finish()
}

fn brotli(bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut shorter = Vec::new();
    let mut encoder = brotli::CompressorWriter::new(&mut shorter, 4096, BROTLI_QUALITY, BROTLI_WINDOW);
    encoder.write_all(bytes)?;
    encoder.flush()?;
    drop(encoder);
    Ok(shorter)
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn text_gets_shorter_and_comes_back() {
        let text = Bytes::from("all work and no play ".repeat(100));
        let (gz, encoding) = compress(text.clone(), Compress::Gzip);
        assert_eq!(encoding, Some("gzip"));
        let mut back = Vec::new();
        flate2::read::GzDecoder::new(&gz[..]).read_to_end(&mut back).unwrap();
        assert_eq!(back, text);
        assert_eq!(compress(text.clone(), Compress::Gzip).0, gz);
        let (br, encoding) = compress(text.clone(), Compress::Brotli);
        assert_eq!((encoding, br.len() < gz.len()), (Some("br"), true));
        let mut back = Vec::new();
        brotli::Decompressor::new(&br[..], 4096).read_to_end(&mut back).unwrap();
        assert_eq!(back, text);
    }

    #[test]
    fn what_does_not_get_shorter_is_sent_as_it_is() {
        for bytes in [
            Bytes::new(),
            Bytes::from_static(b"x"),
            Bytes::from_static(&[0x1f, 0x8b, 7, 1]),
        ] {
            assert_eq!(compress(bytes.clone(), Compress::Gzip), (bytes.clone(), None));
            assert_eq!(compress(bytes.clone(), Compress::Brotli), (bytes, None));
        }
    }
}
