//! What is stored with friends, in buckets and in files of keys: every format of proto.

use bytes::Bytes;
use proto::cap_index::{IndexRecord, PackRecord};
use proto::discard::{Discard, Order, read_ids, write_ids};
use proto::epoch::Verdict;
use proto::head::{DiskHead, HEAD_BYTES, Head, HeadBody, RootRef};
use proto::id::{DeviceId, PackId, ShareId, SnapshotId, VolumeId};
use proto::keys::{AccountKeys, DeviceCert, WRAPPED_KEY_BYTES};
use proto::log_record::{LogRecord, PathBytes, SnapshotRecord};
use proto::manifest::Manifest;
use proto::phrase::Seed;
use proto::promise::Promise;
use proto::record::{Record, first_from_cbor, to_cbor};
use proto::root::Root;
use proto::section;
use proto::section_kind::SectionKind;
use proto::shape::PackShape;
use proto::shape::ShareSize;
use proto::share::manifest_in_tail;

use crate::engine::{Cost, Target};
use crate::heard::Heard;
use crate::keys::{Who, signed_again};

/// The target.
pub const TARGET: Target = Target {
    name: "formats",
    run,
    seeds,
    golden: &[
        "backup-log",
        "cert",
        "discard",
        "head",
        "keys",
        "manifest",
        "promise",
        "read-cap-index",
        "root",
        "share",
    ],
    words: &[
        b"GBSECT\0\0",
        b"GBHEAD\0\0",
        b"GBPROM\0\0",
        b"GRIDSHAR",
        b"GRIDKEYS",
        b"/",
        b"..",
    ],
    cost: Cost {
        // A root may have 16 MiB of records.
        bytes: 64 << 20,
        ..Cost::SMALL
    },
};

fn seeds() -> Vec<Vec<u8>> {
    let who = Who::new(1, 0);
    let id = DeviceId(who.device.verifying_key().to_bytes());
    let snapshot = SnapshotRecord {
        seq: 2,
        id: SnapshotId([1; 16]),
        time_ns: 5,
        parent: Some(1),
        source_roots: vec![PathBytes(b"/home/ann".to_vec())],
        files: 3,
        bytes: 9,
    };
    let disk = DiskHead {
        volume: [6; 16],
        epoch: 1,
        commit: 300,
        root: RootRef {
            pack: PackRecord {
                manifest: vec![7; 300],
                wrapped_key: [8; WRAPPED_KEY_BYTES],
            },
            offset: 70_000,
            len: 600,
        },
    };
    let body = HeadBody {
        root: None,
        snapshot: Some(snapshot.clone()),
        disks: Some(vec![disk]),
    };
    let head = Head::sign(&who.device, &who.cert, 7, [0; 32], &body, &who.keys.put, [3; 32]);
    let ids = [ShareId([1; 32]), ShareId([2; 32])];
    let order = Order {
        holder: id,
        number: 1,
        previous: [0; 32],
        issued_secs: 2,
    };
    let discard = Discard::sign(&who.device, &who.cert, order, &ids);
    let shape = PackShape {
        k: 2,
        n: 3,
        share: ShareSize::Small,
    };
    let shares = vec![ids[0], ids[1], ShareId([3; 32])];
    let manifest = Manifest::sign(PackId([4; 32]), shape, shares, who.account(), &who.device);
    let root = Root {
        snapshots: vec![snapshot],
        ..Root::default()
    };
    let promise = Promise::sign(&who.device, &who.cert, VolumeId([6; 16]), 300);
    let mut seeds = vec![
        to_cbor(&body),
        who.cert.encode(),
        manifest.encode(),
        write_ids(&ids),
        who.keys.encode().to_vec(),
        Seed([5; 32]).to_phrase().as_bytes().to_vec(),
    ];
    seeds.extend(head.map(|head| head.encode()));
    seeds.extend(discard.map(|discard| discard.encode()));
    seeds.extend(promise.map(|promise| promise.encode()));
    seeds.extend(root.encode());
    seeds
}

fn run(input: &[u8], heard: &mut Heard) {
    records_and_sections(input, heard);
    signed(input, heard);
    if let Some(head) = heard.note("head body", first_from_cbor::<HeadBody>(input)) {
        assert_eq!(to_cbor(&head.0), input[..head.1]);
    }
    for head in resigned_heads(input) {
        if let Some(head) = heard.note("head", Head::decode(&head).map_err(|error| error.to_string())) {
            let keys = &Who::new(1, 0).keys;
            let body = keys.read.as_ref().map(|read| head.open(read));
            body.map(|body| heard.note("head opened", body));
        }
    }
    tail(input, heard);
    if let Some(keys) = heard.note("keys", AccountKeys::decode(input)) {
        assert_eq!(*keys.encode(), input, "a key file has one encoding");
    }
    if let Some(ids) = heard.note("ids", read_ids(input)) {
        assert_eq!(write_ids(&ids), input);
    }
    if let Ok(text) = std::str::from_utf8(input)
        && let Some(seed) = heard.note("phrase", Seed::from_phrase(text))
    {
        let again = Seed::from_phrase(&seed.to_phrase()).expect("what was written is read");
        assert_eq!(again.0, seed.0);
    }
}

