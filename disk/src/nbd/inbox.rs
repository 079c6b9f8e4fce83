//! What a client sends, taken in bulk from the connection and cut into requests and pieces of payloads.
//!
//! Memory is bounded by the buffer: a write that does not fit into it comes out in pieces, which are applied one after the other. The
//! protocol does not ask for more: what a write that was not answered has changed is not said.

use std::io;
use std::ops::Range;

use tokio::io::{AsyncRead, AsyncReadExt};

use crate::nbd::request::{Command, Errno, REQUEST_BYTES, Request, Terms};

/// The buffer's first size, enough for a queue of small writes.
const BUFFER_BYTES_FIRST: usize = 64 << 10;
/// Its largest: writes up to this length come in one piece. Measured (docs/decisions/0062-nbd-server.md).
const BUFFER_BYTES_MAX: usize = 1 << 20;
/// Where pieces end, so that none has to change a part of a block that the next one changes, too.
const PIECE_ALIGN: u64 = 4096;
/// Most items that are worked on at once: replies wait for all of them.
const BATCH_ITEMS_MAX: usize = 256;

/// Something to do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Item {
    /// A request without a payload.
    Command(Request, Command),
    /// A request that is refused; its payload, if it has one, has gone by.
    Refused(Request, Errno),
    /// Bytes of a write.
    Piece {
        /// The write.
        request: Request,
        /// Where these bytes of it go.
        offset: u64,
        /// Where they are in the buffer.
        bytes: Range<usize>,
        /// Whether they are its last.
        is_last: bool,
    },
}

/// What came is no request: nothing that follows it can be understood.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NotARequest;

/// A write whose payload has not all come out.
struct Open {
    request: Request,
    refused: Option<Errno>,
    done: u32,
}

/// The buffer, and the write that it is within.
pub struct Inbox {
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    open: Option<Open>,
}

impl Inbox {
    /// An empty one.
    pub fn new() -> Self {
        Self {
            buffer: vec![0; BUFFER_BYTES_FIRST],
            start: 0,
            end: 0,
            open: None,
        }
    }

    /// Takes in what is there, and waits until something is; zero bytes at the end. May be dropped. What came out before is gone
    /// from the buffer.
    pub async fn fill(&mut self, reader: &mut (impl AsyncRead + Unpin + ?Sized)) -> io::Result<usize> {
        self.buffer.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        if self.end == self.buffer.len() {
            let larger = (self.buffer.len() * 4).min(BUFFER_BYTES_MAX);
            self.buffer.resize(larger, 0);
        }
        let count = reader.read(&mut self.buffer[self.end..]).await?;
        self.end += count;
        Ok(count)
    }

    /// Bytes of a piece, until the next [`Inbox::fill`].
    pub fn bytes(&self, range: &Range<usize>) -> &[u8] {
        &self.buffer[range.clone()]
    }

    /// All that can be worked on now; nothing if more has to come first.
    pub fn batch(&mut self, terms: &Terms) -> Result<Vec<Item>, NotARequest> {
        let mut items = Vec::new();
        while items.len() < BATCH_ITEMS_MAX {
            match self.next(terms)? {
                Some(item) => items.push(item),
                None => break,
            }
        }
        Ok(items)
    }

    fn next(&mut self, terms: &Terms) -> Result<Option<Item>, NotARequest> {
        if self.open.is_some() {
            return Ok(self.next_piece());
        }
        let Some(bytes) = self.buffer[self.start..self.end].first_chunk::<REQUEST_BYTES>() else {
            return Ok(None);
        };
        let request = Request::read(bytes).ok_or(NotARequest)?;
        self.start += REQUEST_BYTES;
        let checked = request.check(terms);
        if request.payload() == 0 && checked != Ok(Command::Write) {
            return Ok(Some(match checked {
                Ok(command) => Item::Command(request, command),
                Err(errno) => Item::Refused(request, errno),
            }));
        }
        let refused = checked.err();
        let done = 0;
        self.open = Some(Open { request, refused, done });
        Ok(self.next_piece())
    }

