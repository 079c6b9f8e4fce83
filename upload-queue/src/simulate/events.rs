//! What happens when.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Something that happens; friends and transfers by number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Event {
    /// A friend's machine goes on or off.
    Toggle(usize),
    /// The owner's does.
    OwnerToggle,
    /// The owner's machine stays off for long, or comes back.
    OwnerAway(bool),
    /// Somebody sets the owner's clock.
    Clock,
    /// A friend is lost for good.
    Die(usize),
    /// A new friend takes its place.
    Join(usize),
    /// The owner's machine looks at its friends.
    Look,
    /// A friend's does.
    HelperLook(usize),
    /// A share has been sent.
    Arrive(usize),
    /// The owner forgets a pack and makes another.
    Forget,
    /// What is true now goes into the report.
    Sample,
}

/// Events in the order of their time, those of one moment in the order in which they were added.
#[derive(Default)]
pub(super) struct Queue {
    heap: BinaryHeap<Reverse<(u64, u64, Event)>>,
    count: u64,
}

impl Queue {
    pub(super) fn add(&mut self, secs: u64, event: Event) {
        self.count += 1;
        self.heap.push(Reverse((secs, self.count, event)));
    }

    pub(super) fn next(&mut self) -> Option<(u64, Event)> {
        self.heap.pop().map(|Reverse((secs, _, event))| (secs, event))
    }
}
