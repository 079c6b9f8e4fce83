//! What a machine has written down of a disk: its name, where its cache is, and whether all of it was on peers when it was last closed.
//!
//! A disk is what heads say; without the record it is opened as of its last commit, with a new cache in the usual place.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use data_encoding::HEXLOWER;
use disk::commit::root::Root;
use durable::state_file;
use minicbor::{Decode, Encode};

/// The version that is written, and the only one read.
const VERSION: u16 = 1;
/// Name of the record's file.
const FILE: &str = "disk";
/// Name of the file that says whether this machine waits to take the disk over.
const TAKING_OVER: &str = "taking-over";
/// Name of the file that says which peers its voters are.
const VOTERS: &str = "voters";
/// Name of the cache's folder, where it is not elsewhere.
const CACHE: &str = "cache";

/// Id of a volume.
pub type VolumeBytes = [u8; 16];

/// What is known here of a disk.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct DiskRecord {
    #[n(0)]
    version: u16,
    /// Which.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub volume: VolumeBytes,
    /// Its name.
    #[n(2)]
    pub name: String,
    /// Bytes of the device.
    #[n(3)]
    pub size: u64,
    /// The folder that was named for caches; empty: beside the record.
    #[cbor(n(4), with = "minicbor::bytes")]
    cache: Vec<u8>,
    /// Bytes that the journal may take.
    #[n(5)]
    pub journal_bytes: u64,
    /// Something that was written may not be on peers: the disk is open, or was closed so.
    #[n(6)]
    pub is_ahead: bool,
    /// The last commit when it was closed.
    #[n(7)]
    commit: Option<u64>,
    /// When that was made, in nanoseconds since 1970.
    #[n(8)]
    committed_ns: Option<i64>,
}

impl DiskRecord {
    /// Of a disk of which nothing is here.
    pub fn new(volume: VolumeBytes, name: String, size: u64, cache: Option<&Path>, journal_bytes: u64) -> Self {
        Self {
            version: VERSION,
            volume,
            name,
            size,
            cache: cache.map_or_else(Vec::new, |cache| cache.as_os_str().as_bytes().to_vec()),
            journal_bytes,
            is_ahead: false,
            commit: None,
            committed_ns: None,
        }
    }

    /// It was closed with all of it on peers, as this root says.
    pub fn close(&mut self, root: &Root) {
        self.is_ahead = false;
        self.size = root.size;
        (self.commit, self.committed_ns) = (Some(root.commit), Some(root.time_ns));
    }

    /// When this commit was made, if it is the last one with which the disk was closed here.
    pub fn committed_ns(&self, commit: u64) -> Option<i64> {
        self.committed_ns.filter(|_| self.commit == Some(commit))
    }

    /// The folder that was named for caches, if one was.
    pub fn named_cache(&self) -> Option<PathBuf> {
        (!self.cache.is_empty()).then(|| PathBuf::from(OsStr::from_bytes(&self.cache)))
    }
}

/// Which peer a voter of a disk is, or was when it was seen last.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct KnownVoter {
    /// The voter.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub id: [u8; 32],
    /// The peer's key in the database; empty: it was never seen.
    #[n(1)]
    pub peer: String,
    /// The peer's name for people.
    #[n(2)]
    pub name: String,
}

/// A record that cannot be read: the disk's cache is where it was, but nobody knows where.
#[derive(Clone, Debug)]
pub struct Unreadable {
    /// The volume's folder.
    pub folder: PathBuf,
    /// What is wrong.
    pub reason: String,
}

/// The records of a home: a folder for each volume, by its id.
#[derive(Clone, Debug)]
pub struct Records {
    folder: PathBuf,
}

impl Records {
    /// Below this folder, which need not be there.
    pub fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// The folder of a volume.
    pub fn folder_of(&self, volume: VolumeBytes) -> PathBuf {
        self.folder.join(HEXLOWER.encode(&volume))
    }

    /// Where a disk's journal and map are.
    pub fn cache_of(&self, record: &DiskRecord) -> PathBuf {
        match record.named_cache() {
            Some(cache) => cache.join(HEXLOWER.encode(&record.volume)),
            None => self.folder_of(record.volume).join(CACHE),
        }
    }

    /// All records, by volume, and those that cannot be read.
    pub fn all(&self) -> io::Result<(Vec<DiskRecord>, Vec<Unreadable>)> {
        let (mut records, mut unreadable) = (Vec::new(), Vec::new());
        let entries = match fs::read_dir(&self.folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((records, unreadable)),
            Err(error) => return Err(error),
        };
        for entry in entries {
            let name = entry?.file_name();
            let volume = name.to_str().and_then(|name| HEXLOWER.decode(name.as_bytes()).ok());
            let Some(volume) = volume.and_then(|volume| VolumeBytes::try_from(volume).ok()) else {
                continue;
            };
            match self.of(volume) {
                Ok(Some(record)) => records.push(record),
                Ok(None) => {}
                Err(lost) => unreadable.push(lost),
            }
        }
        records.sort_by(|one, other| (&one.name, one.volume).cmp(&(&other.name, other.volume)));
        Ok((records, unreadable))
    }

