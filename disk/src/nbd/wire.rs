//! The numbers of the protocol (proto.md, "Values" and "Protocol phases"), and how they are put into bytes.
//!
//! Only those that this server says or understands.

/// First bytes of a server.
pub const INIT_PASSWD: u64 = 0x4e42_444d_4147_4943;
/// Begins the newstyle handshake, and each option of a client.
pub const IHAVEOPT: u64 = 0x4948_4156_454f_5054;
/// Begins a reply to an option.
pub const REPLY_MAGIC: u64 = 0x0003_e889_0455_65a9;
/// Begins a request.
pub const REQUEST_MAGIC: u32 = 0x2560_9513;
/// Begins a simple reply.
pub const SIMPLE_REPLY_MAGIC: u32 = 0x6744_6698;
/// Begins a chunk of a structured reply.
pub const STRUCTURED_REPLY_MAGIC: u32 = 0x668e_33ef;

/// "Handshake flags".
pub const FLAG_FIXED_NEWSTYLE: u16 = 1 << 0;
/// "Handshake flags".
pub const FLAG_NO_ZEROES: u16 = 1 << 1;
/// "Client flags".
pub const FLAG_C_FIXED_NEWSTYLE: u32 = 1 << 0;
/// "Client flags".
pub const FLAG_C_NO_ZEROES: u32 = 1 << 1;

/// "Transmission flags": what an export can do.
pub mod can {
    /// Always said.
    pub const HAS_FLAGS: u16 = 1 << 0;
    /// Nothing may be written.
    pub const READ_ONLY: u16 = 1 << 1;
    /// FLUSH.
    pub const SEND_FLUSH: u16 = 1 << 2;
    /// The flag FUA.
    pub const SEND_FUA: u16 = 1 << 3;
    /// TRIM.
    pub const SEND_TRIM: u16 = 1 << 5;
    /// WRITE_ZEROES.
    pub const SEND_WRITE_ZEROES: u16 = 1 << 6;
    /// The flag DF; only with structured replies.
    pub const SEND_DF: u16 = 1 << 7;
    /// A flush covers all connections.
    pub const MULTI_CONN: u16 = 1 << 8;
    /// CACHE.
    pub const SEND_CACHE: u16 = 1 << 10;
    /// The flag FAST_ZERO.
    pub const SEND_FAST_ZERO: u16 = 1 << 11;
}

/// "Option types".
pub mod opt {
    /// Chooses an export, without a word when that fails.
    pub const EXPORT_NAME: u32 = 1;
    /// Ends.
    pub const ABORT: u32 = 2;
    /// Names all exports.
    pub const LIST: u32 = 3;
    /// Tells of an export.
    pub const INFO: u32 = 6;
    /// Chooses an export.
    pub const GO: u32 = 7;
    /// Asks for structured replies.
    pub const STRUCTURED_REPLY: u32 = 8;
    /// Names metadata contexts.
    pub const LIST_META_CONTEXT: u32 = 9;
    /// Chooses metadata contexts.
    pub const SET_META_CONTEXT: u32 = 10;
}

/// "Option reply types".
pub mod rep {
    /// Done.
    pub const ACK: u32 = 1;
    /// The name of an export.
    pub const SERVER: u32 = 2;
    /// Something about an export.
    pub const INFO: u32 = 3;
    /// A metadata context.
    pub const META_CONTEXT: u32 = 4;
    /// An unknown option.
    pub const ERR_UNSUP: u32 = (1 << 31) + 1;
    /// Not allowed here.
    pub const ERR_POLICY: u32 = (1 << 31) + 2;
    /// Nonsense.
    pub const ERR_INVALID: u32 = (1 << 31) + 3;
    /// No such export.
    pub const ERR_UNKNOWN: u32 = (1 << 31) + 6;
    /// The server stops.
    pub const ERR_SHUTDOWN: u32 = (1 << 31) + 7;
    /// Too long.
    pub const ERR_TOO_BIG: u32 = (1 << 31) + 9;
}

/// Information types of `NBD_REP_INFO`.
pub mod info {
    /// Size and flags.
    pub const EXPORT: u16 = 0;
    /// The name.
    pub const NAME: u16 = 1;
    /// Words for people.
    pub const DESCRIPTION: u16 = 2;
    /// Sizes of requests.
    pub const BLOCK_SIZE: u16 = 3;
}

/// "Request types".
pub mod cmd {
    /// Reads.
    pub const READ: u16 = 0;
    /// Writes.
    pub const WRITE: u16 = 1;
    /// Goes.
    pub const DISC: u16 = 2;
    /// Makes last.
    pub const FLUSH: u16 = 3;
    /// Needs no more.
    pub const TRIM: u16 = 4;
    /// Will need.
    pub const CACHE: u16 = 5;
    /// Writes zeros.
    pub const WRITE_ZEROES: u16 = 6;
    /// Asks what is there.
    pub const BLOCK_STATUS: u16 = 7;
}

/// "Command flags".
pub mod flag {
    /// Lasts before it is answered; for every command.
    pub const FUA: u16 = 1 << 0;
    /// WRITE_ZEROES: no hole.
    pub const NO_HOLE: u16 = 1 << 1;
    /// READ: in one piece.
    pub const DF: u16 = 1 << 2;
    /// BLOCK_STATUS: one extent.
    pub const REQ_ONE: u16 = 1 << 3;
    /// WRITE_ZEROES: fast or not at all.
    pub const FAST_ZERO: u16 = 1 << 4;
}

/// "Structured reply types".
pub mod chunk {
    /// Nothing more.
    pub const NONE: u16 = 0;
    /// Bytes.
    pub const OFFSET_DATA: u16 = 1;
    /// Zeros.
    pub const OFFSET_HOLE: u16 = 2;
    /// Extents.
    pub const BLOCK_STATUS: u16 = 5;
    /// Failed.
    pub const ERROR: u16 = (1 << 15) + 1;
    /// The last chunk of a reply.
    pub const FLAG_DONE: u16 = 1;
}

/// The metadata context that is there, and its flags: HOLE and ZERO (proto.md, "`base:allocation` metadata context").
pub const BASE_ALLOCATION: &str = "base:allocation";
/// The id that it is given.
pub const BASE_ALLOCATION_ID: u32 = 1;
/// HOLE and ZERO.
pub const STATE_HOLE_ZERO: u32 = 0b11;

/// Longest string (proto.md, "Conventions").
pub const STRING_BYTES_MAX: usize = 4096;

/// The size of requests that is told (proto.md, "Size constraints"): the defaults, so that clients that do not ask fit, too.
pub const BLOCK_BYTES_MIN: u32 = 1;
/// What requests are best multiples of.
pub const BLOCK_BYTES_PREFERRED: u32 = 4096;
/// The longest payload that is told.
pub const PAYLOAD_BYTES_TOLD: u32 = 32 << 20;
/// The longest payload that is taken, and sent: clients that do not ask for the size go further, nbd-tester-client to 48 MiB. It is never
/// in memory whole.
pub const PAYLOAD_BYTES_MAX: u32 = 64 << 20;

/// Reads numbers, most significant byte first ("Conventions"), from the front of bytes.
#[derive(Clone, Copy, Debug)]
pub struct Fields<'a>(pub &'a [u8]);

impl<'a> Fields<'a> {
    /// So many bytes, if they are there.
    pub fn bytes(&mut self, count: usize) -> Option<&'a [u8]> {
        let (bytes, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(bytes)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (bytes, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*bytes)
    }

    /// A number of 16 bits.
    pub fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    /// A number of 32 bits.
    pub fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    /// A number of 64 bits.
    pub fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }
}
