//! Objects in buckets, which whoever has the bucket's credentials may write: notes of the trash, markers, voters, sealed rosters, keys,
//! the lock and the marks of published sites.

use proto::discard::{Discard, NO_HOLDER, Order, write_ids};
use proto::id::ShareId;
use proto::wire::roster::{MemberRecord, RosterRecords, grid_id};
use publish::fuzzing as site;
use stores::bucket::fuzzing as bucket;

use crate::engine::{Cost, Target};
use crate::heard::Heard;
use crate::keys::{Who, signed_again};

/// The target.
pub const TARGET: Target = Target {
    name: "objects",
    run,
    seeds,
    golden: &["discard", "wire/v1-roster.bin"],
    words: &[
        b"gridbackup bucket 1\nshares ",
        b"locks GOVERNANCE\n",
        b"conditions ignored\n",
        b"gzip ",
        b"parts-",
        b"b3-",
        b"\"held\":",
        b"\"fence\":",
    ],
    cost: Cost::SMALL,
};

/// The number that notes are asked for.
const NUMBER: u64 = 3;

fn seeds() -> Vec<Vec<u8>> {
    let who = Who::new(1, 0);
    let ids = [ShareId([1; 32]), ShareId([2; 32])];
    let order = Order {
        holder: NO_HOLDER,
        number: NUMBER,
        previous: [0; 32],
        issued_secs: 0,
    };
    let discard = Discard::sign(&who.device, &who.cert, order, &ids).map(|discard| discard.encode());
    let note = |discard: &[u8]| [&(discard.len() as u16).to_le_bytes(), discard, &write_ids(&ids)].concat();
    let roster = RosterRecords {
        version: proto::wire::VERSION,
        grid: grid_id(who.account(), 100),
        members: vec![MemberRecord::found(who.speaker(), "Ada", 100)],
        devices: Vec::new(),
        removals: Vec::new(),
        words: Vec::new(),
    };
    let mut seeds = vec![
        note(b""),
        b"gridbackup bucket 1\nshares 3\nlocks COMPLIANCE\nconditions ignored\n".to_vec(),
        format!("br b3-{}", "0f".repeat(32)).into_bytes(),
        b"gzip parts-8388608".to_vec(),
        br#"{"gridbackup-lock":1,"holder":"cafe","host":"oak","fence":1,"beat":0,"lease-secs":60,"held":true,"generation":0}"#
            .to_vec(),
        format!("p/{}/0/s/{}", "ab".repeat(16), ids[0]).into_bytes(),
        format!("gridbackup voter 1\n{}\n", "5c".repeat(32)).into_bytes(),
        roster.encode(),
    ];
    seeds.extend(discard.iter().map(|discard| note(discard)));
    seeds
}

fn run(input: &[u8], heard: &mut Heard) {
    let who = Who::new(1, 0);
    if let Some(ids) = heard.some("note", bucket::note(input, who.account(), NUMBER)) {
        assert!(ids.is_sorted() && input.ends_with(&write_ids(&ids)));
        let unsigned = input.starts_with(&[0, 0]);
        assert!(unsigned || !ids.is_empty());
    }
    for note in signed_notes(input) {
        let here = heard.some("signed note", bucket::note(&note, who.account(), NUMBER));
        // Nothing that others sign gives anything up, and nothing does in two places.
        assert!(bucket::note(&note, Who::new(2, 0).account(), NUMBER).is_none());
        assert!(here.is_none() || bucket::note(&note, who.account(), NUMBER + 1).is_none());
    }
    if let Some(marker) = heard.some("marker", bucket::marker(input)) {
        assert_eq!(bucket::marker(&marker), Some(marker.clone()));
    }
    let grid = grid_id(who.account(), 100);
    assert!(bucket::roster(grid, input).is_none(), "nobody seals by chance");
    heard.some("roster", bucket::roster(grid, &bucket::seal_roster(grid, input)));
    heard.some("id", bucket::id_of(input));
    if let Some(voter) = heard.some("voter", bucket::voter(input)) {
        assert!(input.ends_with(format!("{voter}\n").as_bytes()));
    }
    if let Some(document) = heard.some("lock", site::lock_document(input)) {
        assert_eq!(site::lock_document(&document), Some(document.clone()));
    }
    if let Ok(text) = std::str::from_utf8(input)
        && let Some(mark) = heard.some("mark", site::mark(text))
    {
        assert_eq!(site::mark(&mark), Some(mark.clone()));
    }
}

/// The note with its discard signed again.
fn signed_notes(input: &[u8]) -> Vec<Vec<u8>> {
    let Some((length, rest)) = input.split_first_chunk::<2>() else {
        return Vec::new();
    };
    let Some((discard, ids)) = rest.split_at_checked(u16::from_le_bytes(*length).into()) else {
        return Vec::new();
    };
    let signed = signed_again("gridbackup 2026 discard", discard).into_iter();
    signed.map(|discard| [length, &discard[..], ids].concat()).collect()
}
