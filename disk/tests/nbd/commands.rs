//! The transmission phase: each command, each error, and what is answered when.

use std::time::Duration;

use disk::nbd::server::Options;
use disk::testing::MemoryDevice;

use crate::client::{Reply, request};
use crate::served::{MIB, SIZE, Served, until};

const EPERM: u32 = 1;
const EIO: u32 = 5;
const EINVAL: u32 = 22;
const ENOSPC: u32 = 28;
const EOVERFLOW: u32 = 75;

const READ: u16 = 0;
const WRITE: u16 = 1;
const DISC: u16 = 2;
const FLUSH: u16 = 3;
const TRIM: u16 = 4;
const CACHE: u16 = 5;
const ZERO: u16 = 6;
const FUA: u16 = 1;
const DF: u16 = 4;
const REQ_ONE: u16 = 8;

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at % 251) as u8 + 1).collect()
}

#[test]
fn what_is_written_anywhere_is_read_and_what_is_zeroed_or_trimmed_is_not() {
    let served = Served::new();
    let mut client = served.client().enter("disk");
    let data = pattern(100_000);
    assert_eq!(client.writes(12_345, &data), 0);
    assert_eq!(client.reads(0, 12_345, 100_000).0, data);
    assert_eq!(client.asks(ZERO, 0b10010, 20_000, 10_000), 0, "NO_HOLE and FAST_ZERO");
    assert_eq!(client.asks(TRIM, 0, 40_000, 10_000), 0);
    let mut expected = data;
    expected[20_000 - 12_345..30_000 - 12_345].fill(0);
    expected[40_000 - 12_345..50_000 - 12_345].fill(0);
    assert_eq!(client.reads(0, 12_345, 100_000).0, expected);
    assert_eq!(client.writes(SIZE - 3, b"end"), 0);
    assert_eq!(client.reads(0, SIZE - 3, 3).0, b"end");
}

#[test]
fn zeros_are_sent_as_holes_unless_the_client_wants_one_piece() {
    let served = Served::new();
    let mut client = served.client().enter("disk");
    assert_eq!(client.reads(0, 0, 4096), (vec![0; 4096], [0, 1]));
    assert_eq!(client.reads(DF, 0, 4096), (vec![0; 4096], [1, 0]));
    let longest = 64 * MIB as u32;
    assert_eq!(client.reads(0, 0, longest), (vec![0; longest as usize], [0, 1]));
    assert_eq!(client.writes(MIB, &pattern(4096)), 0);
    let (read, chunks) = client.reads(0, 0, 2 * MIB as u32);
    assert_eq!(chunks, [1, 2]);
    assert_eq!(read[MIB as usize..][..4096], pattern(4096));
    assert_eq!(client.reads(DF, 0, 2 * MIB as u32), (read, [1, 0]));
    assert_eq!(client.asks(READ, DF, 0, 2 * MIB as u32 + 1), EOVERFLOW);
}

#[test]
fn many_small_holes_are_sent_as_zeros() {
    let served = Served::new();
    let mut client = served.client().enter("disk");
    let mut expected = vec![0; MIB as usize];
    for at in (0..MIB).step_by(8192) {
        assert_eq!(client.writes(at, &pattern(4096)), 0);
        expected[at as usize..][..4096].copy_from_slice(&pattern(4096));
    }
    assert_eq!(client.reads(0, 0, MIB as u32), (expected, [1, 0]));
}

#[test]
fn the_longest_payloads_go_through_with_either_kind_of_reply() {
    let served = Served::new();
    let data = pattern(48 * MIB as usize);
    let mut client = served.client().enter("disk");
    assert_eq!(client.writes(777, &data), 0);
    assert!(served.device.asked().applies > 10, "it came in pieces");
    let (read, [chunks, holes]) = client.reads(0, 777, data.len() as u32);
    assert!(read == data && chunks > 10 && holes == 0);
    let mut simple = served.client().enter_simply("disk");
    // The write is answered before, within no, or after the long reply.
    simple.request(READ, 0, 777, data.len() as u32, &[]);
    simple.request(WRITE, 0, 0, 3, b"abc");
    let mut kept = Vec::new();
    for _ in 0..2 {
        match simple.reply() {
            Reply::Simple { errno: 0, cookie: 777 } => kept = simple.hear_bytes(data.len()),
            other => assert_eq!(other, Reply::Simple { errno: 0, cookie: 0 }),
        }
    }
    assert!(kept == data);
}

