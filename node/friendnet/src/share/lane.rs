//! One stream to a friend that carries many requests at once: numbers them, and brings each its answers.
//!
//! A lane that breaks fails all its requests; whoever holds it opens another. Leaves out what requests mean.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use libp2p::Stream;
use proto::share_store::StoreError;
use proto::wire::frame::PAYLOAD_BYTES_MAX;
use proto::wire::share::ShareMessage;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use upload_queue::bandwidth::{Class, Limiter};

use crate::net::core::Core;
use crate::net::frames;
use crate::net::frames::{Frame, ReadError};

/// A lane with open requests on which nothing moves for this long is broken (docs/protocol/share.md).
const STALL_TIME: Duration = Duration::from_secs(30);
/// A request that is not answered for this long, while others are, is given up. Chosen: longer than any queue of a holder.
const ANSWER_TIME: Duration = Duration::from_secs(600);
/// How late a stall may be noticed: little beside [`STALL_TIME`].
const STALL_CHECK: Duration = Duration::from_secs(5);
/// Frames waiting to be written.
const QUEUE_MAX: usize = 4;

/// A lane; see the module.
pub struct Lane {
    queue: mpsc::Sender<Frame>,
    open: Mutex<Open>,
    began: Instant,
    /// Milliseconds since `began` at which something last moved.
    moved: AtomicU64,
    broken: CancellationToken,
}

#[derive(Default)]
struct Open {
    next: u32,
    requests: HashMap<u32, Asked>,
}

/// What may still come for a request: a friend that sends more is no friend.
struct Asked {
    answers: mpsc::UnboundedSender<(ShareMessage, Bytes)>,
    bytes_left: usize,
    answers_left: usize,
}

/// An open request. Dropping it before its last answer tells the other side not to bother.
pub struct Request {
    lane: Arc<Lane>,
    number: u32,
    answers: mpsc::UnboundedReceiver<(ShareMessage, Bytes)>,
    settled: bool,
}

impl Lane {
    /// Runs a lane over a stream whose greetings are done.
    pub fn start(core: Arc<Core>, stream: Stream) -> Arc<Self> {
        let (queue, frames) = mpsc::channel(QUEUE_MAX);
        let lane = Arc::new(Self {
            queue,
            open: Mutex::default(),
            began: Instant::now(),
            moved: AtomicU64::new(0),
            broken: core.stop.child_token(),
        });
        tokio::spawn(lane.clone().run(core, stream, frames));
        lane
    }

    /// Whether requests can still be made.
    pub fn is_broken(&self) -> bool {
        self.broken.is_cancelled()
    }

    /// Opens a request that will be answered with at most `bytes` of payload.
    pub fn request(self: &Arc<Self>, bytes: usize) -> Result<Request, StoreError> {
        if self.is_broken() {
            return Err(lost());
        }
        self.touch();
        let (answers, receiver) = mpsc::unbounded_channel();
        let mut open = self.lock();
        let number = open.next;
        open.next = open.next.wrapping_add(1);
        // Holders fill their frames, so that few come; two more for a refusal and for a half-filled end.
        let answers_left = bytes.div_ceil(PAYLOAD_BYTES_MAX) + 2;
        open.requests.insert(
            number,
            Asked {
                answers,
                bytes_left: bytes,
                answers_left,
            },
        );
        drop(open);
        Ok(Request {
            lane: self.clone(),
            number,
            answers: receiver,
            settled: false,
        })
    }

    async fn run(self: Arc<Self>, core: Arc<Core>, stream: Stream, frames: mpsc::Receiver<Frame>) {
        let (reader, writer) = stream.split();
        let ended = tokio::select! {
            ended = self.read_answers(&core, reader) => ended,
            ended = self.write_requests(&core, frames, writer) => ended,
            () = self.stalled() => Err(std::io::Error::from(std::io::ErrorKind::TimedOut).into()),
            () = self.broken.cancelled() => Ok(()),
        };
        if let Err(error) = ended {
            tracing::debug!("A lane ended: {error}");
        }
        self.broken.cancel();
        // Their requests learn of it by the end of their channels.
        self.lock().requests.clear();
    }

    async fn read_answers(&self, core: &Core, mut reader: ReadHalf<Stream>) -> Result<(), ReadError> {
        while let Some((message, payload)) = frames::read::<ShareMessage, _>(&mut reader).await? {
            self.touch();
            core.counters.received(payload.len());
            // Not reading on is what makes the other side wait.
            self.pay(&core.bandwidth.download, Class::Restore, payload.len()).await;
            if !self.dispatch(message, payload) {
                return Err(std::io::Error::from(std::io::ErrorKind::InvalidData).into());
            }
        }
        Ok(())
    }