    fn next_piece(&mut self) -> Option<Item> {
        let have = self.end - self.start;
        let open = self.open.as_mut()?;
        let missing = (open.request.length - open.done) as usize;
        let now = have.min(missing);
        let offset = open.request.offset.wrapping_add(u64::from(open.done));
        let taken = if open.refused.is_some() || now == missing {
            now
        } else if missing > BUFFER_BYTES_MAX && have >= BUFFER_BYTES_MAX / 2 {
            now - ((offset + now as u64) % PIECE_ALIGN) as usize
        } else {
            return None;
        };
        let bytes = self.start..self.start + taken;
        self.start += taken;
        open.done += taken as u32;
        let (request, refused, is_last) = (open.request, open.refused, taken == missing);
        if is_last {
            self.open = None;
        }
        match refused {
            Some(errno) => is_last.then_some(Item::Refused(request, errno)),
            None => Some(Item::Piece {
                request,
                offset,
                bytes,
                is_last,
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::nbd::wire::{PAYLOAD_BYTES_MAX, REQUEST_MAGIC, cmd};

    const TERMS: Terms = Terms {
        size: 1 << 30,
        is_read_only: false,
        is_structured: true,
        has_allocation: true,
    };

    fn request(command: u16, offset: u64, length: u32) -> Vec<u8> {
        let mut bytes = REQUEST_MAGIC.to_be_bytes().to_vec();
        bytes.extend([0, command].map(u16::to_be_bytes).as_flattened());
        bytes.extend([offset ^ 0xabc, offset].map(u64::to_be_bytes).as_flattened());
        bytes.extend(length.to_be_bytes());
        bytes
    }

    fn write(offset: u64, data: &[u8]) -> Vec<u8> {
        [request(cmd::WRITE, offset, data.len() as u32), data.to_vec()].concat()
    }

    fn pattern(length: usize) -> Vec<u8> {
        (0..length).map(|at| (at * 7 / 3) as u8).collect()
    }

    /// A request's offset, and the bytes that it writes if it may.
    type CameOut = (u64, Result<Vec<u8>, Errno>);

    /// What comes out when the bytes come in portions of these sizes.
    fn came_out(bytes: &[u8], portions: &[usize]) -> Result<Vec<CameOut>, NotARequest> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .expect("a runtime without drivers");
        let (mut inbox, mut out, mut rest) = (Inbox::new(), Vec::new(), bytes);
        let mut open = Vec::new();
        for portion in portions.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (now, later) = rest.split_at((*portion).min(rest.len()));
            let mut now = now;
            rest = later;
            while !now.is_empty() {
                runtime.block_on(inbox.fill(&mut now)).expect("slices do not fail");
                assert!(inbox.buffer.len() <= BUFFER_BYTES_MAX);
                loop {
                    let items = inbox.batch(&TERMS)?;
                    if items.is_empty() {
                        break;
                    }
                    for item in items {
                        match item {
                            Item::Command(request, _) => out.push((request.offset, Ok(Vec::new()))),
                            Item::Refused(request, errno) => out.push((request.offset, Err(errno))),
                            Item::Piece {
                                request,
                                offset,
                                bytes,
                                is_last,
                            } => {
                                assert_eq!(offset, request.offset + open.len() as u64);
                                assert!(is_last || (offset + bytes.len() as u64).is_multiple_of(PIECE_ALIGN));
                                open.extend_from_slice(inbox.bytes(&bytes));
                                if is_last {
                                    out.push((request.offset, Ok(std::mem::take(&mut open))));
                                }
                            }
                        }
                    }
                }
            }
        }
        Ok(out)
    }

    #[test]
    fn one_filling_brings_all_requests_in_it() {
        let mut bytes = write(0, b"abc");
        bytes.extend(request(cmd::READ, 512, 512));
        bytes.extend(write(4096, b""));
        bytes.extend(write(9000, b"defg"));
        let mut inbox = Inbox::new();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .expect("a runtime without drivers");
        runtime
            .block_on(inbox.fill(&mut &bytes[..bytes.len() - 1]))
            .expect("slices do not fail");
        assert_eq!(inbox.batch(&TERMS).map(|items| items.len()), Ok(3));
        assert_eq!(inbox.batch(&TERMS), Ok(Vec::new()), "the last write lacks a byte");
        runtime
            .block_on(inbox.fill(&mut &bytes[bytes.len() - 1..]))
            .expect("slices do not fail");
        assert_eq!(inbox.batch(&TERMS).map(|items| items.len()), Ok(1));
    }

    #[test]
    fn the_longest_write_comes_in_pieces() {
        let data = pattern(PAYLOAD_BYTES_MAX as usize);
        let bytes = [write(12_345, &data), request(cmd::FLUSH, 7, 0)].concat();
        let out = came_out(&bytes, &[200_000]).expect("all are requests");
        assert_eq!(out, [(12_345, Ok(data)), (7, Ok(Vec::new()))]);
    }

    #[test]
    fn a_refused_writes_payload_goes_by_before_it_is_answered() {
        let too_long = PAYLOAD_BYTES_MAX as usize + 1;
        let mut bytes = write(TERMS.size, b"beyond");
        bytes.extend(write(0, &vec![0x25; too_long]));
        bytes.extend(write(u64::MAX, b"overflows"));
        bytes.extend(write(5, b"right"));
        let out = came_out(&bytes, &[100_000]).expect("all are requests");
        let refused = [
            (TERMS.size, Err(Errno::NoSpace)),
            (0, Err(Errno::Invalid)),
            (u64::MAX, Err(Errno::Invalid)),
        ];
        assert_eq!(out[..3], refused);
        assert_eq!(out[3], (5, Ok(b"right".to_vec())));
    }

    #[test]
    fn what_is_no_request_is_told() {
        let bytes = [write(0, b"abc"), vec![0; 28]].concat();
        assert_eq!(came_out(&bytes, &[1000]), Err(NotARequest));
    }

    proptest! {
        #[test]
        fn how_the_bytes_are_cut_changes_nothing(
            lengths in prop::collection::vec((0u64..1 << 20, prop_oneof![0usize..100, 4000usize..70_000, Just(3_000_000)]), 1..6),
            portions in prop::collection::vec(1usize..300_000, 1..5),
        ) {
            let mut bytes = Vec::new();
            let mut expected = Vec::new();
            for (offset, length) in lengths {
                bytes.extend(write(offset, &pattern(length)));
                expected.push((offset, Ok(pattern(length))));
                bytes.extend(request(cmd::READ, offset, 512));
                expected.push((offset, Ok(Vec::new())));
            }
            prop_assert_eq!(came_out(&bytes, &portions), Ok(expected));
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..500), requests in 0usize..5) {
            let mut all = Vec::new();
            for at in 0..requests {
                all.extend(REQUEST_MAGIC.to_be_bytes());
                all.extend(bytes.iter().skip(at).take(24 + at * 10));
            }
            all.extend(bytes);
            let _any_answer = came_out(&all, &[33]);
        }
    }
}
