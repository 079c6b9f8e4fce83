//! The handshake as it goes over a connection: options are read, answered, and at last an export is entered.
//!
//! Holds the limits on what a client may send before it has chosen: bytes of an option, options, and (by its caller) time.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::nbd::exports::{Export, Exports};
use crate::nbd::negotiation::{Negotiation, Next, greeting};
use crate::nbd::option::{Ask, OPTION_BYTES_MAX, Unreadable};
use crate::nbd::request::Terms;
use crate::nbd::sessions::{Admission, Session};
use crate::nbd::wire::{Fields, IHAVEOPT};

/// Most options of a client. Chosen: two hundred exports looked at with five options each, and far below what keeps a server busy.
const OPTIONS_MAX: u32 = 1000;
/// Longest option that is passed over with an error; a longer one ends the connection.
const PASSED_BYTES_MAX: u32 = 1 << 20;
/// Bytes of an option without its payload: magic, option, length.
const OPTION_HEAD_BYTES: usize = 16;

/// A client that was let in.
pub struct Entered {
    /// The export.
    pub export: Export,
    /// What was agreed on.
    pub terms: Terms,
    /// The client's place in it.
    pub session: Session,
}

/// Both ways of a connection in its handshake.
pub struct Handshake<'a, R: ?Sized, W: ?Sized> {
    /// From the client.
    pub reader: &'a mut R,
    /// To the client.
    pub writer: &'a mut W,
}

impl<R: AsyncRead + Unpin + ?Sized, W: AsyncWrite + Unpin + ?Sized> Handshake<'_, R, W> {
    /// Runs it; `None` if it ends without an export. When dropped, the connection has to be closed.
    pub async fn run(mut self, exports: &dyn Exports, admission: &Admission<'_>) -> io::Result<Option<Entered>> {
        self.writer.write_all(&greeting()).await?;
        let Some(mut negotiation) = Negotiation::new(self.reader.read_u32().await?) else {
            return Ok(None);
        };
        let mut out = Vec::new();
        for _ in 0..OPTIONS_MAX {
            let Some((option, ask)) = self.option().await? else {
                return Ok(None);
            };
            out.clear();
            if admission.is_stopping() {
                negotiation.shut_down(option, &mut out);
                self.writer.write_all(&out).await?;
                return Ok(None);
            }
            let mut next = negotiation.answer(option, ask, exports, &mut out);
            if let Next::Enter(choice) = next {
                match admission.admit(&choice.export).await {
                    Ok(session) => {
                        let terms = negotiation.enter(&choice, &mut out);
                        self.writer.write_all(&out).await?;
                        let export = choice.export;
                        return Ok(Some(Entered { export, terms, session }));
                    }
                    Err(refused) => next = negotiation.refuse(&choice, &refused.to_string(), &mut out),
                }
            }
            self.writer.write_all(&out).await?;
            if matches!(next, Next::End) {
                return Ok(None);
            }
        }
        Ok(None)
    }

    /// The next option; `None` if what comes is none, or too long to be passed over.
    async fn option(&mut self) -> io::Result<Option<(u32, Result<Ask, Unreadable>)>> {
        let mut head = [0; OPTION_HEAD_BYTES];
        self.reader.read_exact(&mut head).await?;
        let mut fields = Fields(&head);
        let (Some(IHAVEOPT), Some(option), Some(length)) = (fields.u64(), fields.u32(), fields.u32()) else {
            return Ok(None);
        };
        if length as usize <= OPTION_BYTES_MAX {
            let mut payload = vec![0; length as usize];
            self.reader.read_exact(&mut payload).await?;
            return Ok(Some((option, Ask::read(option, &payload))));
        }
        if length > PASSED_BYTES_MAX {
            return Ok(None);
        }
        let mut rest = (&mut *self.reader).take(u64::from(length));
        let passed = tokio::io::copy(&mut rest, &mut tokio::io::sink()).await?;
        let is_whole = passed == u64::from(length);
        Ok(is_whole.then_some((option, Err(Unreadable::TooBig))))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::nbd::exports::FixedExports;
    use crate::nbd::sessions::{Client, Sessions, Writers};
    use crate::testing::MemoryDevice;

    /// How many bytes are answered; whether an export is entered.
    fn run(bytes: &[u8]) -> (usize, bool) {
        let device = Arc::new(MemoryDevice::new(4096));
        let (name, description) = ("disk".to_owned(), String::new());
        let exports = FixedExports(vec![Export {
            name,
            description,
            device,
        }]);
        let admission = Admission {
            sessions: &Arc::new(Sessions::new(Writers::OneClient)),
            client: Client::Process(1),
            line: None,
            stop: &CancellationToken::new(),
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .expect("a runtime without drivers");
        let (mut reader, mut writer) = (bytes, Vec::new());
        let handshake = Handshake {
            reader: &mut reader,
            writer: &mut writer,
        };
        let entered = runtime.block_on(handshake.run(&exports, &admission));
        let is_in = matches!(entered, Ok(Some(_)));
        (writer.len(), is_in)
    }

    fn option(option: u32, length: u32, payload: &[u8]) -> Vec<u8> {
        [b"IHAVEOPT", &option.to_be_bytes()[..], &length.to_be_bytes(), payload].concat()
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic_or_talk_much(
            flags in 0u32..5,
            options in prop::collection::vec((0u32..13, any::<bool>(), prop::collection::vec(any::<u8>(), 0..60)), 0..20),
            rest in prop::collection::vec(any::<u8>(), 0..60),
        ) {
            let mut bytes = flags.to_be_bytes().to_vec();
            for (kind, lies, payload) in &options {
                // A name of four bytes at most gets further than most random ones.
                let named: Vec<u8> = [&[0, 0, 0, 4], b"disk", payload.as_slice()].concat();
                let length = named.len() as u32 + u32::from(*lies);
                bytes.extend(option(*kind, length, &named));
            }
            bytes.extend(rest);
            let (answered, _) = run(&bytes);
            prop_assert!(answered < 200 + bytes.len() * 20, "{} bytes for {}", answered, bytes.len());
        }
    }

    #[test]
    fn what_the_property_says_enters_when_it_is_right() {
        let go = option(7, 10, b"\0\0\0\x04disk\0\0");
        assert!(run(&[&[0, 0, 0, 3], &go[..]].concat()).1);
        assert!(!run(&[&[0, 0, 0, 3], &go[..go.len() - 1]].concat()).1);
    }
}