    /// The record of a volume, if there is one.
    pub fn of(&self, volume: VolumeBytes) -> Result<Option<DiskRecord>, Unreadable> {
        let decode = |bytes: &[u8]| {
            let record: DiskRecord = minicbor::decode(bytes).map_err(|error| error.to_string())?;
            match record.version {
                VERSION if record.volume == volume => Ok(record),
                VERSION => Err("it is of another disk".to_owned()),
                version => Err(format!("version {version} is not known to this gridbackup")),
            }
        };
        match state_file::read(&self.folder_of(volume).join(FILE), decode) {
            (Some(record), None) => Ok(Some(record)),
            (Some(record), Some(_lost)) => {
                // As it was before it was written last: what has been written to the disk since nobody knows.
                let record = DiskRecord {
                    is_ahead: true,
                    ..record
                };
                let _only_read = self.put(&record);
                Ok(Some(record))
            }
            (None, None) => self.unless_set_aside(volume),
            (None, Some(lost)) if lost.reason.is_none() => self.unless_set_aside(volume),
            (None, Some(lost)) => Err(Unreadable {
                folder: self.folder_of(volume),
                reason: lost.to_string(),
            }),
        }
    }

    /// None, unless there was a record that could not be read: it may have said that the journal is in another folder, and without that the disk
    /// would be opened as if nothing had been written since its last commit.
    fn unless_set_aside(&self, volume: VolumeBytes) -> Result<Option<DiskRecord>, Unreadable> {
        let folder = self.folder_of(volume);
        let names = fs::read_dir(&folder).into_iter().flatten().flatten();
        let aside = names
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .find(|name| name.starts_with(&format!("{FILE}.damaged")));
        match aside {
            None => Ok(None),
            Some(aside) => Err(Unreadable {
                reason: format!(
                    "its record was damaged, and is set aside as {}",
                    folder.join(aside).display()
                ),
                folder,
            }),
        }
    }

    /// Writes a record down, durably.
    pub fn put(&self, record: &DiskRecord) -> io::Result<()> {
        let folder = self.folder_of(record.volume);
        durable::create_folders(&folder)?;
        state_file::replace(&folder.join(FILE), &proto::record::to_cbor(record))
    }

    /// Notes that this machine waits until the writer before it acknowledges nothing more, or does so no longer: durably, for whoever goes on
    /// after a death meanwhile has to wait anew, though the voters promise the disk to this machine by then.
    pub fn set_taking_over(&self, volume: VolumeBytes, is_so: bool) -> io::Result<()> {
        if !is_so && !self.is_taking_over(volume) {
            return Ok(());
        }
        let folder = self.folder_of(volume);
        durable::create_folders(&folder)?;
        state_file::replace(&folder.join(TAKING_OVER), &[u8::from(is_so)])
    }

    /// Whether a takeover waits, or was cut off while it did. A file that is damaged is as one that says so.
    pub fn is_taking_over(&self, volume: VolumeBytes) -> bool {
        let decode = |bytes: &[u8]| Ok(bytes != [0]);
        match state_file::read(&self.folder_of(volume).join(TAKING_OVER), decode) {
            (Some(is_so), None) => is_so,
            (None, Some(lost)) if lost.reason.is_none() => false,
            (None, None) => false,
            _ => true,
        }
    }

    /// Which peers its voters are, as far as that was ever seen here. A file that is damaged is as none: peers say it anew.
    pub fn voters(&self, volume: VolumeBytes) -> Vec<KnownVoter> {
        let decode = |bytes: &[u8]| minicbor::decode::<Vec<KnownVoter>>(bytes).map_err(|error| error.to_string());
        state_file::read(&self.folder_of(volume).join(VOTERS), decode)
            .0
            .unwrap_or_default()
    }

    /// Writes that down, of a disk that has a record.
    pub fn put_voters(&self, volume: VolumeBytes, voters: &[KnownVoter]) -> io::Result<()> {
        if self.voters(volume) == voters {
            return Ok(());
        }
        state_file::replace(&self.folder_of(volume).join(VOTERS), &proto::record::to_cbor(&voters))
    }

