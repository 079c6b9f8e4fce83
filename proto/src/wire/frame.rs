//! The frame that every message travels in (docs/protocol/frame.md).
//!
//! ```text
//! offset  bytes  what
//! 0       4      length of all that follows, little endian
//! 4       2      length H of the header, little endian
//! 6       H      header: one CBOR message
//! 6 + H   rest   payload: raw bytes, whose meaning the message tells
//! ```

use minicbor::{Decode, Decoder, Encode};

use crate::id::ShareId;
use crate::size::KIB;

/// Most bytes of a header. Chosen: the longest message (a join with the longest word) takes less than two thirds of it.
pub const HEADER_BYTES_MAX: usize = 4 * KIB;
/// Most bytes of a payload. Chosen: large enough for the fullest roster, and that frames cost nothing beside sealing; small enough that a
/// hundred in flight are nothing to hold.
pub const PAYLOAD_BYTES_MAX: usize = 640 * KIB;
/// Most ids in one answer to `List`: they fill a payload.
pub const IDS_MAX: u32 = (PAYLOAD_BYTES_MAX / ShareId::LEN) as u32;
/// Bytes of the length field.
pub const LENGTH_BYTES: usize = 4;

/// Bytes of the header's length.
const HEADER_LENGTH_BYTES: usize = 2;

/// Bytes that are no frame. The stream cannot be read on after it.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
pub enum FrameError {
    /// The length field is beyond the limit or too short for a header.
    #[error("A frame of {bytes} bytes is outside of the limits")]
    Length {
        /// What the length field says.
        bytes: u32,
    },
    /// The header's length is beyond its limit or the frame's end.
    #[error("A frame header of {bytes} bytes is outside of the limits")]
    HeaderLength {
        /// What the header's length field says.
        bytes: u16,
    },
    /// The header is not one message of the expected family.
    #[error("The frame header is no known message: {reason}")]
    Header {
        /// What the decoder said.
        reason: String,
    },
}

/// All of a frame but its payload, of which `payload_bytes` follow.
///
/// # Panics
/// If header or payload are beyond their limits: our own messages never are.
pub fn prefix<M: Encode<()>>(message: &M, payload_bytes: usize) -> Vec<u8> {
    let mut frame = vec![0; LENGTH_BYTES + HEADER_LENGTH_BYTES];
    minicbor::encode(message, &mut frame).expect("writing to memory does not fail");
    let header_bytes = frame.len() - LENGTH_BYTES - HEADER_LENGTH_BYTES;
    assert!(header_bytes <= HEADER_BYTES_MAX, "a message outgrew the header");
    assert!(payload_bytes <= PAYLOAD_BYTES_MAX, "a payload outgrew the frame");
    let body_bytes = HEADER_LENGTH_BYTES + header_bytes + payload_bytes;
    frame[..LENGTH_BYTES].copy_from_slice(&(body_bytes as u32).to_le_bytes());
    frame[LENGTH_BYTES..][..HEADER_LENGTH_BYTES].copy_from_slice(&(header_bytes as u16).to_le_bytes());
    frame
}

/// Bytes that follow a length field, checked before anything is allocated for them.
pub fn body_bytes(length: [u8; LENGTH_BYTES]) -> Result<usize, FrameError> {
    let bytes = u32::from_le_bytes(length);
    let valid = HEADER_LENGTH_BYTES + 1..=HEADER_LENGTH_BYTES + HEADER_BYTES_MAX + PAYLOAD_BYTES_MAX;
    if valid.contains(&(bytes as usize)) {
        Ok(bytes as usize)
    } else {
        Err(FrameError::Length { bytes })
    }
}

/// Reads the body of a frame: its message, and where the payload begins.
pub fn parse<'b, M: Decode<'b, ()>>(body: &'b [u8]) -> Result<(M, usize), FrameError> {
    let (length, rest) = body
        .split_at_checked(HEADER_LENGTH_BYTES)
        .ok_or(FrameError::HeaderLength { bytes: 0 })?;
    let bytes = u16::from_le_bytes([length[0], length[1]]);
    let header = rest
        .get(..bytes.into())
        .filter(|header| header.len() <= HEADER_BYTES_MAX);
    let header = header.ok_or(FrameError::HeaderLength { bytes })?;
    let payload_start = HEADER_LENGTH_BYTES + header.len();
    if body.len() - payload_start > PAYLOAD_BYTES_MAX {
        return Err(FrameError::Length {
            bytes: body.len() as u32,
        });
    }
    let mut decoder = Decoder::new(header);
    let message = decoder.decode().map_err(|error| FrameError::Header {
        reason: error.to_string(),
    })?;
    if decoder.position() != header.len() {
        return Err(FrameError::Header {
            reason: "bytes behind the message".into(),
        });
    }
    Ok((message, payload_start))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, proptest};

    use super::*;
    use crate::wire::share::ShareMessage;

    #[test]
    fn a_length_beyond_the_limit_is_refused_before_anything_is_read() {
        for bytes in [0, 2, u32::MAX, (3 + HEADER_BYTES_MAX + PAYLOAD_BYTES_MAX) as u32] {
            assert_eq!(body_bytes(bytes.to_le_bytes()), Err(FrameError::Length { bytes }));
        }
    }

    #[test]
    fn bytes_behind_the_message_in_the_header_are_refused() {
        let mut frame = prefix(&ShareMessage::Space { request: 1 }, 0);
        frame.push(0);
        frame[LENGTH_BYTES] += 1;
        assert!(matches!(
            parse::<ShareMessage>(&frame[LENGTH_BYTES..]),
            Err(FrameError::Header { .. })
        ));
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(body: Vec<u8>) {
            let _ = parse::<ShareMessage>(&body);
        }

        #[test]
        fn a_payload_comes_back_as_it_was(payload: Vec<u8>, request in any::<u32>()) {
            let message = ShareMessage::PutBytes { request, offset: 7 };
            let mut frame = prefix(&message, payload.len());
            frame.extend_from_slice(&payload);
            let (length, body) = frame.split_first_chunk().expect("a frame has a length");
            assert_eq!(body_bytes(*length), Ok(body.len()));
            let (read, start) = parse::<ShareMessage>(body).expect("what was written is read");
            assert_eq!((read, &body[start..]), (message, &payload[..]));
        }
    }
}
