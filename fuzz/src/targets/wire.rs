//! What nodes say to each other: frames of every family of messages, and every record that travels in them.

use minicbor::{Decode, Encode};
use proto::id::{DeviceId, ShareId};
use proto::wire::audit::{Challenge, proved};
use proto::wire::frame;
use proto::wire::frame::{LENGTH_BYTES, PAYLOAD_BYTES_MAX};
use proto::wire::greeting::Greeting;
use proto::wire::member::MemberMessage;
use proto::wire::pass_on::{PassOrder, PassRecord, read_receipts, write_receipts};
use proto::wire::receipt::{Receipt, ReceiptBody};
use proto::wire::removal::Removal;
use proto::wire::roster::{DeviceRecord, MemberRecord, RosterRecords};
use proto::wire::share::ShareMessage;
use proto::wire::word::AccountWord;

use crate::engine::{Cost, Target};
use crate::heard::Heard;
use crate::keys::Who;

/// The target.
pub const TARGET: Target = Target {
    name: "wire",
    run,
    seeds,
    golden: &["wire"],
    words: &[b"gbpass\0\x01"],
    cost: Cost::SMALL,
};

fn seeds() -> Vec<Vec<u8>> {
    let who = Who::new(1, 0);
    let founded = MemberRecord::found(who.speaker(), "Ada", 100);
    let grid = proto::wire::roster::grid_id(who.account(), 100);
    let device = DeviceRecord::sign(&who.device, grid, &who.cert, 1, &[vec![4, 127, 0, 0, 1, 6, 0, 80]]);
    let removal = Removal::of(Who::new(2, 0).account(), 1, true).signed(who.speaker(), grid);
    let word = AccountWord::first(who.account()).signed(&who.words);
    let roster = RosterRecords {
        version: proto::wire::VERSION,
        grid,
        members: vec![founded],
        devices: vec![device],
        removals: vec![removal.encode()],
        words: vec![word.encode()],
    };
    let body = ReceiptBody {
        share: ShareId([1; 32]),
        owner: who.account(),
        holder: DeviceId(who.device.verifying_key().to_bytes()),
        stored_bytes: 264_736,
        kept_secs: 1,
    };
    let receipt = Receipt::sign(&who.device, body);
    vec![
        roster.encode(),
        removal.encode().to_vec(),
        word.encode().to_vec(),
        receipt.encode(),
        write_receipts(&[receipt]),
    ]
}

fn run(input: &[u8], heard: &mut Heard) {
    frames::<ShareMessage>("share", input, heard);
    frames::<MemberMessage>("member", input, heard);
    frames::<Greeting>("greeting", input, heard);
    message::<ShareMessage>("share message", input, heard);
    message::<MemberMessage>("member message", input, heard);
    message::<Greeting>("greeting message", input, heard);
    records(input, heard);
    if let Some(challenge) = heard.some("challenge", Challenge::decode(input)) {
        assert_eq!(challenge.encode(), input, "a challenge has one encoding");
    }
    assert!(proved(ShareId([1; 32]), 0, input).is_none(), "nobody finds a preimage");
}

/// Frames one after the other, as a stream brings them.
fn frames<M>(what: &str, input: &[u8], heard: &mut Heard)
where
    M: Encode<()> + for<'b> Decode<'b, ()> + PartialEq + std::fmt::Debug,
{
    let (mut rest, mut count) = (input, 0);
    while let Some((length, behind)) = rest.split_first_chunk::<LENGTH_BYTES>() {
        let Some(bytes) = heard.note(what, frame::body_bytes(*length)) else {
            break;
        };
        let Some((body, next)) = behind.split_at_checked(bytes) else {
            break;
        };
        let Some((message, start)) = heard.note(what, frame::parse::<M>(body)) else {
            break;
        };
        let payload = &body[start..];
        assert!(payload.len() <= PAYLOAD_BYTES_MAX);
        let again = [&frame::prefix(&message, payload.len())[LENGTH_BYTES..], payload].concat();
        let (read, start) = frame::parse::<M>(&again).expect("what was written is read");
        assert_eq!((read, &again[start..]), (message, payload));
        (rest, count) = (next, count + 1);
    }
    heard.count(what, count);
}

/// A message without a frame.
fn message<M>(what: &str, input: &[u8], heard: &mut Heard)
where
    M: Encode<()> + for<'b> Decode<'b, ()> + PartialEq + std::fmt::Debug,
{
    if let Some(message) = heard.note(what, minicbor::decode::<M>(input)) {
        let written = minicbor::to_vec(&message).expect("writing to memory does not fail");
        let read: M = minicbor::decode(&written).expect("what was written is read");
        assert_eq!(read, message);
    }
}

fn records(input: &[u8], heard: &mut Heard) {
    if let Some(receipt) = heard.note("receipt", Receipt::decode(input)) {
        assert_eq!(Receipt::decode(&receipt.encode()), Ok(receipt));
    }
    if let Some(receipts) = heard.note("receipts", read_receipts(input)) {
        assert_eq!(read_receipts(&write_receipts(&receipts)), Ok(receipts));
    }
    if let Some(order) = heard.note("order", PassOrder::decode(input)) {
        assert_eq!(PassOrder::decode(&order.encode()), Ok(order));
    }
    let mut summed = input.to_vec();
    summed.extend_from_slice(&blake3::hash(input).as_bytes()[..16]);
    let without = input.get(..input.len().saturating_sub(16)).unwrap_or_default();
    let mut replaced = without.to_vec();
    replaced.extend_from_slice(&blake3::hash(without).as_bytes()[..16]);
    for bytes in [input, &summed, &replaced] {
        if let Some(record) = heard.note("pass record", PassRecord::decode(bytes)) {
            assert!(record.open().len() <= record.order.targets.len());
            assert_eq!(PassRecord::decode(&record.encode()), Ok(record));
        }
    }
    if let Some(roster) = heard.note("roster", RosterRecords::decode(input)) {
        assert_eq!(RosterRecords::decode(&roster.encode()), Ok(roster.clone()));
        for member in &roster.members {
            heard.note("member record", member.check(roster.grid));
        }
        for device in &roster.devices {
            heard.note("device record", device.check(roster.grid));
        }
        let removals = roster.removals.iter().map(|removal| Removal::decode(removal));
        for removal in removals {
            removal_holds(removal, &roster, heard);
        }
        for word in roster.words.iter().map(|word| AccountWord::decode(word)) {
            heard
                .note("word in roster", word)
                .map(|word| heard.note("word", word.check()));
        }
    }
    if let Some(removal) = heard.note("removal", Removal::decode(input)) {
        assert_eq!(Removal::decode(&removal.encode()), Ok(removal));
    }
    if let Some(word) = heard.note("word alone", AccountWord::decode(input)) {
        assert_eq!(AccountWord::decode(&word.encode()), Ok(word.clone()));
        heard.note("word", word.check());
    }
}

fn removal_holds<E: std::fmt::Display>(removal: Result<Removal, E>, roster: &RosterRecords, heard: &mut Heard) {
    if let Some(removal) = heard.note("removal in roster", removal) {
        heard.note("removal's signature", removal.check(roster.grid));
    }
}
