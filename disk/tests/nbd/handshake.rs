//! The handshake: each option, and what is wrong about it.

use std::time::{Duration, Instant};

use disk::nbd::server::Options;
use disk::testing::MemoryDevice;

use crate::client::{ACK, Client, about, contexts};
use crate::served::{SIZE, Served};

const UNSUP: u32 = (1 << 31) + 1;
const POLICY: u32 = (1 << 31) + 2;
const INVALID: u32 = (1 << 31) + 3;
const UNKNOWN: u32 = (1 << 31) + 6;
const TOO_BIG: u32 = (1 << 31) + 9;

/// HAS_FLAGS, FLUSH, FUA, TRIM, WRITE_ZEROES, MULTI_CONN, CACHE, FAST_ZERO.
const FLAGS: u16 = 0b1101_0110_1101;
/// HAS_FLAGS, READ_ONLY, FLUSH, MULTI_CONN, CACHE.
const FLAGS_READ_ONLY: u16 = 0b0101_0000_0111;
/// DF.
const DF: u16 = 1 << 7;

fn export_info(size: u64, flags: u16) -> (u32, Vec<u8>) {
    (3, [&[0, 0][..], &size.to_be_bytes(), &flags.to_be_bytes()].concat())
}

#[test]
fn all_exports_that_can_be_entered_are_named() {
    let served = Served::new();
    let answers = served.client().greet(3).option(3, b"");
    let name = |name: &str| (2, [&(name.len() as u32).to_be_bytes(), name.as_bytes()].concat());
    let names = ["disk", "snapshot", "largest"].map(name);
    assert_eq!(answers[..3], names, "and not the one that nobody can enter");
    assert_eq!(answers[3], (ACK, Vec::new()));
}

#[test]
fn an_export_is_told_of_as_far_as_it_is_asked_for() {
    let served = Served::new();
    let mut client = served.client().greet(3);
    let ack = (ACK, Vec::new());
    assert_eq!(
        client.option(6, &about("disk", &[])),
        [export_info(SIZE, FLAGS), ack.clone()]
    );
    let name = (3, b"\0\x01disk".to_vec());
    let description = (3, b"\0\x02The disk".to_vec());
    let sizes = (3, vec![0, 3, 0, 0, 0, 1, 0, 0, 0x10, 0, 2, 0, 0, 0]);
    let all = client.option(6, &about("", &[1, 2, 3, 77]));
    assert_eq!(all, [export_info(SIZE, FLAGS), name, description, sizes, ack.clone()]);
    let read_only = client.option(6, &about("snapshot", &[]));
    assert_eq!(read_only, [export_info(4096, FLAGS_READ_ONLY), ack.clone()]);
    assert_eq!(client.ends_with(8, b""), ACK);
    assert_eq!(
        client.option(6, &about("disk", &[])),
        [export_info(SIZE, FLAGS | DF), ack.clone()]
    );
    assert_eq!(
        client.option(7, &about("disk", &[])),
        [export_info(SIZE, FLAGS | DF), ack]
    );
    assert_eq!(client.writes(0, b"abc"), 0, "it is in the transmission phase now");
}

#[test]
fn exports_that_are_not_there_or_beyond_signed_numbers_are_refused_and_the_talk_goes_on() {
    let served = Served::new();
    let mut client = served.client().greet(3);
    for option in [6, 7] {
        assert_eq!(client.ends_with(option, &about("nothing", &[])), UNKNOWN);
        assert_eq!(client.ends_with(option, &about("too-large", &[])), POLICY);
    }
    assert_eq!(client.ends_with(7, &about("largest", &[])), ACK);
    assert_eq!(client.writes((1 << 63) - 4, b"end"), 0);
    assert_eq!(client.asks(4, 0, 1 << 63, 1), 22);
}

#[test]
fn an_export_is_entered_the_old_way_with_and_without_zeroes() {
    let served = Served::new();
    for (flags, zeroes) in [(3, 0), (1, 124), (0, 124)] {
        let mut client = served.client().greet(flags);
        client.say_option(1, b"disk");
        let mut expected = SIZE.to_be_bytes().to_vec();
        expected.extend(FLAGS.to_be_bytes());
        expected.resize(10 + zeroes, 0);
        assert_eq!(client.hear_bytes(expected.len()), expected);
        assert_eq!(client.writes(0, b"abc"), 0);
    }
    let mut client = served.client().greet(3);
    client.say_option(1, b"nothing");
    assert!(client.is_closed(), "there is no way to say that it is not there");
}

#[test]
fn the_end_is_acknowledged() {
    let served = Served::new();
    let mut client = served.client().greet(3);
    assert_eq!(client.ends_with(2, b"bye"), ACK);
    assert!(client.is_closed());
}

