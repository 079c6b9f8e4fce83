//! Frames on a stream: reading with a bound before every allocation, writing without copying payloads.

use std::io;

use bytes::Bytes;
use futures::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use minicbor::{Decode, Encode};
use proto::wire::frame;
use proto::wire::frame::{FrameError, LENGTH_BYTES};

/// Payloads up to this travel in one write with their header. Chosen: below it a copy costs less than a second yamux frame.
const JOINED_BYTES_MAX: usize = 4096;

/// A stream that cannot be read on.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The other side broke the protocol.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The connection failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// A frame ready to be written.
pub struct Frame {
    prefix: Vec<u8>,
    payload: Bytes,
}

impl Frame {
    /// A message with its payload.
    pub fn new<M: Encode<()>>(message: &M, payload: Bytes) -> Self {
        let mut prefix = frame::prefix(message, payload.len());
        if payload.len() > JOINED_BYTES_MAX {
            return Self { prefix, payload };
        }
        prefix.extend_from_slice(&payload);
        Self {
            prefix,
            payload: Bytes::new(),
        }
    }

    /// A message without a payload.
    pub fn bare<M: Encode<()>>(message: &M) -> Self {
        Self::new(message, Bytes::new())
    }

    /// Bytes on the wire.
    pub fn bytes(&self) -> usize {
        self.prefix.len() + self.payload.len()
    }

    /// Writes it, without flushing. Dropped half-way, the stream is of no more use.
    pub async fn write<W: AsyncWrite + Unpin>(&self, stream: &mut W) -> io::Result<()> {
        stream.write_all(&self.prefix).await?;
        stream.write_all(&self.payload).await
    }
}

/// Reads one frame; `None` when the other side ended the stream between frames.
pub async fn read<M, R>(stream: &mut R) -> Result<Option<(M, Bytes)>, ReadError>
where
    M: for<'b> Decode<'b, ()>,
    R: AsyncRead + Unpin,
{
    let mut length = [0; LENGTH_BYTES];
    let first = stream.read(&mut length).await?;
    if first == 0 {
        return Ok(None);
    }
    stream.read_exact(&mut length[first..]).await?;
    let mut body = vec![0; frame::body_bytes(length)?];
    stream.read_exact(&mut body).await?;
    let (message, payload_start) = frame::parse(&body)?;
    Ok(Some((message, Bytes::from(body).slice(payload_start..))))
}

/// Writes one frame and flushes.
pub async fn say<M: Encode<()>, W: AsyncWrite + Unpin>(stream: &mut W, message: &M, payload: Bytes) -> io::Result<()> {
    Frame::new(message, payload).write(stream).await?;
    stream.flush().await
}
