//! What is known of a file without reading it.

/// What tells whether a file changed since it was read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Stat {
    /// Length.
    pub bytes: u64,
    /// Nanoseconds since 1970.
    pub mtime_ns: i64,
    /// Nanoseconds since 1970.
    pub ctime_ns: i64,
    /// Number in its file system.
    pub inode: u64,
}

impl Stat {
    /// Of something that has no file: made of its bytes, so that it is another when they are.
    pub fn of_made(contents: &[u8]) -> Self {
        let hash = blake3::hash(contents);
        let part = |index: usize| hash.as_bytes()[8 * index..].first_chunk().copied().unwrap_or_default();
        Self {
            bytes: contents.len() as u64,
            mtime_ns: i64::from_le_bytes(part(0)),
            ctime_ns: i64::from_le_bytes(part(1)),
            inode: u64::from_le_bytes(part(2)),
        }
    }
}

impl From<&rustix::fs::Stat> for Stat {
    fn from(stat: &rustix::fs::Stat) -> Self {
        let ns = |secs: i64, nanos: i64| secs.saturating_mul(1_000_000_000).saturating_add(nanos);
        Self {
            bytes: stat.st_size.try_into().unwrap_or_default(),
            mtime_ns: ns(stat.st_mtime, stat.st_mtime_nsec as i64),
            ctime_ns: ns(stat.st_ctime, stat.st_ctime_nsec as i64),
            inode: stat.st_ino,
        }
    }
}
