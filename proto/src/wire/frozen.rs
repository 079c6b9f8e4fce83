//! Every message, byte for byte as version 1 says it (proto/golden/wire).

use ed25519_dalek::SigningKey;
use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};

use super::audit::{Challenge, Committing};
use super::by_device::{ByDevice, Speaker};
use super::frame::{LENGTH_BYTES, parse, prefix};
use super::greeting::{Greeting, Refusal};
use super::member::{MemberMessage, join_proof};
use super::pass_on::{PassError, PassOrder, PassRecord, Target, read_receipts, write_receipts};
use super::receipt::{Receipt, ReceiptBody};
use super::removal::Removal;
use super::roster::{DeviceRecord, MemberRecord, RosterRecords, grid_id};
use super::share::{Failure, ShareMessage};
use super::ticket::TicketId;
use super::word::AccountWord;
use crate::hash_tree::LEAF_BYTES;
use crate::id::{AccountId, DeviceId, PackId, ShareId, VolumeId};
use crate::keys::{DeviceCert, power};
use crate::manifest::Manifest;
use crate::shape::PackShape;
use crate::shape::ShareSize;
use crate::share_store::HeadPlace;

/// Frames of these messages, one after the other, are the golden file's bytes, and read back as the messages.
fn frozen<M>(golden: &[u8], messages: &[(M, &[u8])])
where
    M: Encode<()> + for<'b> Decode<'b, ()> + PartialEq + std::fmt::Debug,
{
    let mut written = Vec::new();
    for (message, payload) in messages {
        written.extend(prefix(message, payload.len()));
        written.extend_from_slice(payload);
    }
    assert_eq!(
        data_encoding::HEXLOWER.encode(&written),
        data_encoding::HEXLOWER.encode(golden)
    );
    let mut rest = golden;
    for (message, payload) in messages {
        let (length, behind) = rest.split_first_chunk::<LENGTH_BYTES>().expect("a frame is left");
        let (body, next) = behind.split_at(super::frame::body_bytes(*length).expect("within limits"));
        let (read, start) = parse::<M>(body).expect("a known message");
        assert_eq!((&read, &body[start..]), (message, *payload));
        rest = next;
    }
    assert!(rest.is_empty());
}

#[test]
fn greetings_of_version_1_do_not_change() {
    let cert = || ByteVec::from(vec![0xce; 5]);
    let refusals = [
        Refusal::Stranger,
        Refusal::Certificate,
        Refusal::Version,
        Refusal::Busy,
        Refusal::TicketUnknown,
        Refusal::TicketExpired,
        Refusal::TicketUsed,
        Refusal::CannotAdmit,
        Refusal::Malformed,
    ];
    let mut messages: Vec<(Greeting, &[u8])> = vec![
        (
            Greeting::Hello {
                version: 1,
                cert: cert(),
                owner: None,
            },
            b"",
        ),
        (
            Greeting::Hello {
                version: 1,
                cert: cert(),
                owner: Some(AccountId([0xac; 32])),
            },
            b"",
        ),
        (
            Greeting::Welcome {
                version: 1,
                cert: cert(),
            },
            b"",
        ),
    ];
    messages.extend(refusals.map(|refusal| {
        (
            Greeting::Refused {
                refusal,
                text: "No".into(),
            },
            &b""[..],
        )
    }));
    frozen(include_bytes!("../../golden/wire/v1-greeting.bin"), &messages);
}

#[test]
fn the_refusal_of_a_full_grid_does_not_change() {
    // Added later: the golden file above has the older ones.
    assert_eq!(minicbor::to_vec(Refusal::GridFull).unwrap(), [9]);
    assert_eq!(minicbor::to_vec(Refusal::HasLeft).unwrap(), [10]);
    assert_eq!(minicbor::to_vec(Refusal::Revoked).unwrap(), [11]);
    assert_eq!(minicbor::to_vec(Refusal::KeptOut).unwrap(), [12]);
}