    /// Removes all that is here of a disk: journal, map and record.
    pub fn remove(&self, record: &DiskRecord) -> io::Result<()> {
        for folder in [self.cache_of(record), self.folder_of(record.volume)] {
            match fs::remove_dir_all(&folder) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(name: &str, volume: u8) -> DiskRecord {
        DiskRecord::new([volume; 16], name.to_owned(), 1 << 30, None, 2 << 30)
    }

    #[test]
    fn records_come_back_by_name_and_one_that_is_damaged_hides_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let records = Records::new(dir.path().join("disks"));
        assert!(records.all().unwrap().0.is_empty());
        let (b, a) = (record("b", 1), record("a", 2));
        records.put(&b).unwrap();
        records.put(&a).unwrap();
        let found = |records: &Records| records.all().unwrap();
        assert_eq!(found(&records).0, [a.clone(), b.clone()]);

        let path = records.folder_of(b.volume).join(FILE);
        let mut bytes = fs::read(&path).unwrap();
        bytes[5] ^= 1;
        fs::write(&path, bytes).unwrap();
        let (sound, unreadable) = found(&records);
        assert_eq!(sound, [a]);
        assert_eq!(unreadable.len(), 1);
        assert!(unreadable[0].reason.contains("cannot be read"), "{unreadable:?}");
        // Also when it has been set aside: it was opened without its journal then.
        assert!(records.of(b.volume).unwrap_err().reason.contains("set aside"));
    }

    #[test]
    fn a_takeover_that_was_cut_off_is_known_by_the_next_process_whatever_became_of_its_file() {
        let dir = tempfile::tempdir().unwrap();
        let records = Records::new(dir.path().join("disks"));
        let volume = record("a", 1).volume;
        assert!(!records.is_taking_over(volume));
        records.set_taking_over(volume, false).unwrap();
        assert!(!records.is_taking_over(volume));
        records.set_taking_over(volume, true).unwrap();
        assert!(records.is_taking_over(volume));
        records.set_taking_over(volume, false).unwrap();
        assert!(!records.is_taking_over(volume));
        records.set_taking_over(volume, true).unwrap();
        fs::write(records.folder_of(volume).join(TAKING_OVER), b"?").unwrap();
        assert!(records.is_taking_over(volume));
    }

    #[test]
    fn which_peers_voters_are_comes_back_and_is_none_when_it_is_damaged() {
        let dir = tempfile::tempdir().unwrap();
        let records = Records::new(dir.path().join("disks"));
        let disk = record("a", 1);
        records.put(&disk).unwrap();
        assert!(records.voters(disk.volume).is_empty());
        let voter = KnownVoter {
            id: [7; 32],
            peer: "dir:usb".to_owned(),
            name: "usb".to_owned(),
        };
        let voters = [voter];
        records.put_voters(disk.volume, &voters).unwrap();
        assert_eq!(records.voters(disk.volume), voters);
        fs::write(records.folder_of(disk.volume).join(VOTERS), b"?").unwrap();
        assert!(records.voters(disk.volume).is_empty());
        assert_eq!(records.all().unwrap().0, [disk]);
    }

    #[test]
    fn a_record_of_which_only_the_one_before_is_left_says_that_something_may_be_here_alone() {
        let dir = tempfile::tempdir().unwrap();
        let records = Records::new(dir.path().join("disks"));
        let closed = record("a", 1);
        records.put(&closed).unwrap();
        let open = DiskRecord {
            is_ahead: true,
            ..closed
        };
        records.put(&open).unwrap();
        let path = records.folder_of(open.volume).join(FILE);
        let mut bytes = fs::read(&path).unwrap();
        bytes[5] ^= 1;
        fs::write(&path, bytes).unwrap();
        for _ in 0..2 {
            assert_eq!(records.of(open.volume).unwrap(), Some(open.clone()));
        }
    }

    #[test]
    fn a_record_knows_when_the_commit_was_made_with_which_it_was_closed_and_of_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let records = Records::new(dir.path().join("disks"));
        let mut closed = record("a", 1);
        closed.is_ahead = true;
        let mut root = Root::first(closed.volume, "a".to_owned(), 2 << 30, Vec::new());
        (root.commit, root.time_ns) = (7, 99);
        closed.close(&root);
        records.put(&closed).unwrap();
        let read = records.of(closed.volume).unwrap().unwrap();
        assert!(!read.is_ahead && read.size == 2 << 30);
        assert_eq!((read.committed_ns(7), read.committed_ns(8)), (Some(99), None));
    }

    /// As written before commits were noted.
    #[test]
    fn a_record_without_the_last_commit_is_read() {
        let old: (
            u16,
            minicbor::bytes::ByteVec,
            &str,
            u64,
            minicbor::bytes::ByteVec,
            u64,
            bool,
        ) = (VERSION, vec![1; 16].into(), "a", 4096, Vec::new().into(), 1, true);
        let read: DiskRecord = minicbor::decode(&minicbor::to_vec(old).unwrap()).unwrap();
        assert_eq!((read.name.as_str(), read.committed_ns(0)), ("a", None));
    }

    #[test]
    fn a_cache_that_was_put_elsewhere_goes_with_its_disk_and_no_other_does() {
        let dir = tempfile::tempdir().unwrap();
        let records = Records::new(dir.path().join("disks"));
        let elsewhere = dir.path().join("ssd");
        let with_cache = |volume| DiskRecord::new([volume; 16], "x".into(), 4096, Some(&elsewhere), 1);
        for volume in [1, 2] {
            let record = with_cache(volume);
            records.put(&record).unwrap();
            fs::create_dir_all(records.cache_of(&record).join("journal")).unwrap();
        }
        records.remove(&with_cache(1)).unwrap();
        records.remove(&with_cache(1)).unwrap();
        assert!(!records.cache_of(&with_cache(1)).exists());
        assert!(records.cache_of(&with_cache(2)).exists());
        assert_eq!(records.all().unwrap().0, [with_cache(2)]);
    }
}
