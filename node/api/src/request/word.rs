//! What an account says of itself, as a request carries it.

use data_encoding::BASE64;
use proto::wire::word::AccountWord;

use super::field::asked;

asked! {
    /// What an account says of itself, signed by its 24 words, which only the process heard where they were typed.
    pub struct Word {
        /// An encoded `AccountWord` (docs/protocol/roster.md), in Base64.
        pub word: String,
        /// Accounts whom devices had let in that are revoked by it, and by whom it does not stand.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        pub put_out: Vec<String>,
        /// Accounts that are removed, and may come back.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        pub take_back: Vec<String>,
        /// Said though no friend answers.
        #[serde(default)]
        pub unheard: bool,
    }
}

impl Word {
    /// As it is asked.
    pub fn of(word: &AccountWord) -> Self {
        Self::encoded(BASE64.encode(&word.encode()))
    }

    /// A word in Base64.
    pub fn encoded(word: String) -> Self {
        Self {
            word,
            put_out: Vec::new(),
            take_back: Vec::new(),
            unheard: false,
        }
    }

    /// The word, if it is one.
    pub fn decoded(&self) -> Option<AccountWord> {
        let bytes = BASE64.decode(self.word.as_bytes()).ok()?;
        AccountWord::decode(&bytes).ok().filter(|word| word.check().is_ok())
    }
}
