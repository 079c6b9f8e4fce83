//! The first frames of a stream: who is there, and whether it may go on.

use std::time::Duration;

use bytes::Bytes;
use futures::io::{AsyncRead, AsyncWrite};
use proto::id::{AccountId, DeviceId};
use proto::keys::DeviceCert;
use proto::wire::VERSION;
use proto::wire::greeting::{Greeting, Refusal};
use proto::wire::word::AccountWord;

use super::frames;
use super::frames::ReadError;
use crate::roster::Roster;

/// How long the other side may take for its first words.
pub const GREETING_TIME: Duration = Duration::from_secs(10);

/// A greeting that led to nothing.
#[derive(Debug, thiserror::Error)]
pub enum GreetError {
    /// The other side does not want to talk to us.
    #[error("Refused: {text}")]
    Refused {
        /// What to act on.
        refusal: Refusal,
        /// For people.
        text: String,
        /// What some account says of itself that explains it.
        word: Option<Box<AccountWord>>,
    },
    /// The certificate is damaged or belongs to another device.
    #[error("The other side's certificate is not its own")]
    Certificate,
    /// The stream ended without a word: try again.
    #[error("The stream was dropped: {reason}")]
    Dropped {
        /// What the transport said.
        reason: String,
    },
    /// The other side broke the protocol.
    #[error("The other side does not speak this protocol: {reason}")]
    Protocol { reason: String },
}

impl From<ReadError> for GreetError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Io(error) => error.into(),
            ReadError::Frame(error) => Self::Protocol {
                reason: error.to_string(),
            },
        }
    }
}

impl From<std::io::Error> for GreetError {
    fn from(error: std::io::Error) -> Self {
        Self::Dropped {
            reason: error.to_string(),
        }
    }
}

/// Who said hello.
#[derive(Clone, Debug)]
pub struct Caller {
    /// Its certificate, which the connection proves.
    pub cert: DeviceCert,
    /// Whose shares it asks for.
    pub owner: AccountId,
}

/// Reads the answer to our hello: the certificate of `device`, or why not.
pub async fn read_welcome<R: AsyncRead + Unpin>(stream: &mut R, device: DeviceId) -> Result<DeviceCert, GreetError> {
    let (greeting, payload) = read_greeting(stream).await?;
    match greeting {
        Greeting::Welcome { cert, .. } => {
            let cert = DeviceCert::decode(&cert).map_err(|_| GreetError::Certificate)?;
            if cert.device == device {
                Ok(cert)
            } else {
                Err(GreetError::Certificate)
            }
        }
        Greeting::Refused { refusal, text } => Err(GreetError::Refused {
            refusal,
            text,
            word: AccountWord::decode(&payload).ok().map(Box::new),
        }),
        Greeting::Hello { .. } => Err(GreetError::Protocol {
            reason: "a hello answered a hello".into(),
        }),
    }
}

/// Reads the hello of the device at the other end. Membership is not looked at.
pub async fn read_hello<R: AsyncRead + Unpin>(stream: &mut R, device: DeviceId) -> Result<Caller, Refusal> {
    let (greeting, _) = read_greeting(stream).await.map_err(|_| Refusal::Malformed)?;
    let Greeting::Hello { version, cert, owner } = greeting else {
        return Err(Refusal::Malformed);
    };
    if version != VERSION {
        return Err(Refusal::Version);
    }
    let cert = DeviceCert::decode(&cert).map_err(|_| Refusal::Certificate)?;
    if cert.device != device {
        return Err(Refusal::Certificate);
    }
    let owner = owner.unwrap_or(cert.account);
    Ok(Caller { cert, owner })
}

/// Why whoever shows this certificate is not served, if it is no member's that counts.
pub fn outside(roster: &Roster, cert: &DeviceCert) -> Refusal {
    match roster.is_in_force(cert) {
        false => Refusal::Revoked,
        true if roster.has_left(cert.account) => Refusal::HasLeft,
        true => Refusal::Stranger,
    }
}

/// Says no, with the word that explains it. Whether it arrives is not our concern.
pub async fn refuse<W: AsyncWrite + Unpin>(stream: &mut W, refusal: Refusal, word: Option<&AccountWord>) {
    let greeting = Greeting::Refused {
        refusal,
        text: text(refusal).to_owned(),
    };
    let payload = word.map_or_else(Bytes::new, |word| Vec::from(word.encode()).into());
    let _ = tokio::time::timeout(GREETING_TIME, frames::say(stream, &greeting, payload)).await;
}

async fn read_greeting<R: AsyncRead + Unpin>(stream: &mut R) -> Result<(Greeting, Bytes), GreetError> {
    match tokio::time::timeout(GREETING_TIME, frames::read(stream)).await {
        Err(_) => Err(GreetError::Protocol {
            reason: "no greeting in time".into(),
        }),
        Ok(Ok(Some(greeting))) => Ok(greeting),
        Ok(Ok(None)) => Err(GreetError::Dropped {
            reason: "it ended without a greeting".into(),
        }),
        Ok(Err(error)) => Err(error.into()),
    }
}

fn text(refusal: Refusal) -> &'static str {
    match refusal {
        Refusal::Stranger => "The account is no member of this grid: join it with a ticket",
        Refusal::Certificate => "The device certificate is damaged or another device's",
        Refusal::Version => "This version of the protocol is not spoken here: update gridbackup on both sides",
        Refusal::Busy => "Too many streams at once: try again later",
        Refusal::TicketUnknown => "The inviter does not know this ticket",
        Refusal::TicketExpired => "The ticket has expired: ask for a new one",
        Refusal::TicketUsed => "Somebody else has used this ticket: ask for a new one",
        Refusal::CannotAdmit => "The inviter cannot admit members now",
        Refusal::HasLeft => "This account has left that grid",
        Refusal::KeptOut => "Others have removed this account, too: tickets of those who did bring it back",
        Refusal::Revoked => "The account has revoked this machine: nothing that it signs counts any more",
        Refusal::GridFull => "The grid is full: it has 32 members, with those removed, and no grid has more",
        Refusal::Malformed => "What was said is no message of this protocol",
    }
}
