//! Replies of the transmission phase, put into bytes (proto.md, "Simple reply message", "Structured reply chunk message").

use crate::device::DeviceError;
use crate::nbd::request::{Cookie, Errno};
use crate::nbd::wire::{BASE_ALLOCATION_ID, SIMPLE_REPLY_MAGIC, STRUCTURED_REPLY_MAGIC, chunk};

/// Longest words in an error; the protocol has room for 4,096 bytes.
const WORDS_BYTES_MAX: usize = 512;
/// Bytes before a chunk's payload.
pub const CHUNK_HEAD_BYTES: usize = 20;
/// Bytes of a simple reply before its data.
pub const SIMPLE_HEAD_BYTES: usize = 16;
/// Bytes before the data of an `NBD_REPLY_TYPE_OFFSET_DATA`.
pub const DATA_HEAD_BYTES: usize = CHUNK_HEAD_BYTES + 8;

/// A failure as a client is told of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Failed {
    /// The number.
    pub errno: Errno,
    /// Words for people; may be empty.
    pub words: String,
}

impl From<Errno> for Failed {
    fn from(errno: Errno) -> Self {
        let words = String::new();
        Self { errno, words }
    }
}

impl From<&DeviceError> for Failed {
    fn from(error: &DeviceError) -> Self {
        let errno = match error {
            DeviceError::OutOfRange => Errno::Invalid,
            DeviceError::ReadOnly => Errno::NotPermitted,
            DeviceError::NoSpace => Errno::NoSpace,
            DeviceError::Unavailable(..) | DeviceError::Damaged(..) | DeviceError::Io(..) => Errno::Io,
        };
        let words = error.to_string();
        Self { errno, words }
    }
}

/// Puts the reply to a request that needs no data. Simple replies are allowed then, structured ones negotiated or not, and shorter.
pub fn put_done(out: &mut Vec<u8>, cookie: Cookie) {
    out.extend_from_slice(&simple_head(cookie, 0));
}

/// Puts the reply to a request that failed.
pub fn put_failed(out: &mut Vec<u8>, cookie: Cookie, failed: &Failed, is_structured: bool) {
    let errno = failed.errno as u32;
    if !is_structured {
        return out.extend_from_slice(&simple_head(cookie, errno));
    }
    let words = &failed.words.as_bytes()[..failed.words.floor_char_boundary(WORDS_BYTES_MAX)];
    put_chunk(out, cookie, chunk::FLAG_DONE, chunk::ERROR, 6 + words.len());
    out.extend(errno.to_be_bytes());
    out.extend((words.len() as u16).to_be_bytes());
    out.extend(words);
}

/// The head of a simple reply.
pub fn simple_head(cookie: Cookie, errno: u32) -> [u8; SIMPLE_HEAD_BYTES] {
    let mut head = [0; SIMPLE_HEAD_BYTES];
    head[..4].copy_from_slice(&SIMPLE_REPLY_MAGIC.to_be_bytes());
    head[4..8].copy_from_slice(&errno.to_be_bytes());
    head[8..].copy_from_slice(&cookie.to_be_bytes());
    head
}

fn chunk_head(cookie: Cookie, flags: u16, kind: u16, length: usize) -> [u8; CHUNK_HEAD_BYTES] {
    let mut head = [0; CHUNK_HEAD_BYTES];
    head[..4].copy_from_slice(&STRUCTURED_REPLY_MAGIC.to_be_bytes());
    head[4..6].copy_from_slice(&flags.to_be_bytes());
    head[6..8].copy_from_slice(&kind.to_be_bytes());
    head[8..16].copy_from_slice(&cookie.to_be_bytes());
    head[16..].copy_from_slice(&(length as u32).to_be_bytes());
    head
}

fn put_chunk(out: &mut Vec<u8>, cookie: Cookie, flags: u16, kind: u16, length: usize) {
    out.extend_from_slice(&chunk_head(cookie, flags, kind, length));
}

