//! Every limit of every record, one by one: what is over it is refused with an error when it is to be written, and no
//! value that somebody stored makes a writer panic.

use ed25519_dalek::SigningKey;

use crate::cap_index::{CHUNK_RAW_BYTES_MAX, Cap, ChunkSlot, Extent, IndexRecord, LIST_MAX, PackRecord};
use crate::discard::{Discard, DiscardError, Order};
use crate::head::RootRef;
use crate::head::{Head, HeadBody, HeadError};
use crate::id::{ChunkId, DeviceId, ShareId, SnapshotId, VersionId};
use crate::keys::{AccountKeys, DeviceCert, WRAPPED_KEY_BYTES, power, words_key};
use crate::log_record::{
    Content, Entry, EntryKind, LogRecord, Meta, PathBytes, SNAPSHOT_ROOTS_BYTES_MAX, SNAPSHOT_ROOTS_MAX,
    SnapshotRecord, TINY_BYTES_MAX, VERY_SMALL_BYTES_MAX, XATTR_VALUE_BYTES_MAX, XATTRS_BYTES_MAX, XATTRS_MAX, Xattr,
};
use crate::phrase::Seed;
use crate::record::{NAME_BYTES_MAX, PATH_BYTES_MAX, Record};
use crate::root::{Root, SectionRef, SnapshotRange, TAG_BYTES_MAX, TAGS_MAX, TaggedSnapshots};
use crate::section;
use crate::section::{SectionError, SectionWriter};
use crate::section_kind::{ROOT_RECORD_BYTES_MAX, SECTION_RECORDS_BYTES_MAX, SectionKind};
use crate::shape::MANIFEST_AREA_BYTES;
use crate::wire::frame::IDS_MAX;

fn snapshot() -> SnapshotRecord {
    SnapshotRecord {
        seq: 2,
        id: SnapshotId([1; 16]),
        time_ns: 0,
        parent: Some(1),
        source_roots: vec![PathBytes(b"/a".to_vec())],
        files: 0,
        bytes: 0,
    }
}

fn path(bytes: usize) -> PathBytes {
    let names = [b"/".as_slice(), &[b'n'; 200]].concat().repeat(bytes / 201 + 1);
    let mut path = names[..bytes].to_vec();
    *path.last_mut().unwrap() = b'e';
    PathBytes(path)
}

/// Snapshots that no format takes.
fn snapshots() -> Vec<(&'static str, SnapshotRecord)> {
    let with = |source_roots| SnapshotRecord {
        source_roots,
        ..snapshot()
    };
    let numbered = |count: usize| (0..count).map(|at| PathBytes(format!("/{at:06}").into_bytes()));
    vec![
        ("paths", with(numbered(SNAPSHOT_ROOTS_MAX + 1).collect())),
        (
            "bytes of paths",
            with(vec![path(4_000); SNAPSHOT_ROOTS_BYTES_MAX / 4_000 + 1]),
        ),
        ("a path", with(vec![path(PATH_BYTES_MAX + 1)])),
        ("a relative path", with(vec![PathBytes(b"a".to_vec())])),
        ("its number", SnapshotRecord { seq: 0, ..snapshot() }),
        (
            "its parent",
            SnapshotRecord {
                parent: Some(2),
                ..snapshot()
            },
        ),
    ]
}

fn pack(manifest_bytes: usize) -> PackRecord {
    PackRecord {
        manifest: vec![1; manifest_bytes],
        wrapped_key: [2; WRAPPED_KEY_BYTES],
    }
}

fn section_ref(len: usize) -> SectionRef {
    SectionRef {
        kind: SectionKind::Log as u8,
        pack: 0,
        offset: 0,
        len: len as u32,
    }
}

