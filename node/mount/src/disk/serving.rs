//! What is asked of the device: at once, on the thread that was asked, where nothing has to be waited for, and else by a task beside it,
//! so that nobody waits for somebody else's peers.
//!
//! What waits is bounded: bytes of changes by [`HELD_BYTES_MAX`], reads that are fetched by [`FETCHES_MAX`]. What else waits has
//! no bytes here, and somebody in the kernel who waits for it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use disk::{Change, Device, DeviceError};
use fuser::{Errno, ReplyData};
use futures::FutureExt;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

use super::failure::errno;
use super::held::{Held, fetch, is_here, room};

/// Most bytes of changes that wait for room or for blocks. Beyond it the threads wait, too, and with them all that is asked. Chosen:
/// a loop device and a program with some threads stay below it.
const HELD_BYTES_MAX: u32 = 64 << 20;
/// Most reads that are fetched at the same time. Chosen: with the kernel's longest request (1 MiB) as much as of changes.
const FETCHES_MAX: usize = 64;

/// Whether a change is answered when it is made, or when it survives a power cut (`O_SYNC`, `O_DSYNC`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Answered {
    WhenMade,
    WhenFlushed,
}

/// A device in use by a mount.
pub(super) struct Serving {
    device: Arc<dyn Device>,
    runtime: Handle,
    held: Arc<Semaphore>,
    fetches: Semaphore,
    /// How many changes were made through this mount, and how many of the first of them are flushed.
    made: AtomicU64,
    flushed: AtomicU64,
    changed: Mutex<SystemTime>,
    failed_end: Mutex<Option<DeviceError>>,
}

impl Serving {
    pub(super) fn new(device: Arc<dyn Device>, runtime: Handle) -> Self {
        Self {
            device,
            runtime,
            held: Arc::new(Semaphore::new(HELD_BYTES_MAX as usize)),
            fetches: Semaphore::new(FETCHES_MAX),
            made: AtomicU64::new(0),
            flushed: AtomicU64::new(0),
            changed: Mutex::new(SystemTime::now()),
            failed_end: Mutex::new(None),
        }
    }

    pub(super) fn device(&self) -> &dyn Device {
        &*self.device
    }

    /// When something was changed last through this mount, or else when it began.
    pub(super) fn changed(&self) -> SystemTime {
        *self.changed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads what lies within the device, and answers.
    pub(super) fn read(self: &Arc<Self>, offset: u64, length: u32, reply: ReplyData) {
        let rest = self.device.size().saturating_sub(offset);
        let length = rest.min(u64::from(length)) as usize;
        if length == 0 {
            return reply.data(&[]);
        }
        let mut bytes = vec![0; length];
        // For a device that starts something in the runtime.
        let _beside = self.runtime.enter();
        match self.device.read_now(offset, &mut bytes) {
            Ok(true) => return reply.data(&bytes),
            Ok(false) => drop(bytes),
            Err(error) => return reply.error(errno(&error)),
        }
        let serving = self.clone();
        self.runtime.spawn(async move {
            // Never closed.
            let _turn = serving.fetches.acquire().await;
            match serving.device.read(offset, length).await {
                Ok(bytes) => reply.data(&bytes),
                Err(error) => reply.error(errno(&error)),
            }
        });
    }

    /// Makes a change within the device, and answers.
    pub(super) fn change(
        self: &Arc<Self>,
        change: &Change<'_>,
        answered: Answered,
        answer: impl FnOnce(Result<(), Errno>) + Send + 'static,
    ) {
        let _beside = self.runtime.enter();
        let is_write = matches!(change, Change::Write { .. });
        // Zeroing and trimming look up what is there, which may take long, and have no bytes to be copied.
        if is_write
            && is_here(&*self.device, change)
            && let Some(ready) = self.device.ready(room(change)).now_or_never()
        {
            let made = ready.and_then(|()| self.apply(change)).map_err(|error| errno(&error));
            return match (made, answered) {
                (Ok(()), Answered::WhenFlushed) => self.answer_flushed(answer),
                (made, _) => answer(made),
            };
        }
        let held = Held::of(change);
        let bytes = room(change).min(u64::from(HELD_BYTES_MAX)) as u32;
        // This is where threads wait when too much is held already. Never closed.
        let turn = self.runtime.block_on(self.held.clone().acquire_many_owned(bytes));
        let serving = self.clone();
        self.runtime.spawn(async move {
            let made = serving.make_held(held).await;
            drop(turn);
            match (made, answered) {
                (Ok(()), Answered::WhenFlushed) => serving.answer_flushed(answer),
                (made, _) => answer(made.map_err(|error| errno(&error))),
            }
        });
    }

    /// Makes a change when there is room for it and what it needs is here.
    async fn make_held(self: &Arc<Self>, held: Held) -> Result<(), DeviceError> {
        for part in held.parts() {
            self.device.ready(room(&part.change())).await?;
            fetch(&*self.device, &part.change()).await?;
            let serving = self.clone();
            let making = tokio::task::spawn_blocking(move || serving.apply(&part.change()));
            making.await.map_err(std::io::Error::other)??;
        }
        Ok(())
    }

    fn apply(&self, change: &Change<'_>) -> Result<(), DeviceError> {
        self.device.apply(&[*change])?;
        *self.changed.lock().unwrap_or_else(PoisonError::into_inner) = SystemTime::now();
        self.made.fetch_add(1, Ordering::AcqRel);
        Ok(())
    }

    /// All that was applied to the device, by whomever, survives a power cut when it is done.
    pub(super) async fn flush(&self) -> Result<(), DeviceError> {
        let made = self.made.load(Ordering::Acquire);
        self.device.flush().await?;
        self.flushed.fetch_max(made, Ordering::AcqRel);
        Ok(())
    }

    /// Answers when all is flushed.
    pub(super) fn answer_flushed(self: &Arc<Self>, answer: impl FnOnce(Result<(), Errno>) + Send + 'static) {
        let serving = self.clone();
        self.runtime.spawn(async move {
            let flushed = serving.flush().await;
            answer(flushed.map_err(|error| errno(&error)));
        });
    }

    /// Whether all that was made through this mount is flushed.
    pub(super) fn is_flushed(&self) -> bool {
        self.flushed.load(Ordering::Acquire) >= self.made.load(Ordering::Acquire)
    }

    /// The mount is gone, and nobody asks for anything any more: finishes what waits, and flushes. Blocking, outside of the runtime.
    pub(super) fn end(&self) {
        let flushed = self.runtime.block_on(async {
            // Never closed.
            let _all = self.held.acquire_many(HELD_BYTES_MAX).await;
            self.flush().await
        });
        if let Err(error) = flushed {
            tracing::error!("What was written last to the mounted disk may not survive a power cut: {error}");
            *self.failed_end.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
        }
    }

    /// Why the flush at the end failed, once.
    pub(super) fn take_failed_end(&self) -> Option<DeviceError> {
        self.failed_end.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}