/// The head of a chunk with data, which follow. Not the last chunk if an error can still come.
pub fn data_head(cookie: Cookie, offset: u64, length: usize, is_last: bool) -> [u8; DATA_HEAD_BYTES] {
    let flags = if is_last { chunk::FLAG_DONE } else { 0 };
    let mut head = [0; DATA_HEAD_BYTES];
    head[..CHUNK_HEAD_BYTES].copy_from_slice(&chunk_head(cookie, flags, chunk::OFFSET_DATA, 8 + length));
    head[CHUNK_HEAD_BYTES..].copy_from_slice(&offset.to_be_bytes());
    head
}

/// Puts a chunk that stands for zeros.
pub fn put_hole(out: &mut Vec<u8>, cookie: Cookie, offset: u64, length: u32, is_last: bool) {
    let flags = if is_last { chunk::FLAG_DONE } else { 0 };
    put_chunk(out, cookie, flags, chunk::OFFSET_HOLE, 12);
    out.extend(offset.to_be_bytes());
    out.extend(length.to_be_bytes());
}

/// Puts the last chunk of a structured reply that has said all.
pub fn put_end(out: &mut Vec<u8>, cookie: Cookie) {
    put_chunk(out, cookie, chunk::FLAG_DONE, chunk::NONE, 0);
}

/// Puts the reply to a block status: length and flags of each extent.
pub fn put_block_status(out: &mut Vec<u8>, cookie: Cookie, extents: &[(u32, u32)]) {
    put_chunk(
        out,
        cookie,
        chunk::FLAG_DONE,
        chunk::BLOCK_STATUS,
        4 + extents.len() * 8,
    );
    out.extend(BASE_ALLOCATION_ID.to_be_bytes());
    for (length, flags) in extents {
        out.extend([*length, *flags].map(u32::to_be_bytes).as_flattened());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_are_the_bytes_that_the_document_lays_out() {
        let mut out = Vec::new();
        put_done(&mut out, 0x0102_0304_0506_0708);
        assert_eq!(out, [0x67, 0x44, 0x66, 0x98, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8]);
        out.clear();
        put_hole(&mut out, 1, 4096, 512, true);
        let head = [0x66, 0x8e, 0x33, 0xef, 0, 1, 0, 2, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 12];
        assert_eq!(out, [&head[..], &[0, 0, 0, 0, 0, 0, 0x10, 0, 0, 0, 2, 0]].concat());
        let head = data_head(1, 4096, 512, false);
        assert_eq!(
            head[..20],
            [0x66, 0x8e, 0x33, 0xef, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 2, 8]
        );
        assert_eq!(head[20..], [0, 0, 0, 0, 0, 0, 0x10, 0]);
        out.clear();
        put_end(&mut out, 1);
        assert_eq!(
            out,
            [0x66, 0x8e, 0x33, 0xef, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0]
        );
        out.clear();
        put_block_status(&mut out, 1, &[(512, 0), (4096, 3)]);
        assert_eq!(
            out[..20],
            [0x66, 0x8e, 0x33, 0xef, 0, 1, 0, 5, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 20]
        );
        assert_eq!(
            out[20..],
            [0, 0, 0, 1, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0x10, 0, 0, 0, 0, 3]
        );
    }

    #[test]
    fn failures_have_words_where_there_is_room_for_them() {
        let failed = Failed {
            errno: Errno::Io,
            words: "é".repeat(400),
        };
        let mut out = Vec::new();
        put_failed(&mut out, 1, &failed, false);
        assert_eq!(out, [0x67, 0x44, 0x66, 0x98, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 1]);
        out.clear();
        put_failed(&mut out, 1, &failed, true);
        assert_eq!(out[..8], [0x66, 0x8e, 0x33, 0xef, 0, 1, 0x80, 1]);
        assert_eq!(out[16..26], [0, 0, 2, 6, 0, 0, 0, 5, 2, 0]);
        assert_eq!(std::str::from_utf8(&out[26..]).map(str::len), Ok(512));
    }
}