#[test]
fn extents_are_told() {
    let served = Served::new();
    let mut client = served.client().enter("disk");
    assert_eq!(client.writes(MIB, &pattern(8192)), 0);
    let whole = [(MIB as u32, 3), (8192, 0), ((SIZE - MIB) as u32 - 8192, 3)];
    assert_eq!(client.status(0, 0, SIZE as u32), whole);
    assert_eq!(client.status(REQ_ONE, 0, SIZE as u32), whole[..1]);
    assert_eq!(client.status(REQ_ONE, MIB, 4096), [(4096, 0)]);
    assert_eq!(client.status(0, MIB + 1, 2), [(2, 0)]);
    drop(client);
    let mut client = served.client().enter("largest");
    assert_eq!(client.status(0, 0, u32::MAX), [(u32::MAX, 3)]);
    assert_eq!(client.status(REQ_ONE, 1 << 62, u32::MAX), [(u32::MAX, 3)]);
}

#[test]
fn simple_replies_have_data_or_an_error() {
    let served = Served::new();
    let mut client = served.client().enter_simply("disk");
    assert_eq!(client.writes(4, b"abc"), 0);
    client.request(READ, 0, 4, 3, &[]);
    assert_eq!(client.reply(), Reply::Simple { errno: 0, cookie: 4 });
    assert_eq!(client.hear(), *b"abc");
    assert_eq!(client.asks(READ, 0, SIZE, 1), EINVAL);
    assert_eq!(client.asks(READ, DF, 0, 1), EINVAL, "DF goes with structured replies");
    assert_eq!(client.asks(READ, 0, 0, u32::MAX), EINVAL);
    assert_eq!(client.asks(7, 0, 0, 4096), EINVAL, "so does block status");
    assert_eq!(client.asks(READ, 0, 0, 0), 0);
}

#[test]
fn what_is_out_of_range_too_long_or_unknown_has_its_error_and_the_next_request_is_understood() {
    let served = Served::new();
    let mut client = served.client().enter("disk");
    assert_eq!(client.writes(SIZE - 1, b"ab"), ENOSPC);
    assert_eq!(client.writes(u64::MAX, b"ab"), EINVAL);
    assert_eq!(client.writes(0, &vec![1; 64 * MIB as usize + 1]), EINVAL);
    assert_eq!(client.asks(ZERO, 0, SIZE - 1, 2), ENOSPC);
    for command in [READ, TRIM, CACHE, 7] {
        assert_eq!(client.asks(command, 0, SIZE - 1, 2), EINVAL);
        assert_eq!(client.asks(command, 0, 1 << 63, 2), EINVAL);
    }
    assert_eq!(client.asks(READ, 0, 0, 64 * MIB as u32 + 1), EOVERFLOW);
    assert_eq!(client.asks(99, 0, 0, 0), EINVAL);
    assert_eq!(client.asks(FLUSH, DF, 0, 0), EINVAL);
    client.request(WRITE, 0x8000, 0, 3, b"abc");
    assert_eq!(client.errno(), EINVAL);
    assert_eq!(client.reads(0, 0, 3).0, [0; 3], "none of them changed anything");
    client.say(&[&[0; 28]]);
    assert!(client.is_closed(), "what is no request ends it");
}

#[test]
fn nothing_changes_a_read_only_export() {
    let served = Served::new();
    let mut client = served.client().enter("snapshot");
    assert_eq!(client.writes(0, b"abc"), EPERM);
    assert_eq!(client.asks(TRIM, 0, 0, 1), EPERM);
    assert_eq!(client.asks(ZERO, 0, 0, 1), EPERM);
    assert_eq!(client.asks(FLUSH, 0, 0, 0), 0);
    assert_eq!(client.reads(0, 0, 4096).0, [0; 4096]);
}

#[test]
fn what_comes_together_is_applied_together() {
    let served = Served::new();
    let mut client = served.client().enter("disk");
    let mut all = Vec::new();
    for at in 0..20u64 {
        all.extend(request(WRITE, 0, at * 4096, 512));
        all.extend(pattern(512));
    }
    all.extend(request(TRIM, 0, 4096, 4096));
    all.extend(request(WRITE, 0, SIZE, 0));
    client.say(&[&all]);
    for _ in 0..22 {
        assert_eq!(client.errno(), 0);
    }
    let asked = served.device.asked();
    assert_eq!(
        (asked.applies, asked.changes),
        (1, 21),
        "a write of nothing is no change"
    );
}

#[test]
fn one_damaged_place_fails_its_own_requests_alone() {
    let served = Served::new();
    let mut client = served.client().enter("disk");
    served.device.set_broken(Some((8192, 12_288)));
    let mut all = Vec::new();
    for at in 0..4u64 {
        all.extend(request(WRITE, 0, at * 4096, 512));
        all.extend(pattern(512));
    }
    client.say(&[&all]);
    for at in 0..4u64 {
        assert_eq!(client.errno(), if at == 2 { EIO } else { 0 });
    }
    assert_eq!(client.asks(READ, 0, 8192, 512), EIO);
    assert_eq!(client.asks(READ, 0, 0, MIB as u32), EIO);
    client.request(READ, 0, 9000, 1, &[]);
    let Reply::Chunk { bytes, .. } = client.reply() else {
        panic!("an error in a chunk");
    };
    let words = String::from_utf8_lossy(&bytes[6..]).into_owned();
    assert!(words.contains("8192"), "{words}");
}

