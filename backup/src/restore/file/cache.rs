//! What was opened lately, by what it is: bounded in bytes, and loaded once however many ask for it at the same time.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use proto::id::ChunkId;
use tokio::runtime::Handle;
use upload_queue::packs::PackRow;

use crate::catalog::content::SectionRow;
use crate::restore::RestoreError;
use crate::restore::sections::Inlines;

/// Bytes that an entry costs beside what it holds. Chosen: two maps' slots, rounded up.
const ENTRY_BYTES: usize = 256;

/// Why something could not be loaded: everybody who waited for it is told.
pub type Failed = Arc<RestoreError>;

/// Names of what is remembered.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Key {
    /// An index section's inline contents.
    Section(SectionRow),
    /// A segment of a pack, opened: small files lie side by side in it.
    Segment(PackRow, u32),
    /// A chunk's plaintext.
    Chunk(ChunkId),
}

/// What is remembered.
#[derive(Clone)]
pub(super) enum Value {
    Bytes(Bytes),
    Section(Arc<Inlines>),
}

impl Value {
    fn cost(&self) -> usize {
        let held = match self {
            Self::Bytes(bytes) => bytes.len(),
            Self::Section(inlines) => inlines.values().map(|content| content.len() + ENTRY_BYTES).sum(),
        };
        held + ENTRY_BYTES
    }
}

type Loading = Shared<BoxFuture<'static, Result<Arc<Vec<Value>>, Failed>>>;

/// The cache; clones share it.
#[derive(Clone)]
pub(super) struct Cache(Arc<Inner>);

struct Inner {
    state: Mutex<State>,
    bytes_max: usize,
    runtime: Handle,
}

#[derive(Default)]
struct State {
    ready: HashMap<Key, Ready>,
    /// Keys by their last use, the longest ago first.
    by_use: BTreeMap<u64, Key>,
    uses: u64,
    bytes: usize,
    /// Each key with its place among the values that are being loaded with it.
    loading: HashMap<Key, (Loading, usize)>,
}

struct Ready {
    value: Value,
    used: u64,
}

/// Where a value will come from.
enum Found {
    Here(Value),
    Coming(Loading, usize),
}

impl Cache {
    pub(super) fn new(bytes_max: usize, runtime: Handle) -> Self {
        Self(Arc::new(Inner {
            state: Mutex::default(),
            bytes_max,
            runtime,
        }))
    }

    /// Whether `key` is there, or on its way.
    pub(super) fn has(&self, key: &Key) -> bool {
        let state = self.lock();
        state.ready.contains_key(key) || state.loading.contains_key(key)
    }

    /// The values of `keys`. What is neither here nor on its way is loaded by one call of `load`, which gives a value for
    /// each key it is asked for; it goes on if this future is dropped, since others may wait for it.
    pub(super) async fn get<F>(&self, keys: &[Key], load: impl FnOnce(Vec<Key>) -> F) -> Result<Vec<Value>, Failed>
    where
        F: Future<Output = Result<Vec<Value>, Failed>> + Send + 'static,
    {
        let found = self.find(keys, load);
        let mut values = Vec::with_capacity(found.len());
        for found in found {
            values.push(match found {
                Found::Here(value) => value,
                Found::Coming(loading, index) => loading.await?[index].clone(),
            });
        }
        Ok(values)
    }

    fn find<F>(&self, keys: &[Key], load: impl FnOnce(Vec<Key>) -> F) -> Vec<Found>
    where
        F: Future<Output = Result<Vec<Value>, Failed>> + Send + 'static,
    {
        let mut state = self.lock();
        let missing: Vec<Key> = keys
            .iter()
            .filter(|key| !state.ready.contains_key(key) && !state.loading.contains_key(key))
            .copied()
            .collect();
        if !missing.is_empty() {
            // The task cannot settle before the lock is given back.
            let loading = self.start(missing.clone(), load(missing.clone()));
            for (index, key) in missing.into_iter().enumerate() {
                state.loading.insert(key, (loading.clone(), index));
            }
        }
        keys.iter()
            .map(|key| match state.loading.get(key) {
                Some((loading, index)) => Found::Coming(loading.clone(), *index),
                None => Found::Here(state.touch(key)),
            })
            .collect()
    }

