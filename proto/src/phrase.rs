//! The recovery phrase: 24 English BIP39 words that stand for the account's 256-bit seed.

use zeroize::ZeroizeOnDrop;

/// The account's seed.
#[derive(Clone, PartialEq, Eq, ZeroizeOnDrop)]
pub struct Seed(pub [u8; 32]);

/// Words that are no recovery phrase.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
pub enum PhraseError {
    /// Not 24 words.
    #[error("A recovery phrase has 24 words, this one has {count}")]
    Count {
        /// Words found.
        count: usize,
    },
    /// A word that is not in the list.
    #[error("Word {position} of the recovery phrase, `{word}`, is not in the word list")]
    UnknownWord {
        /// From 1.
        position: usize,
        /// As typed.
        word: String,
    },
    /// All words exist but do not belong together.
    #[error("The recovery phrase has a wrong or swapped word: its checksum does not match")]
    Checksum,
}

impl Seed {
    /// Parses 24 words in any case, separated by any white space; numbers before words ("1. abandon") are skipped.
    pub fn from_phrase(_words: &str) -> Result<Self, PhraseError> {
        todo!()
    }
    /// The 24 words, separated by single spaces.
    pub fn to_phrase(&self) -> zeroize::Zeroizing<String> {
        todo!()
    }
}
