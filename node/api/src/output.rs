//! Where a request's answers go: a bounded channel of messages and bytes, and the word to stop.
//!
//! The same channel ends in the terminal, in a script's pipe or in a server-sent event stream; whoever fills it does not
//! know which.

pub mod unwaiting;

use std::collections::VecDeque;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::failure::Failure;
use crate::message::{Message, Problem};

/// One piece of an answer.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// A message.
    Message(Message),
    /// Content (`cat`).
    Bytes(Bytes),
}

/// Outputs in flight: enough that a listing does not wait for each line, few enough that a slow reader holds it back.
const OUTPUTS_QUEUED_MAX: usize = 64;

/// The writing end; clones share it.
#[derive(Clone, Debug)]
pub struct Sink {
    outputs: mpsc::Sender<Output>,
    stop: CancellationToken,
}

/// The reading end. Dropping it tells the writer to stop.
#[derive(Debug)]
pub struct Outputs {
    outputs: mpsc::Receiver<Output>,
    stop: CancellationToken,
}

/// Nobody reads any more, or the user said stop: unwind cleanly, the next run goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("Nobody reads the answer any more")]
pub struct Closed;

impl From<Closed> for Failure {
    fn from(_: Closed) -> Self {
        Self::interrupted()
    }
}

/// A connected pair; cancelling `stop` asks the writer to finish early. The reader's end cancels no more than this pair.
pub fn channel(stop: CancellationToken) -> (Sink, Outputs) {
    let stop = stop.child_token();
    let (sender, receiver) = mpsc::channel(OUTPUTS_QUEUED_MAX);
    (
        Sink {
            outputs: sender,
            stop: stop.clone(),
        },
        Outputs {
            outputs: receiver,
            stop,
        },
    )
}

impl Sink {
    /// Sends a message, waiting while the reader is behind. May be dropped.
    pub async fn send(&self, message: impl Into<Message>) -> Result<(), Closed> {
        self.pass(Output::Message(message.into())).await
    }

    /// Sends content, waiting as `send` does. May be dropped.
    pub async fn bytes(&self, bytes: Bytes) -> Result<(), Closed> {
        self.pass(Output::Bytes(bytes)).await
    }

    /// Passes on what somebody else said, waiting as `send` does. May be dropped.
    pub(crate) async fn pass(&self, output: Output) -> Result<(), Closed> {
        self.outputs.send(output).await.map_err(|_| Closed)
    }

    /// Sends from a thread that may block, waiting while the reader is behind. Unlike `blocking_send` this works inside a
    /// `Handle::block_on`, too; the budget of the task around it would never be refilled while this waits.
    pub fn send_blocking(&self, message: impl Into<Message>) -> Result<(), Closed> {
        futures::executor::block_on(tokio::task::unconstrained(self.send(message)))
    }

    /// The same, of content.
    pub fn bytes_blocking(&self, bytes: Bytes) -> Result<(), Closed> {
        futures::executor::block_on(tokio::task::unconstrained(self.bytes(bytes)))
    }

    /// Sends progress if there is room; a reader that is behind misses it.
    pub fn progress(&self, progress: impl Into<Message>) {
        let _missed = self.outputs.try_send(Output::Message(progress.into()));
    }

    /// Cancelled when the work should stop cleanly: Ctrl-C, SIGTERM, or the client went away.
    pub fn stop(&self) -> &CancellationToken {
        &self.stop
    }

    /// An error once the work should stop: for loops to ask with `?`.
    pub fn go_on(&self) -> Result<(), Closed> {
        if self.stop.is_cancelled() { Err(Closed) } else { Ok(()) }
    }
}

impl Outputs {
    /// The next output; `None` when the last sink is gone. May be dropped.
    pub async fn next(&mut self) -> Option<Output> {
        self.outputs.recv().await
    }

    /// Nothing waits to be read: a moment to flush.
    pub fn is_empty(&self) -> bool {
        self.outputs.is_empty()
    }
}

/// What a reader who is behind is told later, at most. Chosen: a line for each file of a large disk that cannot be read, some 20 MB.
const OUTPUTS_KEPT_MAX: usize = 100_000;

