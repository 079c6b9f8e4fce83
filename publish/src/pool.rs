//! Many objects on their way at once: more while that goes well, half as many when the endpoint asks for patience.

use std::collections::VecDeque;
use std::future::Future;

use tokio::task::JoinSet;

/// Workers at the start.
const START: usize = 8;

/// How many work at once (additive increase, multiplicative decrease, as TCP does).
#[derive(Debug)]
pub(crate) struct Limit {
    now: usize,
    max: usize,
    /// Done since the last change.
    done: usize,
    retries: u64,
}

impl Limit {
    /// At most `max`, at least one.
    pub fn new(max: usize) -> Self {
        let max = max.max(1);
        Self {
            now: START.min(max),
            max,
            done: 0,
            retries: 0,
        }
    }

    /// One is done; `retries` is how many requests were repeated so far.
    pub fn done(&mut self, retries: u64) {
        self.done += 1;
        // A decision a round: what is on its way now was begun under the limit before.
        if self.done < self.now {
            return;
        }
        self.now = if retries > self.retries {
            (self.now / 2).max(1)
        } else {
            (self.now + self.now.div_ceil(4)).min(self.max)
        };
        (self.done, self.retries) = (0, retries);
    }
}

/// Work in progress.
pub(crate) struct Pool<T> {
    limit: Limit,
    running: JoinSet<T>,
}

impl<T: Send + 'static> Pool<T> {
    /// At most `max` at once.
    pub fn new(max: usize) -> Self {
        Self {
            limit: Limit::new(max),
            running: JoinSet::new(),
        }
    }

    /// Starts as much of `waiting` as may run.
    pub fn fill<W, F: Future<Output = T> + Send + 'static>(
        &mut self,
        waiting: &mut VecDeque<W>,
        start: impl Fn(W) -> F,
    ) {
        while self.running.len() < self.limit.now
            && let Some(work) = waiting.pop_front()
        {
            self.running.spawn(start(work));
        }
    }

    /// Nothing runs.
    pub fn is_idle(&self) -> bool {
        self.running.is_empty()
    }

    /// Waits for one, and takes all that ended with it. Empty if nothing runs. May be dropped.
    pub async fn ended(&mut self, retries: impl Fn() -> u64) -> Vec<T> {
        let mut all = Vec::new();
        let mut next = self.running.join_next().await;
        while let Some(ended) = next {
            match ended {
                Ok(value) => all.push(value),
                Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
                Err(_) => {}
            }
            self.limit.done(retries());
            next = self.running.try_join_next();
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn success_adds_workers_and_trouble_halves_them() {
        let mut limit = Limit::new(20);
        let round = |limit: &mut Limit, retries| {
            (0..limit.now).for_each(|_| limit.done(retries));
            limit.now
        };
        assert_eq!([round(&mut limit, 0), round(&mut limit, 0)], [10, 13]);
        assert_eq!(
            [round(&mut limit, 1), round(&mut limit, 1), round(&mut limit, 9)],
            [6, 8, 4]
        );
        assert_eq!((0..9).map(|_| round(&mut limit, 9)).max(), Some(20));
        assert_eq!((10..20).map(|retries| round(&mut limit, retries)).min(), Some(1));
        assert_eq!(Limit::new(0).now, 1);
    }

    #[tokio::test]
    async fn no_more_run_than_may() {
        let mut pool = Pool::new(3);
        let mut waiting: VecDeque<u32> = (0..10).collect();
        let mut ended = Vec::new();
        loop {
            pool.fill(&mut waiting, async |number| number);
            assert!(pool.running.len() <= 3);
            if pool.is_idle() {
                break;
            }
            ended.extend(pool.ended(|| 0).await);
        }
        ended.sort_unstable();
        assert_eq!(ended, (0..10).collect::<Vec<_>>());
    }
}
