//! Packs of one commit on their way out.

use std::sync::{Arc, Mutex, PoisonError};

use backup::writer::{WriteError, Writer};
use disk::DeviceError;
use disk::commit::compose::PackSink;
use proto::cap_index::PackRecord;
use proto::shape::PackShape;
use upload_queue::packs::PackRow;

use crate::record::VolumeBytes;

/// The packs of a commit that were delivered; clones are one list.
#[derive(Clone, Default)]
pub struct Delivered(Arc<Mutex<Vec<PackRow>>>);

impl Delivered {
    /// As it is now.
    pub fn all(&self) -> Vec<PackRow> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The next commit begins.
    pub fn clear(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    fn push(&self, pack: PackRow) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(pack);
    }
}

/// Seals and delivers the packs of one commit, and lists them: the head that makes the commit visible waits for all of them. Blocking.
pub struct OutgoingPacks<'a> {
    writer: &'a Writer,
    volume: VolumeBytes,
    /// Fixed for the commit: a peer that comes meanwhile changes those of the next one.
    shapes: Vec<PackShape>,
    delivered: Delivered,
}

impl<'a> OutgoingPacks<'a> {
    /// Of a commit of this disk that is made now.
    pub fn new(writer: &'a Writer, volume: VolumeBytes, delivered: Delivered) -> Self {
        Self {
            writer,
            volume,
            shapes: writer.shapes().to_vec(),
            delivered,
        }
    }
}

impl PackSink for OutgoingPacks<'_> {
    fn rooms(&self) -> Vec<usize> {
        self.shapes.iter().map(|shape| shape.plain_bytes()).collect()
    }

    fn deliver(&mut self, plain: Vec<u8>, room: usize) -> Result<PackRecord, DeviceError> {
        let shape = self.shapes.iter().find(|shape| shape.plain_bytes() == room);
        let shape = shape.ok_or_else(|| DeviceError::Unavailable(format!("no pack has room for {room} bytes")))?;
        let sealed = self.writer.seal_and_deliver(*shape, &plain, self.volume);
        let (row, record) = sealed.map_err(|error: WriteError| DeviceError::Unavailable(error.to_string()))?;
        self.delivered.push(row);
        Ok(record)
    }
}
