//! A client that says any bytes, right or wrong, and reads what comes back.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// No answer takes so long, unless it never comes.
const ANSWER_WAIT: Duration = Duration::from_secs(20);

pub trait Stream: Read + Write + Send {}
impl<T: Read + Write + Send> Stream for T {}

pub struct Client(pub Box<dyn Stream>);

/// A reply to an option: its type and bytes.
pub type Answer = (u32, Vec<u8>);

/// A chunk of a structured reply, or a simple reply.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Reply {
    Simple {
        errno: u32,
        cookie: u64,
    },
    Chunk {
        is_last: bool,
        kind: u16,
        cookie: u64,
        bytes: Vec<u8>,
    },
}

pub const ACK: u32 = 1;
pub const ERROR: u32 = 1 << 31;

impl Client {
    pub fn unix(socket: &Path) -> Self {
        let stream = UnixStream::connect(socket).expect("the server listens");
        stream.set_read_timeout(Some(ANSWER_WAIT)).expect("a time limit");
        Self(Box::new(stream))
    }

    pub fn tcp(address: &str) -> Self {
        let stream = TcpStream::connect(address).expect("the server listens");
        stream.set_read_timeout(Some(ANSWER_WAIT)).expect("a time limit");
        Self(Box::new(stream))
    }

    pub fn say(&mut self, parts: &[&[u8]]) {
        self.0.write_all(&parts.concat()).expect("the server takes it");
    }

