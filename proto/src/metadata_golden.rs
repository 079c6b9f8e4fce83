//! Frozen bytes of log, index, root and head: what was once written is read for ever, and written the same today.
//!
//! Of sections only the reading is frozen: the same records may compress to other bytes with another zstd.

use crate::cap_index::{Cap, ChunkSlot, Extent, IndexRecord, PackRecord};
use crate::fixtures::assert_golden as golden;
use crate::head::{DiskHead, Head, HeadBody, RootRef};
use crate::id::{ChunkId, DeviceId, SnapshotId, VersionId};
use crate::keys::{AccountKeys, DeviceCert, WRAPPED_KEY_BYTES, power, words_key};
use crate::log_record::{Content, Entry, EntryKind, LogRecord, Meta, PathBytes, SnapshotRecord, Xattr};
use crate::phrase::Seed;
use crate::record::Record;
use crate::root::{Root, SectionRef};
use crate::{record, section};

fn check_records<T: Record + PartialEq + std::fmt::Debug>(name: &str, expected: &[T]) {
    let written: Vec<u8> = expected.iter().flat_map(record::to_cbor).collect();
    let frozen = golden(&format!("{name}/v1-records.bin"), &written);
    let read: Vec<T> = section::records(&frozen).collect::<Result<_, _>>().unwrap();
    assert_eq!(read, expected);
    let path = format!("{}/golden/{name}/v1-section.bin", env!("CARGO_MANIFEST_DIR"));
    assert_eq!(section::decode(&std::fs::read(path).unwrap()), Ok((T::KIND, frozen)));
}

fn snapshot(seq: u64) -> SnapshotRecord {
    SnapshotRecord {
        seq,
        id: SnapshotId([0x11; 16]),
        time_ns: 1_700_000_000_123_456_789,
        parent: seq.checked_sub(1).filter(|&parent| parent > 0),
        source_roots: vec![PathBytes(b"/home/ann".to_vec())],
        files: 3,
        bytes: 70_000,
    }
}

fn pack() -> PackRecord {
    PackRecord {
        manifest: vec![0x22; 300],
        wrapped_key: [0x33; WRAPPED_KEY_BYTES],
    }
}

fn entry(name: &[u8], kind: EntryKind, content: Content) -> LogRecord {
    let xattrs = vec![Xattr {
        name: b"user.a".to_vec(),
        value: vec![0, 0xff],
    }];
    let meta = Meta {
        mode: 0o4755,
        uid: 1000,
        gid: 100,
        mtime_ns: -1,
        ctime_ns: i64::MAX,
        size: 5,
        inode: u64::MAX,
        device: 65_024,
        links: 2,
        rdev: 1,
        xattrs,
    };
    LogRecord::Entry(Entry {
        name: name.to_vec(),
        kind,
        meta,
        content,
    })
}

#[test]
fn every_log_record_is_frozen() {
    check_records(
        "backup-log",
        &[
            LogRecord::Snapshot(snapshot(1)),
            LogRecord::Directory(b"/".to_vec()),
            entry(b"", EntryKind::Directory, Content::None),
            LogRecord::Directory(b"/home/ann".to_vec()),
            entry(b"block", EntryKind::BlockDevice, Content::None),
            entry(b"char", EntryKind::CharDevice, Content::None),
            entry(b"fifo", EntryKind::Fifo, Content::None),
            entry(b"file", EntryKind::File, Content::Version(VersionId(u64::MAX))),
            entry(b"link", EntryKind::Symlink, Content::Inline(b"../tiny".to_vec())),
            entry(b"socket", EntryKind::Socket, Content::None),
            entry(b"tiny\xff", EntryKind::File, Content::Inline(b"hello".to_vec())),
            LogRecord::Snapshot(snapshot(2)),
            LogRecord::Directory(b"/home/ann".to_vec()),
            LogRecord::Gone(b"file".to_vec()),
        ],
    );
}

#[test]
fn every_index_record_is_frozen() {
    let chunk = ChunkId([0x44; 16]);
    let slot = ChunkSlot {
        id: chunk,
        offset: 7,
        stored_len: 100,
        raw_len: 70_000,
    };
    check_records(
        "read-cap-index",
        &[
            IndexRecord::Pack(pack(), vec![slot]),
            IndexRecord::Cap(VersionId(1), Cap::Inline(vec![0x55; 200])),
            IndexRecord::Cap(
                VersionId(2),
                Cap::Extents(vec![Extent::Chunk(chunk, 70_000), Extent::Hole(1 << 40)]),
            ),
            IndexRecord::CapMore(VersionId(2), (1 << 40) + 70_000, vec![Extent::Hole(1)]),
        ],
    );
}

#[test]
fn the_root_is_frozen() {
    check_records(
        "root",
        &[Root {
            packs: vec![pack()],
            sections: vec![
                SectionRef {
                    kind: 1,
                    pack: 0,
                    offset: 0,
                    len: 1000,
                },
                SectionRef {
                    kind: 2,
                    pack: 0,
                    offset: 1000,
                    len: 36,
                },
            ],
            snapshots: vec![snapshot(1), snapshot(2)],
            older: Some(RootRef {
                pack: pack(),
                offset: 9,
                len: 500,
            }),
            ..Root::default()
        }],
    );
}

fn check_head(name: &str, disks: Option<Vec<DiskHead>>) {
    let keys = AccountKeys::from_seed(&Seed([0x66; 32]));
    let device = ed25519_dalek::SigningKey::from_bytes(&[0x77; 32]);
    let device_id = DeviceId(device.verifying_key().to_bytes());
    let cert = DeviceCert::sign(
        &words_key(&Seed([0x66; 32])),
        device_id,
        power::ALL,
        "laptop",
        1_700_000_000,
    );
    let root = RootRef {
        pack: pack(),
        offset: 9,
        len: 500,
    };
    let body = HeadBody {
        root: Some(root),
        snapshot: Some(snapshot(2)),
        disks,
    };
    let head = Head::sign(&device, &cert, 2, [0x88; 32], &body, &keys.put, [0x99; 32]).unwrap();
    let frozen = Head::decode(&golden(name, &head.encode())).unwrap();
    assert_eq!(frozen, head);
    assert_eq!(frozen.open(keys.reader().unwrap()), Ok(body));
}

#[test]
fn the_head_is_frozen() {
    check_head("head/v1-full.bin", None);
}

/// Written by `golden/head/disks.py`, which knows nothing of this crate.
#[test]
fn a_head_with_disks_is_frozen() {
    let disk = |number: u8, commit| DiskHead {
        volume: [number; 16],
        epoch: u64::from(number),
        commit,
        root: RootRef {
            pack: pack(),
            offset: 70_000,
            len: 600,
        },
    };
    check_head("head/v1-disks.bin", Some(vec![disk(1, 2_000_000_000), disk(2, 1)]));
}