    fn start<F>(&self, keys: Vec<Key>, load: F) -> Loading
    where
        F: Future<Output = Result<Vec<Value>, Failed>> + Send + 'static,
    {
        let cache = self.clone();
        let task = self.0.runtime.spawn(async move {
            // A load that panics must not leave its keys behind as loading for ever.
            let mut guard = Settling {
                cache,
                keys,
                loaded: None,
            };
            let loaded = load.await.map(Arc::new);
            guard.loaded = loaded.as_ref().ok().cloned();
            loaded
        });
        async move { task.await.unwrap_or_else(|_| Err(Arc::new(RestoreError::Stopped))) }
            .boxed()
            .shared()
    }

    /// Gives up what will not be asked for again.
    pub(super) fn drop_keys(&self, keys: impl Iterator<Item = Key>) {
        let mut state = self.lock();
        for key in keys {
            state.remove(&key);
        }
    }

    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        self.lock().bytes
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().expect("no panic while the cache is locked")
    }
}

/// Puts what was loaded where it is looked for, or takes the promise back.
struct Settling {
    cache: Cache,
    keys: Vec<Key>,
    loaded: Option<Arc<Vec<Value>>>,
}

impl Drop for Settling {
    fn drop(&mut self) {
        let mut state = self.cache.lock();
        for (index, key) in self.keys.iter().enumerate() {
            state.loading.remove(key);
            if let Some(value) = self.loaded.as_ref().and_then(|loaded| loaded.get(index)) {
                state.insert(*key, value.clone());
            }
        }
        state.shrink(self.cache.0.bytes_max);
    }
}

impl State {
    fn touch(&mut self, key: &Key) -> Value {
        self.uses += 1;
        let uses = self.uses;
        let ready = self.ready.get_mut(key).expect("a key that is not loading is ready");
        self.by_use.remove(&ready.used);
        ready.used = uses;
        self.by_use.insert(uses, *key);
        ready.value.clone()
    }

    fn insert(&mut self, key: Key, value: Value) {
        self.remove(&key);
        self.uses += 1;
        self.bytes += value.cost();
        self.by_use.insert(self.uses, key);
        let used = self.uses;
        self.ready.insert(key, Ready { value, used });
    }

    fn remove(&mut self, key: &Key) {
        if let Some(ready) = self.ready.remove(key) {
            self.by_use.remove(&ready.used);
            self.bytes -= ready.value.cost();
        }
    }

    fn shrink(&mut self, bytes_max: usize) {
        while self.bytes > bytes_max
            && let Some((_, key)) = self.by_use.pop_first()
        {
            self.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn segment(number: u32) -> Key {
        Key::Segment(PackRow(1), number)
    }

    fn filled(keys: &[Key]) -> Result<Vec<Value>, Failed> {
        Ok(keys.iter().map(|_| Value::Bytes(vec![7; 10_000].into())).collect())
    }

    #[tokio::test]
    async fn what_many_ask_for_at_once_is_loaded_once() {
        let cache = Cache::new(1 << 20, Handle::current());
        let loads = Arc::new(AtomicUsize::new(0));
        let asked = (0..8).map(|number| {
            let (cache, loads) = (cache.clone(), loads.clone());
            async move {
                let keys = [segment(0), segment(1 + number % 2)];
                let load = |missing: Vec<Key>| async move {
                    loads.fetch_add(missing.len(), Ordering::SeqCst);
                    tokio::task::yield_now().await;
                    filled(&missing)
                };
                cache.get(&keys, load).await.unwrap().len()
            }
        });
        assert_eq!(futures::future::join_all(asked).await, [2; 8]);
        assert_eq!(loads.load(Ordering::SeqCst), 3);
    }

    #[tokio::test]
    async fn the_bound_holds_and_the_longest_unused_goes_first() {
        let cache = Cache::new(35_000, Handle::current());
        for number in [0, 1, 2, 0, 3] {
            let load = |missing: Vec<Key>| async move { filled(&missing) };
            cache.get(&[segment(number)], load).await.unwrap();
            assert!(cache.bytes() <= 35_000);
        }
        assert!(cache.has(&segment(0)) && !cache.has(&segment(1)) && cache.has(&segment(3)));
    }

    #[tokio::test]
    async fn what_failed_is_loaded_again_by_the_next_who_asks() {
        let cache = Cache::new(1 << 20, Handle::current());
        let fails = |_: Vec<Key>| async { Err(Arc::new(RestoreError::Stopped)) };
        assert!(cache.get(&[segment(0)], fails).await.is_err());
        let panics = |_: Vec<Key>| async { panic!("a load that panics, on purpose") };
        assert!(cache.get(&[segment(0)], panics).await.is_err());
        let load = |missing: Vec<Key>| async move { filled(&missing) };
        assert!(cache.get(&[segment(0)], load).await.is_ok());
    }
}
