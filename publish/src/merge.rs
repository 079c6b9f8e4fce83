//! Three streams sorted by key, walked side by side: the folder, the inventory, the listing.

use std::iter::Peekable;

/// Something with the key that its stream is sorted by.
pub(crate) trait Keyed {
    /// The key.
    fn key(&self) -> &[u8];
}

/// What the streams have of one key: at least one has something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Joined<A, B, C> {
    pub found: Option<A>,
    pub row: Option<B>,
    pub seen: Option<C>,
}

/// The three streams; only what is next of each is in memory. An error of any ends it.
pub(crate) struct Merge<A: Iterator, B: Iterator, C: Iterator> {
    found: Peekable<A>,
    rows: Peekable<B>,
    seen: Peekable<C>,
}

impl<A: Iterator, B: Iterator, C: Iterator> Merge<A, B, C> {
    /// Over streams in byte order of their keys; the folder's may have a key twice, then it comes twice.
    pub fn new(found: A, rows: B, seen: C) -> Self {
        Self {
            found: found.peekable(),
            rows: rows.peekable(),
            seen: seen.peekable(),
        }
    }
}

impl<A, B, C, I, J, K, E> Iterator for Merge<I, J, K>
where
    A: Keyed,
    B: Keyed,
    C: Keyed,
    I: Iterator<Item = A>,
    J: Iterator<Item = Result<B, E>>,
    K: Iterator<Item = Result<C, E>>,
{
    type Item = Result<Joined<A, B, C>, E>;

    fn next(&mut self) -> Option<Self::Item> {
        let row = match self.rows.peek() {
            Some(Ok(row)) => Some(row.key()),
            Some(Err(_)) => return self.rows.next().and_then(Result::err).map(Err),
            None => None,
        };
        let seen = match self.seen.peek() {
            Some(Ok(seen)) => Some(seen.key()),
            Some(Err(_)) => return self.seen.next().and_then(Result::err).map(Err),
            None => None,
        };
        let found = self.found.peek().map(Keyed::key);
        let least = [found, row, seen].into_iter().flatten().min()?.to_vec();
        let is_least = |key: &[u8]| key == least.as_slice();
        let found = self.found.next_if(|found| is_least(found.key()));
        let row = self
            .rows
            .next_if(|row| row.as_ref().is_ok_and(|row| is_least(row.key())));
        let seen = self
            .seen
            .next_if(|seen| seen.as_ref().is_ok_and(|seen| is_least(seen.key())));
        Some(Ok(Joined {
            found,
            row: row.and_then(Result::ok),
            seen: seen.and_then(Result::ok),
        }))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;

    impl Keyed for Vec<u8> {
        fn key(&self) -> &[u8] {
            self
        }
    }

    type Keys = BTreeSet<Vec<u8>>;

    fn keys() -> impl Strategy<Value = Keys> {
        prop::collection::btree_set(prop::collection::vec(b'a'..b'e', 0..3), 0..20)
    }

    proptest! {
        #[test]
        fn every_key_comes_once_in_order_with_all_that_have_it(found in keys(), rows in keys(), seen in keys()) {
            let ok = |set: &Keys| set.clone().into_iter().map(Ok::<_, ()>);
            let merged: Vec<_> = Merge::new(found.clone().into_iter(), ok(&rows), ok(&seen)).map(Result::unwrap).collect();
            let mut model: BTreeMap<&Vec<u8>, [bool; 3]> = BTreeMap::new();
            for (index, set) in [&found, &rows, &seen].into_iter().enumerate() {
                set.iter().for_each(|key| model.entry(key).or_default()[index] = true);
            }
            let expected: Vec<_> = model.into_iter().map(|(key, has)| {
                let part = |index: usize| has[index].then(|| key.clone());
                Joined { found: part(0), row: part(1), seen: part(2) }
            }).collect();
            prop_assert_eq!(merged, expected);
        }
    }

    #[test]
    fn an_error_of_a_stream_ends_the_merge() {
        let rows = vec![Ok(b"a".to_vec()), Err("disk")];
        let mut merge = Merge::new(
            std::iter::empty::<Vec<u8>>(),
            rows.into_iter(),
            std::iter::empty::<Result<Vec<u8>, _>>(),
        );
        assert!(merge.next().unwrap().is_ok());
        assert_eq!(merge.next().unwrap(), Err("disk"));
    }
}
