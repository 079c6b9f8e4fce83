//! A list of ids of one length, in CBOR: one byte string of them end to end.

use minicbor::decode::Error as DecodeError;
use minicbor::encode::{Error as EncodeError, Write};
use minicbor::{Decoder, Encoder};

pub fn encode<C, W: Write, const N: usize>(
    ids: &[[u8; N]],
    encoder: &mut Encoder<W>,
    _context: &mut C,
) -> Result<(), EncodeError<W::Error>> {
    encoder.bytes(ids.as_flattened()).map(drop)
}

pub fn decode<C, const N: usize>(decoder: &mut Decoder<'_>, _context: &mut C) -> Result<Vec<[u8; N]>, DecodeError> {
    let (ids, rest) = decoder.bytes()?.as_chunks();
    match rest {
        [] => Ok(ids.to_vec()),
        _ => Err(DecodeError::message("a list of ids ends within one")),
    }
}

/// An empty list at the end of a record is left out.
pub fn nil<const N: usize>() -> Option<Vec<[u8; N]>> {
    Some(Vec::new())
}

/// Whether it is one.
pub fn is_nil<const N: usize>(ids: &[[u8; N]]) -> bool {
    ids.is_empty()
}
