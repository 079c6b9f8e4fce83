//! What an account says of itself, as a request carries it.

use data_encoding::BASE64;
use proto::wire::word::AccountWord;
use serde::{Deserialize, Serialize};

/// What an account says of itself, signed by its 24 words, which only the process heard where they were typed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Word {
    /// An encoded `AccountWord` (docs/protocol/roster.md), in Base64.
    pub word: String,
    /// Names of those whom a device had let in that is revoked by it, and who do not stay.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub put_out: Vec<String>,
    /// Ids (8 digits or more) of those whom such a device had removed, and who may come back; `all` of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub take_back: Vec<String>,
}

impl Word {
    /// As it is asked.
    pub fn of(word: &AccountWord) -> Self {
        Self::encoded(BASE64.encode(&word.encode()))
    }

    /// A word in Base64, of which everything is said again that devices had said.
    pub fn encoded(word: String) -> Self {
        Self {
            word,
            put_out: Vec::new(),
            take_back: Vec::new(),
        }
    }

    /// The word, if it is one.
    pub fn decoded(&self) -> Option<AccountWord> {
        let bytes = BASE64.decode(self.word.as_bytes()).ok()?;
        AccountWord::decode(&bytes).ok().filter(|word| word.check().is_ok())
    }
}
