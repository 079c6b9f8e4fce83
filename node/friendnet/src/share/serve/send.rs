//! A get, seen from the holder: one frame's worth is read from disk when the one before it has found its place in the queue.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use bytes::Bytes;
use proto::id::ShareId;
use proto::share_store::StoreError;
use proto::wire::frame::PAYLOAD_BYTES_MAX;
use proto::wire::share::ShareMessage;
use stores::folder::store_error;

use super::Handlers;
use crate::blocking::blocking;

impl Handlers {
    /// Sends a range of a stored form.
    pub(super) async fn send(&self, request: u32, id: ShareId, range: Range<u32>) -> Result<(), StoreError> {
        let store = self.shelf.store.clone();
        let (file, bytes) = blocking(move || store.open_share(id)).await?;
        if range.start > range.end || u64::from(range.end) > bytes {
            return Err(StoreError::OutOfRange);
        }
        let file = Arc::new(file);
        let mut offset = range.start;
        loop {
            let length = (range.end - offset).min(PAYLOAD_BYTES_MAX as u32);
            let payload = read(file.clone(), offset, length).await?;
            self.say(&ShareMessage::GetBytes { request, offset }, payload).await;
            offset += length;
            if offset == range.end {
                return Ok(());
            }
        }
    }
}

async fn read(file: Arc<File>, offset: u32, length: u32) -> Result<Bytes, StoreError> {
    blocking(move || {
        let mut buffer = vec![0; length as usize];
        file.read_exact_at(&mut buffer, offset.into())
            .map_err(|error| store_error("reading a share", &error))?;
        Ok(Bytes::from(buffer))
    })
    .await
}
