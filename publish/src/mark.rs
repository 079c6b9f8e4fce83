//! What the metadata of an object says about who put it there and how it is read back.

use std::fmt;

use data_encoding::HEXLOWER;

/// How an object's bytes are to be checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Check {
    /// BLAKE3 of the file.
    Hash([u8; 32]),
    /// The ETag, of parts of so many bytes.
    Parts(u64),
}

/// `x-amz-meta-gridbackup: [gzip |br ]b3-HASH` or `[gzip |br ]parts-BYTES`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    /// What publishing did to the bytes, as in `Content-Encoding`; a file that was compressed before has none.
    pub encoding: Option<String>,
    pub check: Check,
}

impl Mark {
    /// Its name in the metadata.
    pub const NAME: &str = "gridbackup";
    /// What the metadata of made pages has. Nobody else's names may begin so.
    pub const MADE: &str = "gridbackup-made";

    /// Of a file that was read before it was sent.
    pub fn whole(hash: [u8; 32], encoding: Option<&str>) -> Self {
        Self {
            encoding: encoding.map(str::to_owned),
            check: Check::Hash(hash),
        }
    }

    /// Of one that is read while it is sent.
    pub fn parts(part_bytes: u64, encoding: Option<&str>) -> Self {
        Self {
            encoding: encoding.map(str::to_owned),
            check: Check::Parts(part_bytes),
        }
    }

    /// Reads one.
    pub fn parse(text: &str) -> Option<Self> {
        let (encoding, check) = match text.split_once(' ') {
            Some((encoding @ ("gzip" | "br"), check)) => (Some(encoding), check),
            Some(_) => return None,
            None => (None, text),
        };
        if let Some(hash) = check.strip_prefix("b3-") {
            let hash = HEXLOWER.decode(hash.as_bytes()).ok()?.try_into().ok()?;
            return Some(Self::whole(hash, encoding));
        }
        let part_bytes = check.strip_prefix("parts-")?.parse().ok().filter(|bytes| *bytes > 0)?;
        Some(Self::parts(part_bytes, encoding))
    }
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(encoding) = &self.encoding {
            write!(f, "{encoding} ")?;
        }
        match self.check {
            Check::Hash(hash) => write!(f, "b3-{}", HEXLOWER.encode(&hash)),
            Check::Parts(bytes) => write!(f, "parts-{bytes}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_come_back_as_they_were_written() {
        let texts = [
            format!("b3-{}", "0f".repeat(32)),
            format!("br b3-{}", "00".repeat(32)),
            "parts-8388608".to_owned(),
            "gzip parts-8388608".to_owned(),
        ];
        for text in texts {
            assert_eq!(Mark::parse(&text).unwrap().to_string(), text);
        }
        for wrong in ["", "b3-00", "zip b3-", "parts-0", "parts-x", "-"] {
            assert_eq!(Mark::parse(wrong), None, "{wrong}");
        }
    }
}
