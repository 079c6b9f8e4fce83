//! Says what is found in a transaction without ever waiting for whoever reads it: a reader who stands still would keep the transaction open,
//! and with it everything that is written meanwhile in the log beside the database.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Seek, Write};

use tokio::sync::mpsc::error::TrySendError;

use super::{Closed, Output, Sink};
use crate::failure::Failure;
use crate::message::Message;

/// Messages that wait in memory; more of them wait in a file without a name. Chosen: some megabytes with the longest paths in use.
const WAITING_MAX: usize = 10_000;

/// What is said now and read whenever.
pub struct Unwaiting<'a> {
    sink: &'a Sink,
    waiting: VecDeque<Message>,
    /// What came after those that wait, a line each.
    file: Option<BufWriter<File>>,
}

impl<'a> Unwaiting<'a> {
    /// To this sink.
    pub fn new(sink: &'a Sink) -> Self {
        Self {
            sink,
            waiting: VecDeque::new(),
            file: None,
        }
    }

    /// Says a message; fails if nobody reads any more.
    pub fn say(&mut self, message: impl Into<Message>) -> Result<(), Failure> {
        self.sink.go_on()?;
        let message = message.into();
        if self.waiting.is_empty() && self.file.is_none() {
            return match self.sink.outputs.try_send(Output::Message(message)) {
                Ok(()) => Ok(()),
                Err(TrySendError::Full(Output::Message(message))) => self.keep(message),
                Err(TrySendError::Full(Output::Bytes(_)) | TrySendError::Closed(_)) => Err(Closed.into()),
            };
        }
        self.keep(message)
    }

    fn keep(&mut self, message: Message) -> Result<(), Failure> {
        if self.waiting.len() < WAITING_MAX && self.file.is_none() {
            self.waiting.push_back(message);
            return Ok(());
        }
        self.write(&message).map_err(|error| not_kept(&error))
    }

    fn write(&mut self, message: &Message) -> io::Result<()> {
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(BufWriter::new(tempfile::tempfile()?)),
        };
        serde_json::to_writer(&mut *file, message)?;
        file.write_all(b"\n")
    }

    /// Says the rest, waiting for whoever reads: nothing is held up by that any more. Blocking.
    pub fn finish(self) -> Result<(), Failure> {
        for message in self.waiting {
            self.sink.send_blocking(message)?;
        }
        let Some(file) = self.file else { return Ok(()) };
        let mut file = file.into_inner().map_err(|error| not_kept(error.error()))?;
        file.rewind().map_err(|error| not_kept(&error))?;
        for line in BufReader::new(file).lines() {
            let line = line.map_err(|error| not_kept(&error))?;
            let message: Message = serde_json::from_str(&line).map_err(|error| not_kept(&error.into()))?;
            self.sink.send_blocking(message)?;
        }
        Ok(())
    }
}

fn not_kept(error: &io::Error) -> Failure {
    Failure::context(
        format!("What is to be read cannot be kept in the temporary folder: {error}"),
        error,
    )
    .hint("make room there, or name another with TMPDIR")
}

#[cfg(test)]
mod tests {
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::message::Problem;
    use crate::output::channel;

    /// Three readers who stood still made the log beside the catalog grow with every backup.
    #[tokio::test]
    async fn whoever_does_not_read_holds_nothing_up_and_misses_nothing() {
        let (sink, mut outputs) = channel(CancellationToken::new());
        let count = WAITING_MAX + 5_000;
        let (all_said, is_said) = tokio::sync::oneshot::channel();
        let saying = tokio::task::spawn_blocking(move || {
            let mut said = Unwaiting::new(&sink);
            (0..count).try_for_each(|number| said.say(Problem::new(number.to_string())))?;
            let _reader_is_there = all_said.send(());
            said.finish()
        });
        is_said.await.unwrap();
        for number in 0..count {
            let Some(Output::Message(Message::Problem(problem))) = outputs.next().await else {
                panic!("{number} is missing")
            };
            assert_eq!(problem.error, number.to_string());
        }
        assert_eq!(outputs.next().await, None);
        saying.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn whoever_left_is_said_nothing_more() {
        let (sink, outputs) = channel(CancellationToken::new());
        let mut said = Unwaiting::new(&sink);
        said.say(Problem::new("1")).unwrap();
        drop(outputs);
        assert!(said.say(Problem::new("2")).is_err());
    }
}
