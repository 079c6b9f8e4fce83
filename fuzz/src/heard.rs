//! What a target answered to an input. An input that gets an answer that none before it got is worth changing further: that is all
//! the guidance there is without the compiler's help.

use std::collections::hash_map::DefaultHasher;
use std::fmt::Display;
use std::hash::{Hash, Hasher};

/// Letters of an error's text that tell it from others. Its numbers and names come from the input.
const LETTERS_MAX: usize = 60;

/// Answers to one input.
#[derive(Debug, Default)]
pub struct Heard(Vec<u64>);

impl Heard {
    /// Notes whether `what` was read, or why not; returns it.
    pub fn note<T, E: Display>(&mut self, what: &str, read: Result<T, E>) -> Option<T> {
        match read {
            Ok(value) => {
                self.say(what, "");
                Some(value)
            }
            Err(error) => {
                self.say(what, &letters(&error.to_string()));
                None
            }
        }
    }

    /// Notes whether there was any.
    pub fn some<T>(&mut self, what: &str, read: Option<T>) -> Option<T> {
        self.note(what, read.ok_or("none"))
    }

    /// Notes a number by its magnitude.
    pub fn count(&mut self, what: &str, count: usize) {
        let magnitude = count.checked_ilog2().map_or(0, |log| log + 1);
        self.say(what, &magnitude.to_string());
    }

    fn say(&mut self, what: &str, answer: &str) {
        let mut hasher = DefaultHasher::new();
        (what, answer).hash(&mut hasher);
        self.0.push(hasher.finish());
    }

    /// All answers.
    pub fn answers(&self) -> &[u64] {
        &self.0
    }
}

/// The letters of a text outside of quotes.
fn letters(text: &str) -> String {
    let outside = text.split('`').step_by(2).flat_map(str::chars);
    outside.filter(char::is_ascii_alphabetic).take(LETTERS_MAX).collect()
}
