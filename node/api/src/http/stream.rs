//! Answers on the wire: server-sent events (`data:` a message a time, `event: exit` last) or JSON lines with the same last
//! object; and the client's reader of the former.

use bytes::{Bytes, BytesMut};
use serde::{Deserialize, Serialize};

use super::replay::Step;
use crate::failure::{Exit, Failure};
use crate::message::Message;
use crate::output::Output;

/// How messages are framed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `text/event-stream`.
    Events,
    /// `application/jsonl`.
    Lines,
}

/// The last object of an answer: `code`, and if it failed `error`, `hint`, `causes`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(untagged)]
enum Ending {
    Failed(Failure),
    Done { code: Exit },
}

/// Longest event that a client reads: an entry or problem with the longest paths is far smaller.
const EVENT_BYTES_MAX: usize = 1 << 20;

impl Format {
    /// The one that an `Accept` header asks for.
    pub fn of(accept: &str) -> Self {
        if accept.contains("text/event-stream") {
            Self::Events
        } else {
            Self::Lines
        }
    }

    /// Its media type.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Events => "text/event-stream",
            Self::Lines => "application/jsonl",
        }
    }

    /// One step, framed; content is passed on as it is.
    pub fn encode(self, step: Step) -> Result<Bytes, serde_json::Error> {
        let (event, json) = match step {
            Step::Output(Output::Bytes(bytes)) => return Ok(bytes),
            Step::Output(Output::Message(message)) => ("", serde_json::to_string(&message)?),
            Step::End(Ok(code)) => ("event: exit\n", serde_json::to_string(&Ending::Done { code })?),
            Step::End(Err(failure)) => ("event: exit\n", serde_json::to_string(&Ending::Failed(failure))?),
        };
        Ok(match self {
            Self::Events => format!("{event}data: {json}\n\n"),
            Self::Lines => format!("{json}\n"),
        }
        .into())
    }
}

/// Reads events from pieces of a stream as they come.
#[derive(Debug, Default)]
pub struct EventReader {
    buffer: BytesMut,
}

impl EventReader {
    /// Adds what came.
    pub fn push(&mut self, piece: &[u8]) {
        self.buffer.extend_from_slice(piece);
    }

    /// The next step, if all of it is here. What is not an event of ours is an error.
    pub fn next(&mut self) -> Result<Option<Step>, String> {
        let Some(end) = self.buffer.windows(2).position(|pair| pair == b"\n\n") else {
            return if self.buffer.len() > EVENT_BYTES_MAX {
                Err("an event has no end".to_owned())
            } else {
                Ok(None)
            };
        };
        let event = self.buffer.split_to(end + 2);
        let text = std::str::from_utf8(&event).map_err(|error| error.to_string())?;
        let mut name = "message";
        let mut json = String::new();
        for line in text.lines() {
            match line.split_once(": ") {
                Some(("event", value)) => name = value,
                Some(("data", value)) => json.push_str(value),
                _ => {}
            }
        }
        let step = match name {
            "exit" => match serde_json::from_str(&json).map_err(|error| error.to_string())? {
                Ending::Done { code } => Step::End(Ok(code)),
                Ending::Failed(failure) => Step::End(Err(failure)),
            },
            _ => Step::Output(Output::Message(
                serde_json::from_str::<Message>(&json).map_err(|error| error.to_string())?,
            )),
        };
        Ok(Some(step))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Rule;

    #[test]
    fn steps_survive_any_cut_of_the_stream() {
        let steps = [
            Step::Output(Output::Message(Message::Rule(Rule {
                pattern: "a\nb: \u{2028}".into(),
            }))),
            Step::End(Err(Failure::new(Exit::TooFewShares, "No").hint("wait"))),
            Step::End(Ok(Exit::UnderProtected)),
        ];
        let wire: Vec<u8> = steps
            .iter()
            .flat_map(|step| Format::Events.encode(step.clone()).unwrap())
            .collect();
        for cut in 1..wire.len() {
            let mut reader = EventReader::default();
            let mut read = Vec::new();
            for piece in wire.chunks(cut) {
                reader.push(piece);
                while let Some(step) = reader.next().unwrap() {
                    read.push(step);
                }
            }
            assert_eq!(read, steps);
        }
    }

    #[test]
    fn an_endless_event_is_refused() {
        let mut reader = EventReader::default();
        reader.push(&vec![b'x'; EVENT_BYTES_MAX + 1]);
        assert!(reader.next().is_err());
    }
}