#[test]
fn a_flush_holds_nobody_up_and_covers_all_that_wait() {
    let device = MemoryDevice::new(SIZE).with_flushes_of(Duration::from_millis(300));
    let served = Served::with(device, Options::default());
    let mut client = served.client().enter("disk");
    let fua = [request(WRITE, FUA, 1, 1), vec![7]].concat();
    let (flush, write) = (request(FLUSH, 0, 2, 0), [request(WRITE, 0, 3, 1), vec![7]].concat());
    client.say(&[&fua, &flush, &write]);
    let cookies: Vec<u64> = (0..3)
        .map(|_| match client.reply() {
            Reply::Simple { errno: 0, cookie } => cookie,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(cookies, [3, 1, 2]);
    assert_eq!(served.device.asked().flushes, 1, "one for both");
}

#[test]
fn what_has_to_be_fetched_holds_nobody_up() {
    let served = Served::new();
    let mut client = served.client().enter("disk");
    assert_eq!(client.writes(0, b"abc"), 0);
    served.device.set_far(true);
    client.request(READ, 0, 0, 3, &[]);
    for at in 1..10 {
        assert_eq!(client.writes(at * 4096, b"def"), 0);
    }
    served.device.set_far(false);
    let Reply::Chunk { kind: 1, bytes, .. } = client.reply() else {
        panic!("the read");
    };
    assert_eq!(bytes[8..], *b"abc");
}

#[test]
fn more_fetches_than_run_at_once_are_all_answered() {
    let served = Served::new();
    let mut client = served.client().enter("disk");
    served.device.set_far(true);
    let reads: Vec<u8> = (0..200u64)
        .flat_map(|at| request(READ, DF, at * 65_536, 65_536))
        .collect();
    client.say(&[&reads]);
    std::thread::sleep(Duration::from_millis(50));
    served.device.set_far(false);
    let mut cookies: Vec<u64> = (0..200)
        .map(|_| match client.reply() {
            Reply::Chunk {
                kind: 1, cookie, bytes, ..
            } if bytes.len() == 65_544 => cookie / 65_536,
            other => panic!("{other:?}"),
        })
        .collect();
    cookies.sort_unstable();
    assert_eq!(cookies, (0..200).collect::<Vec<_>>());
}

#[test]
fn who_does_not_take_replies_costs_no_memory_and_holds_nobody_else_up() {
    let served = Served::new();
    let mut stalled = served.client().enter("disk");
    for is_far in [false, true] {
        served.device.set_far(is_far);
        let before = served.device.asked().read_bytes;
        let reads: Vec<u8> = (0..64u64)
            .flat_map(|at| request(READ, DF, at * MIB, MIB as u32))
            .collect();
        stalled.say(&[&reads]);
        std::thread::sleep(Duration::from_millis(100));
        served.device.set_far(false);
        std::thread::sleep(Duration::from_millis(300));
        let made = served.device.asked().read_bytes - before;
        assert!(made < 8 * MIB, "{made} bytes of replies wait");
        let mut other = served.client().enter("disk");
        assert_eq!(other.writes(0, b"abc"), 0);
        drop(other);
        for _ in 0..64 {
            assert!(matches!(stalled.reply(), Reply::Chunk { kind: 1, .. }));
        }
    }
}

#[test]
fn the_cache_command_is_a_read_ahead() {
    let served = Served::new();
    let mut client = served.client().enter("disk");
    assert_eq!(client.asks(CACHE, 0, 4096, 2 * MIB as u32), 0);
    assert_eq!(served.device.asked().prefetches, [(4096, 2 * MIB)]);
}

#[test]
fn all_that_came_before_the_farewell_is_answered() {
    let device = MemoryDevice::new(SIZE).with_flushes_of(Duration::from_millis(200));
    let served = Served::with(device, Options::default());
    let mut client = served.client().enter("disk");
    let write = [request(WRITE, FUA, 1, 1), vec![7]].concat();
    client.say(&[&write, &request(DISC, 0, 0, 0), &request(FLUSH, 0, 9, 0)]);
    assert_eq!(client.reply(), Reply::Simple { errno: 0, cookie: 1 });
    assert!(client.is_closed(), "and nothing that came after it");
}

#[test]
fn while_there_is_no_room_writes_wait_and_are_never_refused() {
    let served = Served::new();
    let mut client = served.client().enter("disk");
    served.device.set_full(true);
    client.request(WRITE, 0, 0, 3, b"abc");
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(served.device.asked().applies, 0);
    served.device.set_full(false);
    assert_eq!(client.errno(), 0);
    until("it was applied", || served.device.asked().applies == 1);
}
