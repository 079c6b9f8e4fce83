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

use super::Handlers;
use stores::folder::store_error;

impl Handlers {
    /// Sends a range of a stored form.
    pub(super) async fn send(&self, request: u32, id: ShareId, range: Range<u32>) -> Result<(), StoreError> {
        let store = self.shelf.store.clone();
        let opened = tokio::task::spawn_blocking(move || store.open_share(id)).await;
        let (file, bytes) = opened.map_err(stopped)??;
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
    let read = tokio::task::spawn_blocking(move || {
        let mut buffer = vec![0; length as usize];
        file.read_exact_at(&mut buffer, offset.into()).map(|()| buffer)
    });
    let buffer = read.await.map_err(stopped)?;
    buffer
        .map(Bytes::from)
        .map_err(|error| store_error("reading a share", &error))
}

fn stopped(error: tokio::task::JoinError) -> StoreError {
    StoreError::Unreachable {
        reason: format!("The store's thread stopped: {error}"),
    }
}
