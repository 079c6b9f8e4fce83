//! Redirects, among what the walk found: objects without files, in the same order.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::iter::Peekable;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use crate::walk::Found;

/// What was found, with redirects at their keys.
pub(crate) struct WithRedirects<I: Iterator<Item = Found>> {
    found: Peekable<I>,
    redirects: VecDeque<Vec<u8>>,
    /// Comes next: a redirect at the key of a file.
    double: Option<Found>,
}

impl<I: Iterator<Item = Found>> WithRedirects<I> {
    /// Both in the order of their keys.
    pub fn new(found: I, redirects: VecDeque<Vec<u8>>) -> Self {
        Self {
            found: found.peekable(),
            redirects,
            double: None,
        }
    }
}

impl<I: Iterator<Item = Found>> Iterator for WithRedirects<I> {
    type Item = Found;

    fn next(&mut self) -> Option<Found> {
        if self.double.is_some() {
            return self.double.take();
        }
        let found = self.found.peek().map(Found::key);
        let Some(key) = self
            .redirects
            .pop_front_if(|key| found.is_none_or(|found| key.as_slice() <= found))
        else {
            return self.found.next();
        };
        let at_same_key = self.found.next_if(|found| found.key() == key);
        match at_same_key {
            // Made for a folder without a page: a redirect is one.
            None | Some(Found::Made { .. }) => Some(Found::Made {
                key,
                contents: Vec::new(),
            }),
            Some(found) => {
                self.double = Some(Found::Broken {
                    path: PathBuf::from(OsString::from_vec(key.clone())),
                    key,
                    why: "a redirect, and a file or folder has the same key".to_owned(),
                });
                Some(found)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_stand_at_their_keys_and_files_win() {
        let made = |key: &[u8], contents: &[u8]| Found::Made {
            key: key.to_vec(),
            contents: contents.to_vec(),
        };
        let file = |key: &[u8]| Found::File {
            key: key.to_vec(),
            path: PathBuf::new(),
            stat: crate::stat::Stat::default(),
            mode: 0,
        };
        let found = [file(b"b"), file(b"c"), made(b"d/index.html", b"<p>")];
        let redirects = [&b"a"[..], b"c", b"d/index.html", b"z"].map(<[u8]>::to_vec);
        let all: Vec<_> = WithRedirects::new(found.into_iter(), redirects.into()).collect();
        assert_eq!(
            [&all[0], &all[4], &all[5]],
            [&made(b"a", b""), &made(b"d/index.html", b""), &made(b"z", b"")]
        );
        assert_eq!([&all[1], &all[2]], [&file(b"b"), &file(b"c")]);
        assert!(matches!(&all[3], Found::Broken { key, .. } if key == b"c"));
    }
}
