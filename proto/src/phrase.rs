//! The recovery phrase: 24 English BIP39 words that stand for the account's 256-bit seed.

use bip39::{Language, Mnemonic};
use zeroize::{ZeroizeOnDrop, Zeroizing};

/// Words of a phrase: 256 bits of seed and 8 bits of checksum, 11 bits a word (BIP39).
const WORDS: usize = 24;

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
    pub fn from_phrase(words: &str) -> Result<Self, PhraseError> {
        let lower = Zeroizing::new(words.to_lowercase());
        let words: Vec<&str> = lower
            .split_whitespace()
            .map(|word| word.trim_start_matches(|c: char| c.is_ascii_digit() || ".):".contains(c)))
            .filter(|word| !word.is_empty())
            .collect();
        if words.len() != WORDS {
            return Err(PhraseError::Count { count: words.len() });
        }
        if let Some(at) = words
            .iter()
            .position(|word| Language::English.find_word(word).is_none())
        {
            return Err(PhraseError::UnknownWord {
                position: at + 1,
                word: words[at].to_owned(),
            });
        }
        let joined = Zeroizing::new(words.join(" "));
        let mnemonic = Mnemonic::parse_in_normalized(Language::English, &joined).map_err(|_| PhraseError::Checksum)?;
        let entropy = Zeroizing::new(mnemonic.to_entropy_array().0);
        let mut seed = Self([0; 32]);
        seed.0.copy_from_slice(&entropy[..32]);
        Ok(seed)
    }

    /// The 24 words, separated by single spaces.
    pub fn to_phrase(&self) -> Zeroizing<String> {
        let mnemonic = Mnemonic::from_entropy(&self.0).expect("256 bits are a length that BIP39 knows");
        Zeroizing::new(mnemonic.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::{ProptestConfig, any, proptest};

    const ZERO: &str = "abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon \
                        abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon art";

    #[test]
    fn the_zero_seed_has_the_phrase_of_the_bip39_test_vectors() {
        assert_eq!(*Seed([0; 32]).to_phrase(), ZERO);
        assert!(Seed::from_phrase(ZERO).unwrap() == Seed([0; 32]));
    }

    #[test]
    fn numbers_capitals_and_line_breaks_do_not_matter() {
        let seed = Seed([7; 32]);
        let phrase = seed.to_phrase();
        for style in ["{n}. {w}\n", "{n}) {w}  ", "{n} {w}\r\n", "\t{n}.{w} "] {
            let typed: String = phrase
                .split(' ')
                .enumerate()
                .map(|(i, word)| {
                    style
                        .replace("{n}", &(i + 1).to_string())
                        .replace("{w}", &word.to_uppercase())
                })
                .collect();
            assert!(Seed::from_phrase(&typed).unwrap() == seed, "{typed}");
        }
    }

    #[test]
    fn errors_name_what_is_wrong_with_the_words() {
        assert_eq!(Seed::from_phrase("").err(), Some(PhraseError::Count { count: 0 }));
        assert_eq!(
            Seed::from_phrase("1. abandon").err(),
            Some(PhraseError::Count { count: 1 })
        );
        assert_eq!(
            Seed::from_phrase(&format!("{ZERO} art")).err(),
            Some(PhraseError::Count { count: 25 })
        );
        let wrong = PhraseError::UnknownWord {
            position: 24,
            word: "arts".to_owned(),
        };
        assert_eq!(Seed::from_phrase(&ZERO.replace(" art", " arts")).err(), Some(wrong));
        assert_eq!(
            Seed::from_phrase(&ZERO.replace(" art", " abandon")).err(),
            Some(PhraseError::Checksum)
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn every_seed_comes_back_from_its_phrase(seed: [u8; 32]) {
            let seed = Seed(seed);
            assert!(Seed::from_phrase(&seed.to_phrase()).unwrap() == seed);
        }

        #[test]
        fn arbitrary_text_is_an_error_not_a_panic(text in any::<String>()) {
            assert!(Seed::from_phrase(&text).is_err());
        }
    }
}