#[test]
fn share_messages_of_version_1_do_not_change() {
    let id = ShareId([0x5a; 32]);
    let request = 0x0102_0304;
    let failed = |failure| (ShareMessage::Failed { request, failure }, &b""[..]);
    let messages: Vec<(ShareMessage, &[u8])> = vec![
        (
            ShareMessage::Put {
                request,
                id,
                stored_bytes: 264_736,
            },
            b"",
        ),
        (
            ShareMessage::PutFrom {
                request,
                offset: 65_536,
            },
            b"",
        ),
        (
            ShareMessage::PutBytes {
                request,
                offset: 65_536,
            },
            b"share",
        ),
        (
            ShareMessage::PutAck {
                request,
                receipt: vec![0xee; 3].into(),
            },
            b"",
        ),
        (
            ShareMessage::Get {
                request,
                id,
                start: 1,
                end: 6,
            },
            b"",
        ),
        (ShareMessage::GetBytes { request, offset: 1 }, b"share"),
        (
            ShareMessage::List {
                request,
                after: None,
                limit: 10,
            },
            b"",
        ),
        (
            ShareMessage::List {
                request,
                after: Some(id),
                limit: 8192,
            },
            b"",
        ),
        (ShareMessage::Ids { request }, &[0x5b; 64]),
        (ShareMessage::Remove { request, id }, b""),
        (ShareMessage::Done { request }, b""),
        (ShareMessage::Space { request }, b""),
        (
            ShareMessage::SpaceIs {
                request,
                used_bytes: 1,
                free_bytes: None,
            },
            b"",
        ),
        (
            ShareMessage::SpaceIs {
                request,
                used_bytes: 1,
                free_bytes: Some(1 << 40),
            },
            b"",
        ),
        (ShareMessage::PutHead { request }, b"head"),
        (
            ShareMessage::Heads {
                request,
                account: AccountId([0xac; 32]),
            },
            b"",
        ),
        (ShareMessage::HeadsAre { request }, b"heads"),
        failed(Failure::NotFound),
        failed(Failure::Full("disk".into())),
        failed(Failure::Busy(5)),
        failed(Failure::Unreachable("away".into())),
        failed(Failure::Refused("no".into())),
        failed(Failure::Corrupt("bad".into())),
        failed(Failure::OutOfRange),
        (ShareMessage::Cancel { request }, b""),
    ];
    frozen(include_bytes!("../../golden/wire/v1-share.bin"), &messages);
}

#[test]
fn discard_messages_of_version_1_do_not_change() {
    let id = ShareId([0x5a; 32]);
    let place = HeadPlace {
        day: 7,
        device: DeviceId([0xde; 32]),
    };
    let request = 0x0102_0304;
    let messages: Vec<(ShareMessage, &[u8])> = vec![
        (ShareMessage::LastDiscard { request }, b""),
        (
            ShareMessage::LastDiscardIs {
                request,
                number: 3,
                hash: [0x4a; 32].into(),
            },
            b"",
        ),
        (
            ShareMessage::Discard {
                request,
                discard: vec![0xdd; 3].into(),
            },
            &[0x5b; 64],
        ),
        (ShareMessage::Discarded { request, count: 2 }, b""),
        (
            ShareMessage::Trash {
                request,
                after: Some(id),
                limit: 8192,
            },
            b"",
        ),
        (ShareMessage::Recall { request }, &[0x5b; 64]),
        (
            ShareMessage::OldHeads {
                request,
                account: AccountId([0xac; 32]),
                after: Some(place),
            },
            b"",
        ),
        (
            ShareMessage::OldHeadsAre {
                request,
                ages: vec![0, 29],
                next: Some(place),
            },
            b"heads",
        ),
        (ShareMessage::Evidence { request, id }, b""),
        (
            ShareMessage::EvidenceIs {
                request,
                discard: vec![0xdd; 3].into(),
            },
            &[0x5b; 64],
        ),
    ];
    frozen(include_bytes!("../../golden/wire/v1-discard.bin"), &messages);
}

#[test]
fn audit_messages_of_version_1_do_not_change() {
    let request = 0x0102_0304;
    let challenge = Challenge::new(vec![(ShareId([0x5a; 32]), 7), (ShareId([0x5b; 32]), 255)]).unwrap();
    let payload = challenge.encode();
    let messages: [(ShareMessage, &[u8]); 4] = [
        (ShareMessage::Ping { request }, b""),
        (
            ShareMessage::Challenge {
                request,
                nonce: [0x11; 32],
            },
            &payload,
        ),
        (
            ShareMessage::Commitment {
                request,
                hash: [0xc0; 32],
                lacking: 2,
            },
            b"",
        ),
        (ShareMessage::Proofs { request }, b"leaf and path"),
    ];
    frozen(include_bytes!("../../golden/wire/v1-audit.bin"), &messages);
    let mut committing = Committing::new(&[0x11; 32], DeviceId([4; 32]));
    committing.leaf(ShareId([0x5a; 32]), 7, &[0x77; LEAF_BYTES]);
    assert_eq!(
        data_encoding::HEXLOWER.encode(&committing.finish()),
        "39c9d417d1ff8be978fe9541b52426be99c3875fe5bae1e086b8877de645f61f"
    );
}

