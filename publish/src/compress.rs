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
/// Written at once, in bytes.
const BUFFER_BYTES: usize = 64 << 10;
/// Brotli's window, 2^22 bytes: what every browser takes.
const BROTLI_WINDOW: u32 = 22;

/// Whether what is left is short enough.
pub(crate) fn is_shorter(bytes: u64, of: u64) -> bool {
    bytes.saturating_mul(100) <= of.saturating_mul(PERCENT_MAX)
}

/// The bytes to send and their `Content-Encoding`.
pub(crate) fn compress(bytes: Bytes, how: Compress) -> (Bytes, Option<&'static str>) {
    if how == Compress::None {
        return (bytes, None);
    }
    let mut encoder = Encoder::new(Vec::new(), how);
    let encoding = encoder.encoding();
    let shorter = encoder.write(&bytes).and_then(|()| encoder.finish());
    match shorter {
        Ok(shorter) if is_shorter(shorter.len() as u64, bytes.len() as u64) => (Bytes::from(shorter), Some(encoding)),
        _ => (bytes, None),
    }
}

/// Compresses what is written to it.
pub(crate) enum Encoder<W: Write> {
    Gzip(GzEncoder<Sticky<W>>),
    Brotli(Box<brotli::CompressorWriter<Sticky<W>>>),
}

impl<W: Write> Encoder<W> {
    /// Into `inner`. `None` is gzip, too: who asks for none needs no encoder.
    pub fn new(inner: W, how: Compress) -> Self {
        let inner = Sticky { inner, failed: None };
        match how {
            Compress::Brotli => Self::Brotli(Box::new(brotli::CompressorWriter::new(
                inner,
                BUFFER_BYTES,
                BROTLI_QUALITY,
                BROTLI_WINDOW,
            ))),
            // No time and no name in its header: it depends on the bytes alone.
            Compress::Gzip | Compress::None => Self::Gzip(GzEncoder::new(inner, Compression::best())),
        }
    }

    /// `Content-Encoding`.
    pub fn encoding(&self) -> &'static str {
        match self {
            Self::Gzip(_) => "gzip",
            Self::Brotli(_) => "br",
        }
    }

    /// Adds bytes.
    pub fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        match self {
            Self::Gzip(encoder) => encoder.write_all(bytes),
            Self::Brotli(encoder) => encoder.write_all(bytes),
        }
    }

    /// Writes the end, and gives back what was written to.
    pub fn finish(self) -> std::io::Result<W> {
        let end = match self {
            Self::Gzip(encoder) => encoder.finish()?,
            Self::Brotli(encoder) => encoder.into_inner(),
        };
        end.failed.map_or(Ok(end.inner), Err)
    }
}

/// Remembers that writing failed: brotli's encoder does not say so at its end.
pub(crate) struct Sticky<W> {
    inner: W,
    failed: Option<std::io::Error>,
}

impl<W: Write> Write for Sticky<W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let written = self.inner.write(bytes);
        if let Err(error) = &written {
            self.failed = Some(std::io::Error::new(error.kind(), error.to_string()));
        }
        written
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.inner.flush()
    }
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

    #[test]
    fn a_full_disk_is_noticed_at_the_end_too() {
        struct Full;
        impl Write for Full {
            fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
                Err(std::io::ErrorKind::StorageFull.into())
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        for how in [Compress::Gzip, Compress::Brotli] {
            let mut encoder = Encoder::new(Full, how);
            let ended = encoder.write(b"short").and_then(|()| encoder.finish().map(drop));
            assert_eq!(ended.unwrap_err().kind(), std::io::ErrorKind::StorageFull, "{how:?}");
        }
    }
}