    pub fn hear<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        self.0.read_exact(&mut bytes).expect("the server answers");
        bytes
    }

    pub fn hear_bytes(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        self.0.read_exact(&mut bytes).expect("the server answers");
        bytes
    }

    pub fn u32(&mut self) -> u32 {
        u32::from_be_bytes(self.hear())
    }

    /// Whether the server has closed the connection, and says nothing more.
    pub fn is_closed(&mut self) -> bool {
        match self.0.read(&mut [0]) {
            Ok(count) => count == 0,
            Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
        }
    }

    /// The first words of both.
    pub fn greet(mut self, flags: u32) -> Self {
        assert_eq!(self.hear(), *b"NBDMAGIC");
        assert_eq!(self.hear(), *b"IHAVEOPT");
        assert_eq!(self.hear(), [0, 3]);
        self.say(&[&flags.to_be_bytes()]);
        self
    }

    pub fn say_option(&mut self, option: u32, payload: &[u8]) {
        let length = payload.len() as u32;
        self.say(&[b"IHAVEOPT", &option.to_be_bytes(), &length.to_be_bytes(), payload]);
    }

    pub fn hear_answer(&mut self, option: u32) -> Answer {
        assert_eq!(self.hear(), 0x0003_e889_0455_65a9u64.to_be_bytes());
        assert_eq!(self.u32(), option);
        let kind = self.u32();
        let length = self.u32() as usize;
        (kind, self.hear_bytes(length))
    }

    /// All answers to an option, up to the last.
    pub fn option(&mut self, option: u32, payload: &[u8]) -> Vec<Answer> {
        self.say_option(option, payload);
        let mut answers = Vec::new();
        loop {
            let answer = self.hear_answer(option);
            let is_last = answer.0 == ACK || answer.0 & ERROR != 0;
            answers.push(answer);
            if is_last {
                return answers;
            }
        }
    }

    /// The type of the last answer.
    pub fn ends_with(&mut self, option: u32, payload: &[u8]) -> u32 {
        self.option(option, payload).last().expect("there is a last one").0
    }

    /// Enters an export, with structured replies and `base:allocation`.
    pub fn enter(self, export: &str) -> Self {
        let mut client = self.greet(3);
        assert_eq!(client.ends_with(8, b""), ACK);
        assert_eq!(client.ends_with(10, &contexts(export, &["base:allocation"])), ACK);
        assert_eq!(client.ends_with(7, &about(export, &[])), ACK);
        client
    }

    /// Enters an export with simple replies.
    pub fn enter_simply(self, export: &str) -> Self {
        let mut client = self.greet(3);
        assert_eq!(client.ends_with(7, &about(export, &[])), ACK);
        client
    }

    /// Says a request whose cookie is its offset, and its payload.
    pub fn request(&mut self, command: u16, flags: u16, offset: u64, length: u32, payload: &[u8]) {
        self.say(&[&request(command, flags, offset, length), payload]);
    }

    pub fn reply(&mut self) -> Reply {
        match self.u32() {
            0x6744_6698 => Reply::Simple {
                errno: self.u32(),
                cookie: u64::from_be_bytes(self.hear()),
            },
            0x668e_33ef => {
                let is_last = u16::from_be_bytes(self.hear()) == 1;
                let kind = u16::from_be_bytes(self.hear());
                let cookie = u64::from_be_bytes(self.hear());
                let length = self.u32() as usize;
                let bytes = self.hear_bytes(length);
                Reply::Chunk {
                    is_last,
                    kind,
                    cookie,
                    bytes,
                }
            }
            other => panic!("{other:#x} begins no reply"),
        }
    }

    /// The error of a reply without data; 0 for success.
    pub fn errno(&mut self) -> u32 {
        match self.reply() {
            Reply::Simple { errno, .. } => errno,
            Reply::Chunk {
                kind: 0x8001, bytes, ..
            } => u32::from_be_bytes(bytes[..4].try_into().expect("4 bytes")),
            Reply::Chunk { kind, .. } => panic!("a chunk of type {kind}"),
        }
    }

    /// The error of one request.
    pub fn asks(&mut self, command: u16, flags: u16, offset: u64, length: u32) -> u32 {
        self.request(command, flags, offset, length, &[]);
        self.errno()
    }

    pub fn writes(&mut self, offset: u64, data: &[u8]) -> u32 {
        self.request(1, 0, offset, data.len() as u32, data);
        self.errno()
    }

    /// Reads with structured replies; also how many chunks of data and holes there were.
    pub fn reads(&mut self, flags: u16, offset: u64, length: u32) -> (Vec<u8>, [usize; 2]) {
        self.request(0, flags, offset, length, &[]);
        let (mut read, mut chunks) = (vec![0xee; length as usize], [0, 0]);
        loop {
            let Reply::Chunk {
                is_last, kind, bytes, ..
            } = self.reply()
            else {
                panic!("READ must be answered by structured replies");
            };
            let at = |bytes: &[u8]| (u64::from_be_bytes(bytes[..8].try_into().expect("8 bytes")) - offset) as usize;
            match kind {
                0 => assert!(is_last),
                1 => {
                    read[at(&bytes)..][..bytes.len() - 8].copy_from_slice(&bytes[8..]);
                    chunks[0] += 1;
                }
                2 => {
                    let length = u32::from_be_bytes(bytes[8..].try_into().expect("4 bytes"));
                    read[at(&bytes)..][..length as usize].fill(0);
                    chunks[1] += 1;
                }
                _ => panic!("a chunk of type {kind:#x}: {bytes:?}"),
            }
            if is_last {
                return (read, chunks);
            }
        }
    }

    /// Length and flags of each extent.
    pub fn status(&mut self, flags: u16, offset: u64, length: u32) -> Vec<(u32, u32)> {
        self.request(7, flags, offset, length, &[]);
        let Reply::Chunk {
            is_last: true,
            kind: 5,
            bytes,
            ..
        } = self.reply()
        else {
            panic!("one chunk of status");
        };
        assert_eq!(bytes[..4], [0, 0, 0, 1]);
        let number = |bytes: &[u8]| u32::from_be_bytes(bytes.try_into().expect("4 bytes"));
        bytes[4..]
            .chunks(8)
            .map(|pair| (number(&pair[..4]), number(&pair[4..])))
            .collect()
    }
}

pub fn request(command: u16, flags: u16, offset: u64, length: u32) -> Vec<u8> {
    let mut bytes = 0x2560_9513u32.to_be_bytes().to_vec();
    bytes.extend(flags.to_be_bytes());
    bytes.extend(command.to_be_bytes());
    bytes.extend(offset.to_be_bytes());
    bytes.extend(offset.to_be_bytes());
    bytes.extend(length.to_be_bytes());
    bytes
}

fn counted(text: &str) -> Vec<u8> {
    [&(text.len() as u32).to_be_bytes(), text.as_bytes()].concat()
}

/// The payload of `NBD_OPT_INFO` and `NBD_OPT_GO`.
pub fn about(export: &str, infos: &[u16]) -> Vec<u8> {
    let mut bytes = counted(export);
    bytes.extend((infos.len() as u16).to_be_bytes());
    bytes.extend(infos.iter().flat_map(|info| info.to_be_bytes()));
    bytes
}

/// The payload of `NBD_OPT_LIST_META_CONTEXT` and `NBD_OPT_SET_META_CONTEXT`.
pub fn contexts(export: &str, queries: &[&str]) -> Vec<u8> {
    let mut bytes = counted(export);
    bytes.extend((queries.len() as u32).to_be_bytes());
    bytes.extend(queries.iter().flat_map(|query| counted(query)));
    bytes
}