#[test]
fn promise_messages_of_version_1_do_not_change() {
    let (request, volume) = (0x0102_0304, VolumeId([0x61; 16]));
    let messages: [(ShareMessage, &[u8]); 4] = [
        (ShareMessage::Claim { request }, b"claim"),
        (ShareMessage::PromiseOf { request, volume }, b""),
        (ShareMessage::PromiseIs { request }, b"promise"),
        (ShareMessage::PromiseIs { request }, b""),
    ];
    frozen(include_bytes!("../../golden/wire/v1-promise.bin"), &messages);
}

#[test]
fn member_messages_of_version_1_do_not_change() {
    let proof = join_proof(&[7; 32], DeviceId([1; 32]), DeviceId([2; 32]));
    let join = MemberMessage::Join {
        ticket: TicketId([9; 16]),
        proof,
        name: "Ada".into(),
        acceptance: ByDevice {
            cert: vec![0xcc; 3].into(),
            signature: [0xaa; 64],
        },
        word: Some(vec![0xdd; 3].into()),
    };
    let messages: [(MemberMessage, &[u8]); 4] = [
        (join, b""),
        (MemberMessage::Digest { hash: [0xd1; 32] }, b""),
        (MemberMessage::Same, b""),
        (MemberMessage::Roster, b"roster"),
    ];
    frozen(include_bytes!("../../golden/wire/v1-member.bin"), &messages);
}

#[test]
fn a_receipt_of_version_1_does_not_change() {
    let device = SigningKey::from_bytes(&[4; 32]);
    let body = ReceiptBody {
        share: ShareId([0x5a; 32]),
        owner: AccountId([0xac; 32]),
        holder: DeviceId(device.verifying_key().to_bytes()),
        stored_bytes: 264_736,
        kept_secs: 1_800_000_000,
    };
    let receipt = Receipt::sign(&device, body);
    let golden = include_bytes!("../../golden/wire/v1-receipt.bin");
    assert_eq!(receipt.encode(), golden);
    assert_eq!(Receipt::decode(golden), Ok(receipt));
}

fn pass_record() -> PassRecord {
    let (device, holder) = (SigningKey::from_bytes(&[3; 32]), SigningKey::from_bytes(&[4; 32]));
    let shape = PackShape {
        k: 2,
        n: 3,
        share: ShareSize::Small,
    };
    let shares = [0x50, 0x51, 0x52].map(|byte| ShareId([byte; 32])).into();
    let manifest = Manifest::sign(PackId([0x9a; 32]), shape, shares, AccountId([0xac; 32]), &device);
    let holder_id = DeviceId(holder.verifying_key().to_bytes());
    let targets = vec![
        Target {
            index: 1,
            device: holder_id,
        },
        Target {
            index: 2,
            device: DeviceId([7; 32]),
        },
    ];
    let body = ReceiptBody {
        share: ShareId([0x51; 32]),
        owner: AccountId([0xac; 32]),
        holder: holder_id,
        stored_bytes: ShareSize::Small.stored_bytes() as u32,
        kept_secs: 1_800_000_000,
    };
    PassRecord {
        order: PassOrder { manifest, targets },
        receipts: vec![Receipt::sign(&holder, body)],
        since_secs: 1_800_000_000,
    }
}

#[test]
fn messages_to_a_steward_of_version_1_do_not_change() {
    let request = 0x0102_0304;
    let record = pass_record();
    let (order, receipts) = (record.order.encode(), write_receipts(&record.receipts));
    let messages: Vec<(ShareMessage, &[u8])> = vec![
        (ShareMessage::PassOn { request }, &order),
        (
            ShareMessage::Passing {
                request,
                have: vec![0, 1].into(),
                failing: vec![2].into(),
            },
            &receipts,
        ),
        (
            ShareMessage::PutToPass {
                request,
                id: ShareId([0x5a; 32]),
                stored_bytes: 264_736,
            },
            b"",
        ),
    ];
    frozen(include_bytes!("../../golden/wire/v1-steward.bin"), &messages);
    assert_eq!(PassOrder::decode(&order), Ok(record.order));
    assert_eq!(read_receipts(&receipts), Ok(record.receipts));
}

