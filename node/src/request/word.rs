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
}

impl Word {
    /// As it is asked.
    pub fn of(word: &AccountWord) -> Self {
        Self {
            word: BASE64.encode(&word.encode()),
        }
    }

    /// The word, if it is one.
    pub fn decoded(&self) -> Option<AccountWord> {
        let bytes = BASE64.decode(self.word.as_bytes()).ok()?;
        AccountWord::decode(&bytes).ok().filter(|word| word.check().is_ok())
    }
}
