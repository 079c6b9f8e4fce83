//! Requests of the transmission phase, read from their 28 bytes and checked against the export (proto.md, "Request message",
//! "Request types", "Error values").

use crate::nbd::wire::{Fields, PAYLOAD_BYTES_MAX, REQUEST_MAGIC, cmd, flag};

/// Bytes of a request without its payload.
pub const REQUEST_BYTES: usize = 28;

/// The field that a client knows its request by; of no meaning here.
pub type Cookie = u64;

/// A request as it came.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Request {
    /// Command flags.
    pub flags: u16,
    /// Request type.
    pub command: u16,
    /// Comes back with the reply.
    pub cookie: Cookie,
    /// Where it begins.
    pub offset: u64,
    /// How long it is.
    pub length: u32,
}

/// What was agreed on for a connection's requests.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Terms {
    /// Bytes of the export.
    pub size: u64,
    /// Whether writes are refused.
    pub is_read_only: bool,
    /// Whether replies are structured.
    pub is_structured: bool,
    /// Whether `base:allocation` was chosen for this export.
    pub has_allocation: bool,
}

/// What is to be done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Command {
    /// The range is sent; in one piece if `is_whole`.
    Read {
        /// The flag DF, or no structured replies.
        is_whole: bool,
    },
    /// The payload follows.
    Write,
    /// The range becomes zeros.
    Zero,
    /// The range is needed no more.
    Trim,
    /// What was answered lasts.
    Flush,
    /// The range is fetched ahead.
    Cache,
    /// The range's extents are told.
    BlockStatus {
        /// The flag REQ_ONE.
        is_one: bool,
    },
    /// The client goes.
    Disconnect,
}

/// Values of a reply's error field ("Error values").
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Errno {
    /// `NBD_EPERM`.
    NotPermitted = 1,
    /// `NBD_EIO`.
    Io = 5,
    /// `NBD_EINVAL`.
    Invalid = 22,
    /// `NBD_ENOSPC`.
    NoSpace = 28,
    /// `NBD_EOVERFLOW`.
    Overflow = 75,
}

impl Request {
    /// Reads a request; `None` if it begins with another magic: nobody knows then where the next one begins.
    pub fn read(bytes: &[u8; REQUEST_BYTES]) -> Option<Self> {
        let mut fields = Fields(bytes);
        if fields.u32()? != REQUEST_MAGIC {
            return None;
        }
        Some(Self {
            flags: fields.u16()?,
            command: fields.u16()?,
            cookie: fields.u64()?,
            offset: fields.u64()?,
            length: fields.u32()?,
        })
    }

    /// Bytes that follow the request, whether it is right or not.
    pub fn payload(&self) -> u32 {
        if self.command == cmd::WRITE { self.length } else { 0 }
    }

    /// Whether the reply waits until the request's changes last.
    pub fn is_fua(&self) -> bool {
        self.flags & flag::FUA != 0
    }

    /// What is to be done, if it may be.
    pub fn check(&self, terms: &Terms) -> Result<Command, Errno> {
        let (command, flags) = match self.command {
            cmd::READ => {
                let is_whole = !terms.is_structured || self.flags & flag::DF != 0;
                (
                    Command::Read { is_whole },
                    if terms.is_structured { flag::DF } else { 0 },
                )
            }
            cmd::WRITE => (Command::Write, 0),
            // Zeros take no room and no time, whether they may be a hole or not: no block of this disk has a place before it is written.
            cmd::WRITE_ZEROES => (Command::Zero, flag::NO_HOLE | flag::FAST_ZERO),
            cmd::TRIM => (Command::Trim, 0),
            cmd::CACHE => (Command::Cache, 0),
            cmd::BLOCK_STATUS if terms.has_allocation => {
                let is_one = self.flags & flag::REQ_ONE != 0;
                (Command::BlockStatus { is_one }, flag::REQ_ONE)
            }
            // Offset and length are reserved and must be zero, which other servers do not insist on either.
            cmd::FLUSH => (Command::Flush, 0),
            cmd::DISC => return Ok(Command::Disconnect),
            _ => return Err(Errno::Invalid),
        };
        // "The server MUST accept all commands with this bit set (even by ignoring the bit)".
        if self.flags & !(flags | flag::FUA) != 0 {
            return Err(Errno::Invalid);
        }
        if command != Command::Flush {
            self.check_range(command, terms)?;
        }
        Ok(command)
    }