#[test]
fn a_root_over_a_limit_is_refused() {
    let ranges = |ranges: &[(u64, u64)]| {
        let ranges = ranges.iter().map(|&(first, last)| SnapshotRange { first, last });
        Some(ranges.collect::<Vec<_>>())
    };
    let tagged = |tag: String| TaggedSnapshots {
        tag,
        snapshots: ranges(&[(1, 1)]).unwrap(),
    };
    let with = |change: &dyn Fn(&mut Root)| {
        let mut root = Root {
            packs: vec![pack(1)],
            sections: vec![section_ref(100)],
            snapshots: vec![snapshot()],
            ..Root::default()
        };
        change(&mut root);
        root
    };
    assert!(with(&|_| ()).encode().is_ok());
    let long = with(&|root| {
        root.snapshots = (2..80)
            .map(|seq| SnapshotRecord {
                seq,
                source_roots: vec![path(SNAPSHOT_ROOTS_BYTES_MAX / 2); 2],
                ..snapshot()
            })
            .collect();
    });
    let mut wrong = vec![
        ("length", long),
        ("an empty manifest", with(&|root| root.packs[0].manifest.clear())),
        (
            "a manifest",
            with(&|root| root.packs[0] = pack(MANIFEST_AREA_BYTES + 1)),
        ),
        ("a pack", with(&|root| root.sections[0].pack = 2)),
        ("a kind", with(&|root| root.sections[0].kind = 9)),
        ("a section", with(&|root| root.sections[0].len = u32::MAX)),
        ("order", with(&|root| root.snapshots = vec![snapshot(), snapshot()])),
        ("forgotten", with(&|root| root.forgotten = ranges(&[(2, 1)]))),
        ("pinned", with(&|root| root.pinned = ranges(&[(1, 2), (2, 3)]))),
        ("no tags", with(&|root| root.tags = Some(Vec::new()))),
        (
            "a tag",
            with(&|root| root.tags = Some(vec![tagged("x".repeat(TAG_BYTES_MAX + 1))])),
        ),
        (
            "tags",
            with(&|root| root.tags = Some((0..=TAGS_MAX).map(|at| tagged(format!("{at:05}"))).collect())),
        ),
        (
            "the root before",
            with(&|root| {
                root.older = Some(RootRef {
                    pack: pack(1),
                    offset: 0,
                    len: 1,
                });
            }),
        ),
    ];
    let snapshots = snapshots().into_iter();
    wrong.extend(snapshots.map(|(what, wrong)| (what, with(&|root| root.snapshots = vec![wrong.clone()]))));
    for (what, root) in wrong {
        assert!(matches!(root.encode(), Err(SectionError::Limit { .. })), "{what}");
    }
}

#[test]
fn a_head_over_a_limit_is_refused_or_goes_without_its_paths() {
    let keys = AccountKeys::from_seed(&Seed([1; 32]));
    let device = SigningKey::from_bytes(&[2; 32]);
    let sign = |device: &SigningKey, body: &HeadBody| {
        let id = DeviceId(SigningKey::from_bytes(&[2; 32]).verifying_key().to_bytes());
        let cert = DeviceCert::sign(&words_key(&Seed([1; 32])), id, power::ALL, "laptop", 0);
        Head::sign(device, &cert, 1, [0; 32], body, &keys.put, [3; 32])
    };
    let body = |snapshot, manifest| HeadBody {
        root: Some(RootRef {
            pack: pack(manifest),
            offset: 0,
            len: 100,
        }),
        snapshot: Some(snapshot),
        disks: None,
    };
    assert!(sign(&device, &body(snapshot(), MANIFEST_AREA_BYTES)).is_ok());
    for (what, wrong) in snapshots() {
        let signed = sign(&device, &body(wrong, MANIFEST_AREA_BYTES));
        let fits_without_paths = ["paths", "bytes of paths", "a path"].contains(&what);
        assert_eq!(signed.is_ok(), fits_without_paths, "{what}");
    }
    for manifest in [0, MANIFEST_AREA_BYTES + 1] {
        let signed = sign(&device, &body(snapshot(), manifest));
        assert!(matches!(signed, Err(HeadError::Limit { .. })), "{manifest}");
    }
    let other = SigningKey::from_bytes(&[9; 32]);
    assert!(sign(&other, &body(snapshot(), 1)).is_err());
}

fn entry() -> Entry {
    Entry {
        name: b"name".to_vec(),
        kind: EntryKind::File,
        meta: Meta::default(),
        content: Content::Inline(Vec::new()),
    }
}

fn xattrs(count: usize, value_bytes: usize) -> Vec<Xattr> {
    let xattrs = (0..count).map(|at| Xattr {
        name: format!("user.{at:06}").into_bytes(),
        value: vec![7; value_bytes],
    });
    xattrs.collect()
}

