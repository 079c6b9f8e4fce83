//! The 24 words, read from where the user has them.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use api::failure::{Exit, Failure};
use proto::phrase::{PhraseError, Seed};
use zeroize::Zeroizing;

/// Far above 24 words with numbers and line breaks.
const PHRASE_BYTES_MAX: u64 = 4096;

/// The seed of the words in a file; `-`: on stdin.
pub fn read_phrase(file: &Path) -> Result<Seed, Failure> {
    let mut words = Zeroizing::new(String::new());
    let read = if file == Path::new("-") {
        std::io::stdin().take(PHRASE_BYTES_MAX).read_to_string(&mut words)
    } else {
        File::open(file).and_then(|file| file.take(PHRASE_BYTES_MAX).read_to_string(&mut words))
    };
    read.map_err(|error| Failure::context(format!("`{}` cannot be read: {error}", file.display()), &error))?;
    Seed::from_phrase(&words).map_err(|error| {
        let hint = match error {
            PhraseError::Count { .. } => "write all 24 words, separated by spaces",
            PhraseError::UnknownWord { .. } | PhraseError::Checksum => "compare each word with what you wrote down",
        };
        Failure::from_error(&error).exit(Exit::WrongPhrase).hint(hint)
    })
}
