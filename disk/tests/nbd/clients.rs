//! Several connections: of one client, of two, of one that comes back, of too many; and the server's end.

use std::time::Duration;

use disk::nbd::server::Options;
use disk::testing::MemoryDevice;

use crate::client::{ACK, about, request};
use crate::served::{SIZE, Served, until};

const WRITE: u16 = 1;
const FLUSH: u16 = 3;
const POLICY: u32 = (1 << 31) + 2;

#[test]
fn a_client_has_several_connections_and_a_second_client_none() {
    let served = Served::new();
    let mut first = served.client().enter("disk");
    let mut second = served.client().enter("disk");
    assert_eq!(first.writes(0, b"abc"), 0);
    assert_eq!(second.asks(FLUSH, 0, 0, 0), 0);
    assert_eq!(second.reads(0, 0, 3).0, b"abc");
    let mut other = served.other().greet(3);
    let answers = other.option(7, &about("disk", &[]));
    let words = String::from_utf8_lossy(&answers[0].1).into_owned();
    assert_eq!(answers[0].0, POLICY);
    assert!(words.contains(&format!("process {}", std::process::id())), "{words}");
    // What the default is called makes no difference, and the talk goes on.
    assert_eq!(other.ends_with(7, &about("", &[])), POLICY);
    assert_eq!(other.ends_with(6, &about("disk", &[])), ACK, "it may ask");
    let mut old = served.other().greet(3);
    old.say_option(1, b"disk");
    assert!(old.is_closed());
    drop((first, second));
    assert_eq!(
        other.ends_with(7, &about("disk", &[])),
        ACK,
        "it enters when they have left"
    );
}

fn other_enters(served: &Served) -> bool {
    served.other().greet(3).ends_with(7, &about("disk", &[])) == ACK
}

#[test]
fn what_nobody_can_write_is_for_all() {
    let served = Served::new();
    let mut first = served.client().enter("snapshot");
    let mut other = served.other().enter("snapshot");
    assert_eq!(first.reads(0, 0, 3).0, other.reads(0, 0, 3).0);
}

#[test]
fn a_write_of_a_connection_that_is_gone_is_not_done_after_the_next_one_was_let_in() {
    // ydb nbs #7070: a write that was stuck when its connection broke was carried out after the client had come back, had said it again
    // and had written something newer, which it destroyed.
    let served = Served::new();
    let mut gone = served.client().enter("disk");
    served.device.set_full(true);
    gone.request(WRITE, 0, 0, 3, b"old");
    std::thread::sleep(Duration::from_millis(100));
    drop(gone);
    let mut back = served.client().enter("disk");
    served.device.set_full(false);
    assert_eq!(back.writes(0, b"new"), 0);
    assert_eq!(back.reads(0, 0, 3).0, b"new");
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(back.reads(0, 0, 3).0, b"new");
    assert_eq!(served.device.asked().changes, 1);
}

#[test]
fn a_connection_that_breaks_within_a_write_has_not_written_it() {
    let served = Served::new();
    let mut gone = served.client().enter("disk");
    assert_eq!(gone.writes(0, b"whole"), 0);
    gone.say(&[&request(WRITE, 0, 0, 100), b"par"]);
    drop(gone);
    let mut back = served.client().enter("disk");
    assert_eq!(back.reads(0, 0, 5).0, b"whole");
}

#[test]
fn a_writer_that_is_killed_while_it_waits_leaves_its_place_to_another() {
    let served = Served::new();
    let mut gone = served.client().enter("disk");
    served.device.set_full(true);
    gone.request(WRITE, 0, 0, 3, b"old");
    std::thread::sleep(Duration::from_millis(100));
    drop(gone);
    assert!(other_enters(&served));
    served.device.set_full(false);
}

#[test]
fn more_connections_than_allowed_are_turned_away() {
    let options = Options {
        connections_max: 3,
        ..Options::default()
    };
    let served = Served::with(MemoryDevice::new(SIZE), options);
    let mut clients: Vec<_> = (0..3).map(|_| served.client().enter("disk")).collect();
    assert!(served.client().is_closed());
    assert_eq!(clients[0].writes(0, b"abc"), 0);
    clients.pop();
    until("there is a place again", || {
        let mut client = served.client();
        let mut magic = [0; 8];
        client.0.read_exact(&mut magic).is_ok()
    });
}

#[test]
fn a_server_that_stops_answers_what_is_under_way() {
    let device = MemoryDevice::new(SIZE).with_flushes_of(Duration::from_millis(300));
    let served = Served::with(device, Options::default());
    let mut client = served.client().enter("disk");
    let mut idle = served.client().greet(3);
    client.request(FLUSH, 0, 0, 0, &[]);
    std::thread::sleep(Duration::from_millis(100));
    served.runtime.block_on(served.server.stop());
    assert_eq!(client.errno(), 0);
    assert!(client.is_closed() && idle.is_closed());
    until("its socket is gone", || !served.socket.exists());
}

#[test]
fn an_export_that_is_cut_has_no_connections_left() {
    let served = Served::new();
    let mut client = served.client().enter("disk");
    let mut snapshot = served.client().enter("snapshot");
    served.device.set_full(true);
    client.request(WRITE, 0, 0, 3, b"abc");
    std::thread::sleep(Duration::from_millis(100));
    served.server.cut("disk");
    assert!(client.is_closed());
    served.device.set_full(false);
    assert_eq!(served.device.asked().applies, 0);
    assert_eq!(snapshot.reads(0, 0, 3).0, [0; 3]);
}