#[test]
fn a_steward_s_record_of_version_1_does_not_change() {
    let record = pass_record();
    let golden = include_bytes!("../../golden/wire/v1-pass-record.bin");
    assert_eq!(
        data_encoding::HEXLOWER.encode(&record.encode()),
        data_encoding::HEXLOWER.encode(golden)
    );
    assert_eq!(PassRecord::decode(golden), Ok(record.clone()));
    let open: Vec<u8> = record.open().iter().map(|target| target.index).collect();
    assert_eq!(open, [2]);
    for at in 0..golden.len() {
        let mut damaged = golden.to_vec();
        damaged[at] ^= 1;
        assert!(PassRecord::decode(&damaged).is_err(), "byte {at}");
    }
}

#[test]
fn an_order_that_names_a_share_twice_or_one_that_is_not_there_is_none() {
    let mut order = pass_record().order;
    order.targets[1].index = 1;
    assert!(matches!(
        PassOrder::decode(&order.encode()),
        Err(PassError::Malformed { .. })
    ));
    order.targets[1].index = 3;
    assert!(matches!(
        PassOrder::decode(&order.encode()),
        Err(PassError::Malformed { .. })
    ));
}

/// The founder's device, with its certificate.
fn founder_device() -> (SigningKey, DeviceCert) {
    let (words, device) = (SigningKey::from_bytes(&[5; 32]), SigningKey::from_bytes(&[4; 32]));
    let id = DeviceId(device.verifying_key().to_bytes());
    let cert = DeviceCert::sign(&words, id, power::ALL, "laptop", 1_800_000_000);
    (device, cert)
}

#[test]
fn removals_and_words_of_version_1_do_not_change() {
    let (key, cert) = founder_device();
    let founder = Speaker { key: &key, cert: &cert };
    let grid = grid_id(founder.account(), 1_800_000_000);
    let removal = Removal {
        staying: vec![AccountId([0xad; 32])],
        heard: 7,
        ..Removal::of(AccountId([0xac; 32]), 1, true)
    };
    let removal = removal.signed(founder, grid);
    let golden = golden("v1-removal.bin", &removal.encode());
    assert_eq!(Removal::decode(&golden), Ok(removal));
    let word = AccountWord {
        seq: 2,
        since_secs: 1,
        revoked: vec![DeviceId([0xae; 32])],
        left: vec![grid],
        ..AccountWord::first(founder.account())
    };
    let word = word.signed(&SigningKey::from_bytes(&[5; 32]));
    let golden = self::golden("v1-word.bin", &word.encode());
    assert_eq!(AccountWord::decode(&golden), Ok(word.clone()));
    let standing = AccountWord {
        seq: 3,
        stands_by: Some(vec![AccountId([0x21; 32]), AccountId([0x22; 32])]),
        ..word
    };
    let standing = standing.signed(&SigningKey::from_bytes(&[5; 32]));
    let golden = self::golden("v1-word-stands-by.bin", &standing.encode());
    assert_eq!(AccountWord::decode(&golden), Ok(standing));
}

#[test]
fn a_roster_of_version_1_does_not_change() {
    let (key, cert) = founder_device();
    let founder = Speaker { key: &key, cert: &cert };
    let member = MemberRecord::found(founder, "Ada", 1_800_000_000);
    let grid = grid_id(founder.account(), 1_800_000_000);
    let record = DeviceRecord::sign(&key, grid, &cert, 3, &[vec![4, 127, 0, 0, 1, 6, 0x1f, 0x90]]);
    assert!(member.check(grid).is_ok() && member.founds(grid));
    assert_eq!(record.check(grid), Ok(cert.clone()));
    let roster = RosterRecords {
        version: 1,
        grid,
        members: vec![member],
        devices: vec![record],
        removals: Vec::new(),
        words: Vec::new(),
    };
    let golden = golden("v1-roster.bin", &roster.encode());
    assert_eq!(RosterRecords::decode(&golden), Ok(roster));
}

fn golden(name: &str, encoded: &[u8]) -> Vec<u8> {
    crate::fixtures::assert_golden(&format!("wire/{name}"), encoded)
}
