//! A directory's listing in 16 bytes: equal to the stored one means that nothing in it needs to be looked up.
//!
//! Local to one catalog and never posted. Rules are applied before, so a changed rule shows as a changed listing.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasherDefault, Hasher};

use database::DbError;
use proto::log_record::Entry;
use rusqlite::Connection;

use crate::source::Listing;

/// 128 bits of BLAKE3.
pub(super) type Hash = [u8; 16];

fn hash(bytes: &[u8]) -> Hash {
    let hash = blake3::hash(bytes);
    *hash.as_bytes().first_chunk().expect("a BLAKE3 hash has 32 bytes")
}

/// The key of a directory, from its parent's key and its name.
pub(super) fn path_hash(parent: &Hash, name: &[u8]) -> Hash {
    hash(&[parent.as_slice(), name].concat())
}

/// The fingerprint of a directory with this device and inode number; `buffer` is only working space.
pub(super) fn fingerprint(device: u64, inode: u64, listing: &Listing, buffer: &mut Vec<u8>) -> Hash {
    buffer.clear();
    buffer.extend_from_slice(&device.to_le_bytes());
    buffer.extend_from_slice(&inode.to_le_bytes());
    for entry in &listing.entries {
        add(buffer, entry);
    }
    hash(buffer)
}

fn add(buffer: &mut Vec<u8>, entry: &Entry) {
    let meta = &entry.meta;
    buffer.extend_from_slice(&(entry.name.len() as u32).to_le_bytes());
    buffer.extend_from_slice(&entry.name);
    buffer.push(entry.kind as u8);
    for number in [meta.mode, meta.uid, meta.gid, meta.links] {
        buffer.extend_from_slice(&number.to_le_bytes());
    }
    for number in [
        meta.mtime_ns.cast_unsigned(),
        meta.ctime_ns.cast_unsigned(),
        meta.size,
        meta.inode,
        meta.rdev,
    ] {
        buffer.extend_from_slice(&number.to_le_bytes());
    }
}

/// A directory as the catalog has it.
#[derive(Clone, Copy, Debug)]
pub(super) struct KnownDirectory {
    pub id: i64,
    /// `None`: to be compared entry by entry.
    pub fingerprint: Option<Hash>,
    pub marks: i64,
}

/// All directories ever seen, by the hash of their path: loaded once, so that an unchanged one costs no query.
pub(super) struct Known {
    directories: HashMap<Hash, KnownDirectory, BuildHasherDefault<FirstBytes>>,
    /// The smallest id that no directory has.
    pub next_id: i64,
    /// Current entries that were recorded without something, and why, by directory.
    pub lacking: HashMap<i64, Vec<(Vec<u8>, String)>>,
    /// Directories that were mount points when they were last listed.
    pub mount_points: HashSet<i64>,
}

impl Known {
    pub fn load(conn: &Connection) -> Result<Self, DbError> {
        let mut query = conn.prepare("SELECT id, parent, name, fingerprint, marks FROM directory ORDER BY id")?;
        let mut rows = query.query([])?;
        let mut known = Self {
            directories: HashMap::default(),
            next_id: 1,
            lacking: HashMap::new(),
            mount_points: HashSet::new(),
        };
        known.load_marks(conn)?;
        let mut hashes: HashMap<i64, Hash> = HashMap::from([(0, Hash::default())]);
        while let Some(row) = rows.next()? {
            let (id, parent): (i64, i64) = (row.get(0)?, row.get(1)?);
            // Parents come first; a row whose parent did not is unreachable.
            let Some(parent) = hashes.get(&parent) else { continue };
            let key = path_hash(parent, row.get_ref(2)?.as_blob().map_err(rusqlite::Error::from)?);
            let directory = KnownDirectory {
                id,
                fingerprint: row.get(3)?,
                marks: row.get(4)?,
            };
            hashes.insert(id, key);
            known.directories.insert(key, directory);
            known.next_id = id + 1;
        }
        Ok(known)
    }

    fn load_marks(&mut self, conn: &Connection) -> Result<(), DbError> {
        let mut query = conn.prepare("SELECT directory, name, reason FROM lacking ORDER BY directory, name")?;
        let mut rows = query.query([])?;
        while let Some(row) = rows.next()? {
            let lacking = self.lacking.entry(row.get(0)?).or_default();
            lacking.push((row.get(1)?, row.get(2)?));
        }
        let mut query = conn.prepare("SELECT directory FROM mount_point")?;
        let ids = query.query_map([], |row| row.get(0))?;
        self.mount_points = ids.collect::<Result<_, _>>()?;
        Ok(())
    }

    pub fn get(&self, key: &Hash) -> Option<&KnownDirectory> {
        self.directories.get(key)
    }
}

/// The keys are hashes already.
#[derive(Default)]
pub(super) struct FirstBytes(u64);

impl Hasher for FirstBytes {
    fn write(&mut self, bytes: &[u8]) {
        if let Some(first) = bytes.first_chunk() {
            self.0 = u64::from_le_bytes(*first);
        }
    }
    // The length of the key, always the same.
    fn write_usize(&mut self, _: usize) {}
    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use proto::log_record::{Content, EntryKind, Meta};

    use super::*;

    fn listing(meta: Meta) -> Listing {
        let entry = Entry {
            name: b"a".to_vec(),
            kind: EntryKind::File,
            meta,
            content: Content::None,
        };
        Listing {
            entries: vec![entry],
            failed: Vec::new(),
        }
    }

    #[test]
    fn each_field_of_an_entry_shows_in_the_fingerprint() {
        let of = |meta| fingerprint(1, 2, &listing(meta), &mut Vec::new());
        let base = of(Meta::default());
        let metas = [
            Meta {
                mode: 1,
                ..Meta::default()
            },
            Meta {
                uid: 1,
                ..Meta::default()
            },
            Meta {
                gid: 1,
                ..Meta::default()
            },
            Meta {
                mtime_ns: 1,
                ..Meta::default()
            },
            Meta {
                ctime_ns: 1,
                ..Meta::default()
            },
            Meta {
                size: 1,
                ..Meta::default()
            },
            Meta {
                inode: 1,
                ..Meta::default()
            },
            Meta {
                links: 1,
                ..Meta::default()
            },
            Meta {
                rdev: 1,
                ..Meta::default()
            },
        ];
        for meta in metas {
            assert_ne!(of(meta.clone()), base, "{meta:?}");
        }
        assert_ne!(fingerprint(3, 2, &listing(Meta::default()), &mut Vec::new()), base);
        assert_ne!(fingerprint(1, 3, &listing(Meta::default()), &mut Vec::new()), base);
    }

    #[test]
    fn path_hashes_do_not_run_together() {
        let top = path_hash(&Hash::default(), b"");
        assert_ne!(path_hash(&path_hash(&top, b"a"), b"b"), path_hash(&top, b"ab"));
    }
}
