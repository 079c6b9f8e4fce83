//! How a command ends: its exit code, and what a person is told when it fails. Codes are a contract with scripts.

use std::fmt;

use database::DbError;
use serde::{Deserialize, Serialize};

use crate::named::named;

/// Exit codes. Numbers are for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "u8", try_from = "u8")]
#[repr(u8)]
pub enum Exit {
    /// Done.
    Done = 0,
    /// Failed.
    Failed = 1,
    /// The command line is wrong.
    Usage = 2,
    /// Done, but some source files could not be read.
    SourceUnreadable = 3,
    /// Done, but something is on fewer peers than the policy asks for.
    UnderProtected = 4,
    /// No account in this home.
    NoAccount = 10,
    /// Another process holds this home.
    HomeBusy = 11,
    /// Wrong recovery phrase or key.
    WrongPhrase = 12,
    /// Not enough shares reachable to read what was asked.
    TooFewShares = 13,
    /// Interrupted; the next run goes on where this one stopped.
    Interrupted = 130,
}

impl Exit {
    /// Every code.
    pub const ALL: [Self; 10] = [
        Self::Done,
        Self::Failed,
        Self::Usage,
        Self::SourceUnreadable,
        Self::UnderProtected,
        Self::NoAccount,
        Self::HomeBusy,
        Self::WrongPhrase,
        Self::TooFewShares,
        Self::Interrupted,
    ];

    /// The number that the process exits with.
    pub fn code(self) -> u8 {
        self as u8
    }
}

impl From<Exit> for u8 {
    fn from(exit: Exit) -> Self {
        exit.code()
    }
}

impl TryFrom<u8> for Exit {
    type Error = String;

    fn try_from(code: u8) -> Result<Self, Self::Error> {
        Self::ALL
            .into_iter()
            .find(|exit| exit.code() == code)
            .ok_or_else(|| format!("Exit code {code} is not known"))
    }
}

named! {
    /// What kind of failure it is, beyond its exit code: what a program may do about it.
    #[derive(Default)]
    pub enum Kind {
        /// None of the others.
        #[default]
        Plain = "failed",
        /// What was named is not there.
        NotFound = "not-found",
        /// It contradicts what is there.
        Conflict = "conflict",
        /// Later it may go: too many are at it.
        TooMany = "too-many",
        /// The way of asking is not one of those offered.
        WrongMethod = "wrong-method",
        /// No form of the answer that would be accepted can be given.
        NotAcceptable = "not-acceptable",
        /// The body is of a type that is not read.
        WrongType = "wrong-type",
        /// More was sent than is read.
        TooLarge = "too-large",
        /// The address is longer than is read.
        TooLong = "too-long",
    }
}

impl Kind {
    fn is_plain(&self) -> bool {
        *self == Self::Plain
    }
}

/// A command that failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// What the process exits with.
    #[serde(rename = "code")]
    pub exit: Exit,
    /// What failed, and on what: one line, capital letter, no full stop.
    pub error: String,
    /// What to do about it.
    #[serde(default)]
    pub hint: Option<String>,
    /// Why, the outermost cause first; shown with `-v`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub causes: Vec<String>,
    /// Its kind, if it is a particular one.
    #[serde(default, skip_serializing_if = "Kind::is_plain")]
    pub kind: Kind,
}

impl Failure {
    /// A failure without a hint.
    pub fn new(exit: Exit, error: impl Into<String>) -> Self {
        Self {
            exit,
            error: error.into(),
            hint: None,
            causes: Vec::new(),
            kind: Kind::Plain,
        }
    }

    /// A plain failure (exit 1) whose message is the error's own, with its sources as causes.
    pub fn from_error(error: &(dyn std::error::Error + 'static)) -> Self {
        let mut failure = Self::new(Exit::Failed, error.to_string());
        failure.causes = chain(error.source());
        failure
    }

    /// The same, but named by what was being done; the error itself is the first cause.
    pub fn context(error: impl Into<String>, cause: &(dyn std::error::Error + 'static)) -> Self {
        let mut failure = Self::new(Exit::Failed, error);
        failure.causes = chain(Some(cause));
        failure
    }

    /// The same failure with advice.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The same failure, of this kind.
    pub fn kind(mut self, kind: Kind) -> Self {
        self.kind = kind;
        self
    }

    /// The same failure with another exit code.
    pub fn exit(mut self, exit: Exit) -> Self {
        self.exit = exit;
        self
    }

    /// Stopped by the user or because nobody listens any more.
    pub fn interrupted() -> Self {
        Self::new(Exit::Interrupted, "Interrupted").hint("run the command again: it goes on where this one stopped")
    }
}

fn chain(first: Option<&(dyn std::error::Error + 'static)>) -> Vec<String> {
    std::iter::successors(first, |error| error.source())
        .map(ToString::to_string)
        .collect()
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.error)?;
        match &self.hint {
            Some(hint) => write!(f, "; {hint}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Failure {}

impl From<DbError> for Failure {
    fn from(error: DbError) -> Self {
        let failure = Self::from_error(&error);
        match error {
            DbError::Missing { .. } => failure.hint("`gridbackup recover` rebuilds it from what peers hold"),
            _ => failure,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_exit_code_survives_its_number() {
        for exit in Exit::ALL {
            assert_eq!(Exit::try_from(exit.code()), Ok(exit));
        }
        assert!(Exit::try_from(99).is_err());
    }

    #[test]
    fn an_error_becomes_one_line_and_its_sources_the_causes() {
        let inner = std::io::Error::other("disk on fire");
        let failure = Failure::context("`/x` cannot be read", &inner).hint("buy a new one");
        assert_eq!(failure.to_string(), "`/x` cannot be read; buy a new one");
        assert_eq!(failure.causes, ["disk on fire"]);
        let json = serde_json::to_value(&failure).unwrap();
        assert_eq!(json["code"], 1);
    }
}
