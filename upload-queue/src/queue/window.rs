//! The best waiting jobs, in memory: a double-ended priority queue of bounded length over the ordered table.

use std::cmp::Reverse;

use priority_queue::DoublePriorityQueue;

/// A job's place in the order: higher score first, then the lower version, exactly as the index `job_order` sorts.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Rank(u64, Reverse<i64>);

/// The sign bit of a double: flipping all bits of negative numbers and this one of the others makes bits sort as numbers.
const SIGN: u64 = 1 << 63;

impl Rank {
    pub(super) fn new(total: f64, version: i64) -> Self {
        let bits = (total + 0.0).to_bits(); // −0 and 0 are equal to SQLite
        Self(if bits & SIGN == 0 { bits | SIGN } else { !bits }, Reverse(version))
    }
    pub(super) fn total(self) -> f64 {
        f64::from_bits(if self.0 & SIGN == 0 { !self.0 } else { self.0 & !SIGN })
    }
}

/// Every waiting job that ranks above `floor` is in `best`; the others are only in the database.
pub(super) struct Window {
    best: DoublePriorityQueue<i64, Rank>,
    /// `None`: all waiting jobs are in `best`.
    floor: Option<Rank>,
    jobs_max: usize,
}

impl Window {
    /// A window that knows of nothing yet.
    pub(super) fn new(jobs_max: usize) -> Self {
        let mut window = Self {
            best: DoublePriorityQueue::new(),
            floor: None,
            jobs_max,
        };
        window.forget();
        window
    }
    pub(super) fn jobs_max(&self) -> usize {
        self.jobs_max
    }
    /// No waiting job is outside of it.
    pub(super) fn is_whole(&self) -> bool {
        self.floor.is_none()
    }
    /// Starts anew: everything is below the floor.
    pub(super) fn forget(&mut self) {
        self.best.clear();
        self.floor = Some(Rank(u64::MAX, Reverse(i64::MIN)));
    }
    pub(super) fn insert(&mut self, version: i64, total: f64) {
        let rank = Rank::new(total, version);
        if self.floor.is_some_and(|floor| rank <= floor) {
            return;
        }
        self.best.push(version, rank);
        if self.best.len() > self.jobs_max {
            self.floor = self.best.pop_min().map(|(_, rank)| rank);
        }
    }
    pub(super) fn pop(&mut self) -> Option<(i64, Rank)> {
        self.best.pop_max()
    }
    /// Replaces everything by `rows`, the best of the table in order; `more`: the table has others behind them.
    pub(super) fn fill(&mut self, rows: &[(i64, f64)], more: bool) {
        self.best.clear();
        self.floor = None;
        if more {
            self.floor = rows.last().map(|&(version, total)| Rank::new(total, version));
        }
        for &(version, total) in rows {
            self.insert(version, total);
        }
    }
}