    /// False if the other side sent more than was asked for.
    fn dispatch(&self, message: ShareMessage, payload: Bytes) -> bool {
        let mut open = self.lock();
        // Answers to a request that was dropped were on their way already.
        let Some(asked) = open.requests.get_mut(&message.request()) else {
            return true;
        };
        let bytes_left = asked.bytes_left.checked_sub(payload.len());
        let answers_left = asked.answers_left.checked_sub(1);
        let (Some(bytes_left), Some(answers_left)) = (bytes_left, answers_left) else {
            return false;
        };
        (asked.bytes_left, asked.answers_left) = (bytes_left, answers_left);
        let _ = asked.answers.send((message, payload));
        true
    }

    async fn write_requests(
        &self,
        core: &Core,
        mut frames: mpsc::Receiver<Frame>,
        mut writer: WriteHalf<Stream>,
    ) -> Result<(), ReadError> {
        while let Some(frame) = frames.recv().await {
            self.pay(&core.bandwidth.upload, Class::Backup, frame.bytes()).await;
            frame.write(&mut writer).await?;
            self.touch();
            core.counters.sent(frame.bytes());
            if frames.is_empty() {
                writer.flush().await?;
            }
        }
        Ok(())
    }

    /// Waits for the budget; that is no stall.
    async fn pay(&self, budget: &Limiter, class: Class, bytes: usize) {
        let paid = budget.acquire(class, bytes as u64);
        tokio::pin!(paid);
        loop {
            self.touch();
            tokio::select! {
                () = &mut paid => return self.touch(),
                () = tokio::time::sleep(STALL_CHECK) => {}
            }
        }
    }

    async fn stalled(&self) {
        loop {
            tokio::time::sleep(STALL_CHECK).await;
            let quiet = self
                .began
                .elapsed()
                .saturating_sub(Duration::from_millis(self.moved.load(Ordering::Relaxed)));
            if quiet > STALL_TIME && !self.lock().requests.is_empty() {
                return;
            }
        }
    }

    fn touch(&self) {
        self.moved
            .store(self.began.elapsed().as_millis() as u64, Ordering::Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().expect("no panic while the requests are locked")
    }
}

impl Request {
    /// Its number, for the messages that belong to it.
    pub fn number(&self) -> u32 {
        self.number
    }

    /// Queues a message; waits while the queue is full.
    pub async fn say(&self, message: &ShareMessage, payload: Bytes) -> Result<(), StoreError> {
        tokio::select! {
            sent = self.lane.queue.send(Frame::new(message, payload)) => sent.map_err(|_| lost()),
            () = self.lane.broken.cancelled() => Err(lost()),
        }
    }

    /// The next answer. A failure told by the other side settles the request.
    pub async fn answer(&mut self) -> Result<(ShareMessage, Bytes), StoreError> {
        match tokio::time::timeout(ANSWER_TIME, self.answers.recv()).await {
            Ok(Some((ShareMessage::Failed { failure, .. }, _))) => {
                self.settled = true;
                Err(failure.into())
            }
            Ok(Some(answer)) => Ok(answer),
            Ok(None) => Err(lost()),
            Err(_) => Err(StoreError::Unreachable {
                reason: "no answer came".into(),
            }),
        }
    }

    /// An answer that has come already, when only a failure can: so that a sender stops early.
    pub fn interruption(&mut self) -> Option<StoreError> {
        match self.answers.try_recv() {
            Ok((ShareMessage::Failed { failure, .. }, _)) => {
                self.settled = true;
                Some(failure.into())
            }
            Ok(_) => Some(wrong_answer()),
            Err(_) => None,
        }
    }

    /// Nothing more is expected.
    pub fn settle(mut self) {
        self.settled = true;
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        self.lane.lock().requests.remove(&self.number);
        if self.settled || self.lane.is_broken() {
            return;
        }
        let frame = Frame::bare(&ShareMessage::Cancel { request: self.number });
        if let Err(mpsc::error::TrySendError::Full(frame)) = self.lane.queue.try_send(frame)
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            let queue = self.lane.queue.clone();
            runtime.spawn(async move { queue.send(frame).await });
        }
    }
}

/// What a request gets whose answer is none.
pub fn wrong_answer() -> StoreError {
    StoreError::Corrupt {
        reason: "The answer does not belong to the question".into(),
    }
}

fn lost() -> StoreError {
    StoreError::Unreachable {
        reason: "the connection was lost".into(),
    }
}