/// Entries that no log takes.
fn entries() -> Vec<(&'static str, Entry)> {
    let with = |change: &dyn Fn(&mut Entry)| {
        let mut entry = entry();
        change(&mut entry);
        entry
    };
    vec![
        ("no name", with(&|entry| entry.name.clear())),
        ("a name", with(&|entry| entry.name = vec![b'n'; NAME_BYTES_MAX + 1])),
        ("a slash", with(&|entry| entry.name = b"a/b".to_vec())),
        ("mode", with(&|entry| entry.meta.mode = 0o10_000)),
        (
            "attributes",
            with(&|entry| entry.meta.xattrs = xattrs(XATTRS_MAX + 1, 1)),
        ),
        (
            "bytes of attributes",
            with(&|entry| entry.meta.xattrs = xattrs(XATTRS_BYTES_MAX / 60_000 + 1, 60_000)),
        ),
        (
            "an attribute",
            with(&|entry| entry.meta.xattrs = xattrs(1, XATTR_VALUE_BYTES_MAX + 1)),
        ),
        ("no content", with(&|entry| entry.content = Content::None)),
        (
            "content",
            with(&|entry| entry.content = Content::Inline(vec![0; TINY_BYTES_MAX as usize + 1])),
        ),
        (
            "a target",
            with(&|entry| {
                entry.kind = EntryKind::Symlink;
                entry.content = Content::Inline(vec![b't'; PATH_BYTES_MAX + 1]);
            }),
        ),
        ("a folder's content", with(&|entry| entry.kind = EntryKind::Directory)),
    ]
}

/// A writer refuses the record, and goes on.
fn refuses<T: Record + Clone>(before: &[T], what: &str, wrong: &T, good: &T) {
    let mut writer = SectionWriter::new();
    before.iter().for_each(|record| assert!(writer.push(record).is_ok()));
    assert!(matches!(writer.push(wrong), Err(SectionError::Limit { .. })), "{what}");
    before.iter().for_each(|record| assert!(writer.push(record).is_ok()));
    assert!(writer.push(good).is_ok(), "{what}");
    assert!(writer.finish().is_some());
}

#[test]
fn log_records_over_a_limit_are_refused_and_the_writer_goes_on() {
    let context = [LogRecord::Snapshot(snapshot()), LogRecord::Directory(b"/a".to_vec())];
    let good = LogRecord::Entry(entry());
    for (what, wrong) in entries() {
        refuses(&context, what, &LogRecord::Entry(wrong), &good);
    }
    for (what, wrong) in snapshots() {
        refuses(&context, what, &LogRecord::Snapshot(wrong), &good);
    }
    let gone = LogRecord::Gone(vec![b'n'; NAME_BYTES_MAX + 1]);
    refuses(&context, "a name that has gone", &gone, &good);
    let long = LogRecord::Directory(path(PATH_BYTES_MAX + 1).0);
    refuses(&context, "a folder's path", &long, &good);
}

#[test]
fn index_records_over_a_limit_are_refused_and_the_writer_goes_on() {
    let slot = ChunkSlot {
        id: ChunkId([3; 16]),
        offset: 0,
        stored_len: 9,
        raw_len: 9,
    };
    let of = |slot: ChunkSlot| IndexRecord::Pack(pack(1), vec![slot]);
    let extents = |extents| IndexRecord::Cap(VersionId(1), Cap::Extents(extents));
    let inline = vec![0; VERY_SMALL_BYTES_MAX as usize + 1];
    let wrong = [
        (
            "a manifest",
            IndexRecord::Pack(pack(MANIFEST_AREA_BYTES + 1), Vec::new()),
        ),
        ("chunks", IndexRecord::Pack(pack(1), vec![slot; LIST_MAX + 1])),
        ("an empty chunk", of(ChunkSlot { stored_len: 0, ..slot })),
        (
            "a chunk",
            of(ChunkSlot {
                raw_len: CHUNK_RAW_BYTES_MAX + 1,
                ..slot
            }),
        ),
        (
            "an offset",
            of(ChunkSlot {
                offset: u32::MAX,
                ..slot
            }),
        ),
        ("content", IndexRecord::Cap(VersionId(1), Cap::Inline(inline))),
        ("extents", extents(vec![Extent::Hole(1); LIST_MAX + 1])),
        ("an empty extent", extents(vec![Extent::Hole(0)])),
        ("a file's length", extents(vec![Extent::Hole(1 << 62); 3])),
        (
            "a beginning",
            IndexRecord::CapMore(VersionId(1), 0, vec![Extent::Hole(1)]),
        ),
    ];
    for (what, wrong) in wrong {
        refuses(&[], what, &wrong, &of(slot));
    }
}

