//! Work that waits for the disk, off the threads that serve the network.

use proto::share_store::StoreError;

/// Does `work` on a thread that may block. Dropping the future does not end it.
pub(crate) async fn blocking<T, F>(work: F) -> Result<T, StoreError>
where
    T: Send + 'static,
    F: FnOnce() -> Result<T, StoreError> + Send + 'static,
{
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(stopped) => Err(StoreError::Unreachable {
            reason: format!("The store's thread stopped: {stopped}"),
        }),
    }
}
