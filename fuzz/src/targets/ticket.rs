//! Tickets: one line that comes by mail or chat.

use libp2p::Multiaddr;
use proto::id::{DeviceId, GridId};
use proto::wire::ticket::{ADDRESSES_MAX, Ticket};

use crate::engine::{Cost, Target};
use crate::heard::Heard;

/// The target.
pub const TARGET: Target = Target {
    name: "ticket",
    run,
    seeds,
    golden: &["wire/v1-ticket.txt"],
    words: &[b"/ip4/", b"\x04\x7f\0\0\x01\x06", b"\x36", b"\xa5\x03", b"gridbackup"],
    cost: Cost::SMALL,
};

/// Bytes of a ticket's checksum.
const CHECKSUM_BYTES: usize = 4;

fn seeds() -> Vec<Vec<u8>> {
    let ticket = Ticket {
        inviter: DeviceId([1; 32]),
        grid: GridId([2; 16]),
        secret: [3; 16],
        expires_secs: 1_800_000_000,
        addresses: vec![
            vec![4, 127, 0, 0, 1, 6, 0x1f, 0x90].into(),
            b"\x36\x04home\x06\x10\x9a".to_vec().into(),
        ],
    };
    let body = |ticket: &Ticket| minicbor::to_vec(ticket).expect("writing to memory does not fail");
    // One address too many: no change of a few bytes makes that of another ticket.
    let full = Ticket {
        addresses: vec![ticket.addresses[0].clone(); ADDRESSES_MAX + 1],
        ..ticket.clone()
    };
    vec![body(&ticket), ticket.to_string().into_bytes(), body(&full)]
}

fn run(input: &[u8], heard: &mut Heard) {
    if let Ok(text) = std::str::from_utf8(input) {
        read(text, heard);
    }
    // Nobody guesses a checksum: the input as a ticket's body, with its own.
    let prefix = prefix();
    let hash = blake3::hash(input);
    let coded = data_encoding::BASE32_NOPAD.encode(&[input, &hash.as_bytes()[..CHECKSUM_BYTES]].concat());
    read(&format!("{prefix}{}", coded.to_ascii_lowercase()), heard);
}

/// What a ticket of today begins with.
fn prefix() -> String {
    let text = String::from_utf8_lossy(&seeds()[1]).into_owned();
    let body_bytes = seeds()[0].len() + CHECKSUM_BYTES;
    text[..text.len() - (body_bytes * 8).div_ceil(5)].to_owned()
}

fn read(text: &str, heard: &mut Heard) {
    let Some(ticket) = heard.note("ticket", text.parse::<Ticket>()) else {
        return;
    };
    assert!(ticket.addresses.len() <= ADDRESSES_MAX);
    assert_eq!(
        ticket.to_string().parse(),
        Ok(ticket.clone()),
        "what was written is read"
    );
    for address in &ticket.addresses {
        let address = heard.note("address", Multiaddr::try_from(address.to_vec()));
        if let Some(address) = address {
            heard.count("parts", address.iter().count());
            let again: Multiaddr = match address.to_string().parse() {
                Ok(again) => again,
                // Names in an address may be any text, and not all text has a form that is read again.
                Err(_) => continue,
            };
            heard.count("length", again.to_vec().len());
        }
    }
}