#[test]
fn contexts_need_structured_replies_and_are_named_by_their_namespace() {
    let served = Served::new();
    let mut client = served.client().greet(3);
    for option in [9, 10] {
        assert_eq!(
            client.ends_with(option, &contexts("disk", &["base:allocation"])),
            INVALID
        );
    }
    assert_eq!(client.ends_with(8, b""), ACK);
    let listed = [(4, b"\0\0\0\0base:allocation".to_vec()), (ACK, Vec::new())];
    let none = [(ACK, Vec::new())];
    for queries in [
        &[][..],
        &["base:"],
        &["base:allocation"],
        &["x-other:y", "base:allocation"],
    ] {
        assert_eq!(client.option(9, &contexts("disk", queries)), listed, "{queries:?}");
    }
    for queries in [&["base:other"][..], &["base"], &["qemu:dirty-bitmap:x"], &[""]] {
        assert_eq!(client.option(9, &contexts("disk", queries)), none, "{queries:?}");
    }
    let chosen = [(4, b"\0\0\0\x01base:allocation".to_vec()), (ACK, Vec::new())];
    assert_eq!(client.option(10, &contexts("disk", &["base:allocation"])), chosen);
    for queries in [&[][..], &["base:"], &["base:other"]] {
        assert_eq!(client.option(10, &contexts("disk", queries)), none, "{queries:?}");
    }
    assert_eq!(client.ends_with(9, &contexts("nothing", &[])), UNKNOWN);
}

#[test]
fn block_status_is_for_the_export_that_its_context_was_chosen_for() {
    let served = Served::new();
    for (chosen, again, errno) in [("disk", None, 0), ("snapshot", None, 22), ("disk", Some("nothing"), 22)] {
        let mut client = served.client().greet(3);
        assert_eq!(client.ends_with(8, b""), ACK);
        client.option(10, &contexts(chosen, &["base:allocation"]));
        if let Some(again) = again {
            assert_eq!(client.ends_with(10, &contexts(again, &["base:allocation"])), UNKNOWN);
        }
        assert_eq!(client.ends_with(7, &about("disk", &[])), ACK);
        if errno == 0 {
            assert_eq!(client.status(0, 0, 4096), [(4096, 3)]);
        } else {
            assert_eq!(client.asks(7, 0, 0, 4096), errno);
        }
    }
}

#[test]
fn options_that_are_unknown_malformed_or_long_are_told_to_be_so() {
    let served = Served::new();
    let mut client = served.client().greet(3);
    for option in [4, 5, 11, 99, u32::MAX] {
        assert_eq!(client.ends_with(option, b"xyz"), UNSUP);
    }
    assert_eq!(client.ends_with(3, b"x"), INVALID);
    assert_eq!(client.ends_with(8, b"x"), INVALID);
    assert_eq!(client.ends_with(7, b"\xff\xff\xff\xff"), INVALID);
    assert_eq!(client.ends_with(7, &about(&"a".repeat(5000), &[])), TOO_BIG);
    assert_eq!(client.ends_with(7, &vec![0; 40_000]), TOO_BIG);
    assert_eq!(client.ends_with(99, &vec![0; 1 << 20]), TOO_BIG);
    assert_eq!(
        client.ends_with(7, &about("disk", &[])),
        ACK,
        "it goes on after each of them"
    );
}

#[test]
fn who_breaks_the_rules_is_disconnected() {
    let served = Served::new();
    let closed = |client: &mut Client, what: &str| assert!(client.is_closed(), "{what}");
    closed(&mut served.client().greet(4), "unknown flags");
    closed(&mut served.client().greet(1 << 31 | 1), "unknown flags");
    let mut client = served.client().greet(0);
    client.say_option(3, b"");
    closed(&mut client, "an option without fixed newstyle");
    let mut client = served.client().greet(3);
    client.say(&[b"IHAVEOPX", &[0; 8]]);
    closed(&mut client, "another magic");
    let mut client = served.client().greet(3);
    client.say(&[b"IHAVEOPT", &99u32.to_be_bytes(), &u32::MAX.to_be_bytes()]);
    closed(&mut client, "an option of 4 GiB");
    let mut client = served.client().greet(3);
    for _ in 0..999 {
        client.ends_with(99, b"");
    }
    client.say_option(99, b"");
    assert_eq!(client.hear_answer(99).0, UNSUP);
    closed(&mut client, "option after option");
}

#[test]
fn who_is_silent_or_slow_is_disconnected() {
    let wait = Duration::from_millis(300);
    let options = Options {
        handshake_wait: wait,
        ..Options::default()
    };
    let served = Served::with(MemoryDevice::new(SIZE), options);
    let start = Instant::now();
    let mut silent = served.client().greet(3);
    let mut within = served.client().greet(3);
    within.say(&[b"IHAVE"]);
    let mut entered = served.client().enter("disk");
    assert!(silent.is_closed() && within.is_closed());
    assert!(start.elapsed() >= wait);
    assert_eq!(
        entered.writes(0, b"abc"),
        0,
        "who has entered may be as silent as it likes"
    );
}