impl Outputs {
    /// The same outputs for a reader who may be slow, stop or leave: the writer neither waits for it nor is stopped by it.
    pub fn decoupled(self) -> Self {
        let (sink, outputs) = channel(CancellationToken::new());
        // A thread of its own: a task could be next in line on the very worker that `send_blocking` holds until it is read.
        std::thread::spawn(|| futures::executor::block_on(pass_on(self, sink)));
        outputs
    }
}

async fn pass_on(mut from: Outputs, to: Sink) {
    let (mut backlog, mut is_written, mut is_read) = (Backlog::default(), true, true);
    while is_written || (is_read && !backlog.waiting.is_empty()) {
        tokio::select! {
            output = from.next(), if is_written => match output {
                Some(output) if is_read => backlog.push(output),
                Some(_) => {}
                None => {
                    is_written = false;
                    backlog.end();
                }
            },
            room = to.outputs.reserve(), if is_read && !backlog.waiting.is_empty() => match (room, backlog.waiting.pop_front()) {
                (Ok(room), Some(output)) => room.send(output),
                _ => is_read = false,
            },
        }
    }
}

#[derive(Default)]
struct Backlog {
    waiting: VecDeque<Output>,
    missed: u64,
}

impl Backlog {
    fn push(&mut self, output: Output) {
        let is_progress = |output: Option<&Output>| matches!(output, Some(Output::Message(Message::Progress(_))));
        if is_progress(self.waiting.back()) && is_progress(Some(&output)) {
            self.waiting.pop_back();
        }
        let is_last_word = matches!(output, Output::Message(Message::Summary(_)));
        if self.waiting.len() < OUTPUTS_KEPT_MAX || is_last_word {
            self.waiting.push_back(output);
        } else {
            self.missed += 1;
        }
    }

    fn end(&mut self) {
        if self.missed > 0 {
            let error = format!("{} more lines are left out: nobody read them in time", self.missed);
            self.waiting.push_back(Output::Message(Problem::new(error).into()));
        }
    }
}

impl Drop for Outputs {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn dropping_the_reader_stops_the_writer() {
        let all = CancellationToken::new();
        let (sink, outputs) = channel(all.clone());
        assert_eq!(sink.go_on(), Ok(()));
        drop(outputs);
        assert!(
            !all.is_cancelled(),
            "a command that ended was taken for one that was interrupted"
        );
        assert_eq!(sink.go_on(), Err(Closed));
        assert_eq!(sink.bytes(Bytes::from_static(b"x")).await, Err(Closed));
    }

    #[tokio::test]
    async fn a_decoupled_reader_that_stopped_or_left_holds_no_writer_up() {
        let problem = |number: usize| Problem::new(number.to_string());
        let count = OUTPUTS_KEPT_MAX + 1_000;
        let (sink, outputs) = channel(CancellationToken::new());
        let mut stopped = outputs.decoupled();
        for number in 0..count {
            sink.send(problem(number)).await.unwrap();
        }
        drop(sink);
        let mut read = Vec::new();
        while let Some(Output::Message(Message::Problem(problem))) = stopped.next().await {
            read.push(problem.error);
        }
        let last = read.pop().unwrap();
        let missed: usize = last.split(' ').next().unwrap().parse().unwrap();
        assert_eq!(read.len() + missed, count, "{last}");

        let (sink, outputs) = channel(CancellationToken::new());
        drop(outputs.decoupled());
        for number in 0..1_000 {
            sink.send(problem(number)).await.unwrap();
        }
        assert_eq!(sink.go_on(), Ok(()));
    }

    #[tokio::test]
    async fn a_thread_that_drives_futures_of_its_own_can_send_far_more_than_the_channel_holds() {
        let (sink, mut outputs) = channel(CancellationToken::new());
        let runtime = tokio::runtime::Handle::current();
        let sending = tokio::task::spawn_blocking(move || {
            runtime.block_on(async { (0..1000).try_for_each(|_| sink.bytes_blocking(Bytes::from_static(b"x"))) })
        });
        let mut count = 0;
        while outputs.next().await.is_some() {
            count += 1;
        }
        assert_eq!((sending.await.unwrap(), count), (Ok(()), 1000));
    }
}