#[test]
fn sections_over_their_length_are_refused() {
    for (kind, bytes_max) in [
        (SectionKind::Log, SECTION_RECORDS_BYTES_MAX),
        (SectionKind::Index, SECTION_RECORDS_BYTES_MAX),
        (SectionKind::Root, ROOT_RECORD_BYTES_MAX),
    ] {
        assert!(section::encode(kind, &vec![0; bytes_max]).is_ok());
        let longer = section::encode(kind, &vec![0; bytes_max + 1]);
        assert!(matches!(longer, Err(SectionError::Limit { .. })), "{kind:?}");
    }
}

#[test]
fn discards_over_a_limit_are_refused() {
    let device = SigningKey::from_bytes(&[4; 32]);
    let cert = |powers| {
        let id = DeviceId(device.verifying_key().to_bytes());
        DeviceCert::sign(&SigningKey::from_bytes(&[5; 32]), id, powers, "laptop", 0)
    };
    let order = Order {
        holder: DeviceId([7; 32]),
        number: 1,
        previous: [0; 32],
        issued_secs: 0,
    };
    let id = |number: u32| ShareId(*blake3::hash(&number.to_le_bytes()).as_bytes());
    let mut many: Vec<ShareId> = (0..=IDS_MAX).map(id).collect();
    many.sort_unstable();
    let all = cert(power::ALL);
    assert!(Discard::sign(&device, &all, order, &many[1..]).is_ok());
    for wrong in [&[][..], &many, &[many[1], many[0]]] {
        let signed = Discard::sign(&device, &all, order, wrong);
        assert!(matches!(signed, Err(DiscardError::Ids { .. })));
    }
    assert!(Discard::sign(&device, &cert(power::READ), order, &many[..1]).is_err());
    assert!(Discard::sign(&SigningKey::from_bytes(&[9; 32]), &all, order, &many[..1]).is_err());
}

#[test]
fn paths_that_are_too_many_become_the_folder_that_holds_most_of_them() {
    let mut record = snapshot();
    assert!(!record.fit_source_roots());
    record.source_roots = (0..SNAPSHOT_ROOTS_MAX)
        .map(|at| PathBytes(format!("/home/ann/{at}").into_bytes()))
        .chain([b"/etc".as_slice(), b"/home/annex"].map(|path| PathBytes(path.to_vec())))
        .collect();
    assert!(record.fit_source_roots());
    let roots: Vec<&[u8]> = record.source_roots.iter().map(|root| root.0.as_slice()).collect();
    assert_eq!(roots, [b"/etc".as_slice(), b"/home/ann", b"/home/annex"]);
    for (_, mut wrong) in snapshots() {
        wrong.fit_source_roots();
        assert!(wrong.source_roots.len() <= SNAPSHOT_ROOTS_MAX);
        (wrong.seq, wrong.parent) = (2, Some(1));
        assert_eq!(wrong.check(), Ok(()));
    }
}

#[test]
fn of_attributes_that_do_not_fit_as_many_are_kept_as_can_be_and_rights_before_all() {
    let mut meta = Meta {
        xattrs: xattrs(6, 60_000),
        ..Meta::default()
    };
    let rights = Xattr {
        name: b"system.posix_acl_access".to_vec(),
        value: vec![1; 60_000],
    };
    meta.xattrs.insert(0, rights.clone());
    let dropped = meta.fit_xattrs();
    assert_eq!((meta.xattrs.len(), dropped.len()), (4, 3));
    assert_eq!(meta.xattrs[0], rights);
    assert_eq!(meta.check(), Ok(()));
    assert!(meta.fit_xattrs().is_empty());
    let mut many = Meta {
        xattrs: xattrs(XATTRS_MAX + 5, 1),
        ..Meta::default()
    };
    assert_eq!(many.fit_xattrs().len(), 5);
    assert_eq!(many.check(), Ok(()));
}
