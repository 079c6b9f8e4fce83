//! What stands in the lock object: JSON of some hundred bytes.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Name of the lock object below the prefix. Objects of this name are nobody's files, wherever they lie.
pub(crate) const NAME: &[u8] = b".gridbackup-lock";
/// Version of the document.
const VERSION: u32 = 1;
/// Longest document that is read, in bytes.
pub(crate) const BYTES_MAX: u64 = 4096;
/// Longest host name that is written, in bytes.
const HOST_BYTES_MAX: usize = 255;

/// Who publishes, or published last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct Document {
    /// 1.
    pub gridbackup_lock: u32,
    /// Random, one for each inventory.
    pub holder: String,
    /// For people.
    pub host: String,
    /// One more at every taking.
    pub fence: u64,
    /// One more at every renewal: no two documents are the same, and so no two ETags.
    pub beat: u64,
    /// Without a renewal for so long the lock is free.
    #[serde(rename = "lease-secs")]
    pub term_secs: u64,
    /// False: it was given back.
    pub held: bool,
    /// One more whenever a run that held it is over.
    pub generation: u64,
}

impl Document {
    /// Held by `holder` for the first time. The first generation is random: who knew a lock that was deleted knows nothing of this.
    pub fn first(holder: &str, term: Duration, generation: u64) -> Self {
        Self {
            gridbackup_lock: VERSION,
            holder: holder.to_owned(),
            host: host(),
            fence: 1,
            beat: 0,
            term_secs: term.as_secs(),
            held: true,
            generation,
        }
    }

    /// Held by `holder` after this one.
    pub fn next(&self, holder: &str, term: Duration) -> Self {
        Self {
            fence: self.fence.saturating_add(1),
            ..Self::first(holder, term, self.generation)
        }
    }

    /// Both are held by the same since the same moment.
    pub fn is_same_taking(&self, other: &Self) -> bool {
        self.held && other.held && (&self.holder, self.fence) == (&other.holder, other.fence)
    }

    /// Reads one; none: it is something else.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let document: Self = serde_json::from_slice(bytes).ok()?;
        (document.gridbackup_lock == VERSION).then_some(document)
    }

    /// As it is stored.
    pub fn bytes(&self) -> bytes::Bytes {
        serde_json::to_vec(self).expect("text and numbers become JSON").into()
    }
}

/// This machine's name.
pub(super) fn host() -> String {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    name.chars().take(HOST_BYTES_MAX / 4).collect()
}

/// The key names a lock, not a file.
pub(crate) fn is_lock(key: &[u8]) -> bool {
    key.rsplit(|&byte| byte == b'/').next() == Some(NAME)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_is_what_other_versions_read_too() {
        let first = Document {
            host: "oak".to_owned(),
            ..Document::first("cafe", Duration::from_secs(60), 0)
        };
        let text = r#"{"gridbackup-lock":1,"holder":"cafe","host":"oak","fence":1,"beat":0,"lease-secs":60,"held":true,"generation":0}"#;
        assert_eq!(first.bytes(), text);
        assert_eq!(Document::parse(text.as_bytes()), Some(first.clone()));
        assert_eq!(first.next("beef", Duration::from_secs(5)).fence, 2);
        for wrong in ["", "{}", &text.replace(":1,\"holder", ":2,\"holder"), "<html>"] {
            assert_eq!(Document::parse(wrong.as_bytes()), None, "{wrong}");
        }
    }

    #[test]
    fn only_the_last_part_of_a_key_makes_it_a_lock() {
        assert!(is_lock(b".gridbackup-lock") && is_lock(b"www/a/.gridbackup-lock"));
        assert!(!is_lock(b"x.gridbackup-lock") && !is_lock(b".gridbackup-lock/x"));
    }
}