/// Sections whole, their payload made anew around the input, and their records.
fn records_and_sections(input: &[u8], heard: &mut Heard) {
    if let Some((kind, records)) = heard.note("section", section::decode(input)) {
        let again = section::encode(kind, &records).expect("it was within the limits");
        assert_eq!(section::decode(&again), Ok((kind, records)));
    }
    heard.note("root section", Root::decode(input));
    records::<LogRecord>("log", input, heard);
    records::<IndexRecord>("index", input, heard);
    records::<Root>("root", input, heard);
    for kind in [SectionKind::Log, SectionKind::Index, SectionKind::Root] {
        let section = section::encode(kind, input).expect("an input is shorter than a section");
        assert_eq!(section::decode(&section), Ok((kind, input.to_vec())));
    }
}

/// What is read of records is what was written: no byte of them is passed over.
fn records<T: Record>(what: &str, input: &[u8], heard: &mut Heard) {
    let (mut read, mut count) = (Vec::new(), 0);
    for record in section::records::<T>(input) {
        let Some(record) = heard.note(what, record) else { break };
        count += 1;
        assert_eq!(record.check(), Ok(()), "what was read is within the limits");
        read.extend(to_cbor(&record));
    }
    assert!(input.starts_with(&read), "{what} records have one encoding");
    heard.count(what, count);
}

/// Certificates, manifests, discards and promises, as they are and signed again.
fn signed(input: &[u8], heard: &mut Heard) {
    let as_it_is = || std::iter::once(input.to_vec());
    for bytes in as_it_is().chain(signed_again("gridbackup 2026 device cert", input)) {
        if let Some(cert) = heard.note("cert", DeviceCert::decode(&bytes)) {
            assert_eq!(cert.encode(), bytes, "a certificate has one encoding");
        }
    }
    for bytes in as_it_is().chain(signed_again("gridbackup 2026 manifest", input)) {
        if let Some(manifest) = heard.note("manifest", Manifest::decode(&bytes)) {
            assert_eq!(manifest.encode(), bytes, "a manifest has one encoding");
            assert!(manifest.shape.is_valid() && manifest.shares.len() == usize::from(manifest.shape.n));
        }
    }
    for bytes in as_it_is().chain(signed_again("gridbackup 2026 discard", input)) {
        if let Some(discard) = heard.note("discard", Discard::decode(&bytes)) {
            assert_eq!(discard.encode(), bytes, "a discard has one encoding");
            heard.note("discard's ids", discard.ids(input));
        }
    }
    for bytes in as_it_is().chain(signed_again("gridbackup 2026 promise signature", input)) {
        if let Some(promise) = heard.note("promise", Promise::decode(&bytes)) {
            assert_eq!(promise.encode(), bytes, "a promise has one encoding");
            assert_eq!(promise.verdict(Some(&promise)), Verdict::Confirm);
        }
    }
}

fn resigned_heads(input: &[u8]) -> Vec<Vec<u8>> {
    let mut heads = vec![input.to_vec()];
    if input.len() == HEAD_BYTES {
        heads.extend(signed_again("gridbackup 2026 head signature", input));
    }
    for bytes in &heads {
        if let Ok(head) = Head::decode(bytes) {
            assert_eq!(head.encode(), *bytes, "a head has one encoding");
        }
    }
    heads
}

/// The tail of a stored share, also with its checksum made right.
fn tail(input: &[u8], heard: &mut Heard) {
    let size = ShareSize::Small;
    heard.note("tail", manifest_in_tail(size, input));
    let mut whole = input.to_vec();
    whole.resize(size.tail_bytes(), 0);
    let (checked, sum) = whole.split_at_mut(size.tail_bytes() - 16);
    let area = &checked[checked.len() - proto::shape::MANIFEST_AREA_BYTES - 16..];
    sum.copy_from_slice(&blake3::hash(area).as_bytes()[..16]);
    heard.note("tail made right", manifest_in_tail(size, &whole));
    let stored = Bytes::copy_from_slice(input);
    heard.note("share", proto::share::Share::from_stored(stored));
}