    fn check_range(&self, command: Command, terms: &Terms) -> Result<(), Errno> {
        let changes = matches!(command, Command::Write | Command::Zero | Command::Trim);
        if changes && terms.is_read_only {
            return Err(Errno::NotPermitted);
        }
        let end = self.offset.checked_add(u64::from(self.length));
        if end.ok_or(Errno::Invalid)? > terms.size {
            let writes = matches!(command, Command::Write | Command::Zero);
            return Err(if writes { Errno::NoSpace } else { Errno::Invalid });
        }
        let is_long = self.length > PAYLOAD_BYTES_MAX;
        match command {
            Command::Write if is_long => Err(Errno::Invalid),
            // EOVERFLOW is for structured replies ("`NBD_CMD_READ`").
            Command::Read { .. } if is_long && terms.is_structured => Err(Errno::Overflow),
            Command::Read { .. } if is_long => Err(Errno::Invalid),
            // A reply must have an extent, and an extent a byte.
            Command::BlockStatus { .. } if self.length == 0 => Err(Errno::Invalid),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SIZE: u64 = 64 << 20;
    const TERMS: Terms = Terms {
        size: SIZE,
        is_read_only: false,
        is_structured: true,
        has_allocation: true,
    };

    fn request(command: u16, flags: u16, offset: u64, length: u32) -> Request {
        Request {
            flags,
            command,
            cookie: 7,
            offset,
            length,
        }
    }

    fn check(command: u16, flags: u16, offset: u64, length: u32) -> Result<Command, Errno> {
        request(command, flags, offset, length).check(&TERMS)
    }

    #[test]
    fn a_request_is_read_as_the_document_lays_it_out() {
        let bytes: [u8; REQUEST_BYTES] = [
            0x25, 0x60, 0x95, 0x13, 0, 1, 0, 6, 1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0, 0, 0, 0, 0x10, 0, 0, 0, 2, 0,
        ];
        let read = Request::read(&bytes).expect("the magic is right");
        let cookie = 0x0102_0304_0506_0708;
        let expected = Request {
            cookie,
            ..request(6, 1, 4096, 512)
        };
        assert_eq!(read, expected);
        let mut other = bytes;
        other[3] ^= 1;
        assert_eq!(Request::read(&other), None);
    }

    #[test]
    fn each_command_is_known_with_its_flags_and_no_others() {
        let allowed = [
            (0, Command::Read { is_whole: true }, 0b00100),
            (1, Command::Write, 0),
            (3, Command::Flush, 0),
            (4, Command::Trim, 0),
            (5, Command::Cache, 0),
            (6, Command::Zero, 0b10010),
            (7, Command::BlockStatus { is_one: true }, 0b01000),
        ];
        for (number, command, flags) in allowed {
            assert_eq!(check(number, flags, 0, 512), Ok(command), "{number}");
            assert_eq!(check(number, flags | 1, 0, 512), Ok(command), "{number} with FUA");
            for bit in (1..16).map(|bit| 1 << bit).filter(|bit| flags & bit == 0) {
                assert_eq!(
                    check(number, bit, 0, 512),
                    Err(Errno::Invalid),
                    "{number} with {bit:#b}"
                );
            }
        }
        assert_eq!(check(0, 0, 0, 512), Ok(Command::Read { is_whole: false }));
        assert_eq!(check(7, 0, 0, 512), Ok(Command::BlockStatus { is_one: false }));
        assert_eq!(check(2, 0, 0, 0), Ok(Command::Disconnect));
        for unknown in [8, 9, 255, u16::MAX] {
            assert_eq!(check(unknown, 0, 0, 512), Err(Errno::Invalid));
        }
    }

    #[test]
    fn ranges_beyond_the_end_are_refused_each_with_its_error() {
        let beyond = [
            (0, Errno::Invalid),
            (1, Errno::NoSpace),
            (4, Errno::Invalid),
            (5, Errno::Invalid),
        ];
        for (command, error) in beyond.into_iter().chain([(6, Errno::NoSpace), (7, Errno::Invalid)]) {
            assert!(check(command, 0, SIZE - 512, 512).is_ok(), "{command} up to the end");
            assert_eq!(check(command, 0, SIZE - 511, 512), Err(error), "{command}");
            assert_eq!(check(command, 0, 1 << 63, 512), Err(error), "{command} beyond 2^63");
            assert_eq!(
                check(command, 0, u64::MAX - 100, 512),
                Err(Errno::Invalid),
                "{command} overflows"
            );
            assert_eq!(
                check(command, 0, u64::MAX, u32::MAX),
                Err(Errno::Invalid),
                "{command} overflows"
            );
        }
    }

    #[test]
    fn payloads_have_a_longest_and_effects_have_none() {
        let terms = Terms { size: 1 << 40, ..TERMS };
        let check = |command, length| request(command, 0, 0, length).check(&terms);
        assert!(check(0, 64 << 20).is_ok() && check(1, 64 << 20).is_ok());
        assert_eq!(check(0, (64 << 20) + 1), Err(Errno::Overflow));
        assert_eq!(check(1, (64 << 20) + 1), Err(Errno::Invalid));
        let simple = Terms {
            is_structured: false,
            ..terms
        };
        assert_eq!(request(0, 0, 0, u32::MAX).check(&simple), Err(Errno::Invalid));
        for command in [4, 5, 6, 7] {
            assert!(check(command, u32::MAX).is_ok(), "{command}");
        }
    }

    #[test]
    fn without_structured_replies_there_is_no_df_and_without_a_context_no_status() {
        let terms = Terms {
            is_structured: false,
            has_allocation: false,
            ..TERMS
        };
        assert_eq!(request(0, 0, 0, 1).check(&terms), Ok(Command::Read { is_whole: true }));
        assert_eq!(request(0, 0b100, 0, 1).check(&terms), Err(Errno::Invalid));
        assert_eq!(request(7, 0, 0, 1).check(&terms), Err(Errno::Invalid));
    }

    #[test]
    fn a_read_only_export_takes_no_change() {
        let terms = Terms {
            is_read_only: true,
            ..TERMS
        };
        for (command, expected) in [
            (0, true),
            (1, false),
            (3, true),
            (4, false),
            (5, true),
            (6, false),
            (7, true),
        ] {
            let checked = request(command, 0, 0, 512).check(&terms);
            assert_eq!(checked.is_ok(), expected, "{command}");
            assert!(expected || checked == Err(Errno::NotPermitted));
        }
    }

    #[test]
    fn nothing_of_no_length_is_an_error_but_a_status() {
        for command in [0, 1, 4, 5, 6] {
            assert!(check(command, 0, SIZE, 0).is_ok(), "{command}");
        }
        assert_eq!(check(7, 0, 0, 0), Err(Errno::Invalid));
    }

    proptest! {
        #[test]
        fn what_is_allowed_lies_within_the_export(bytes: [u8; 28], size in 0u64..1 << 63, near in any::<bool>()) {
            let mut bytes = bytes;
            bytes[..4].copy_from_slice(&REQUEST_MAGIC.to_be_bytes());
            let command = bytes[7] % 8;
            bytes[4..8].copy_from_slice(&[0, 0, 0, command]);
            let mut request = Request::read(&bytes).expect("the magic is right");
            if near {
                request.offset = size.wrapping_sub(request.offset % 1024);
            }
            let checked = request.check(&Terms { size, ..TERMS });
            if !matches!(checked, Err(_) | Ok(Command::Flush | Command::Disconnect)) {
                let end = u128::from(request.offset) + u128::from(request.length);
                prop_assert!(end <= u128::from(size));
            }
        }
    }
}
