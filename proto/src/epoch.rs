//! The epoch of a volume's writer, and what a voter does when one is claimed (docs/format/promise.md §3). What holds over several
//! voters is in docs/decisions/0064-one-writer.md.

use minicbor::{Decode, Encode};

use crate::id::DeviceId;

/// The greatest counter of an epoch. Chosen: nobody comes there by counting, and one more never overflows.
pub const EPOCH_COUNTER_MAX: u64 = 1 << 62;

/// When a device was a volume's writer, against all other times at which one was: by the counter first, then by the device, so
/// that no two devices share one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Encode, Decode)]
pub struct Epoch {
    /// From 1 to [`EPOCH_COUNTER_MAX`].
    #[n(0)]
    pub counter: u64,
    /// The writer.
    #[n(1)]
    pub device: DeviceId,
}

impl Epoch {
    /// The lowest epoch of `device` that is above `highest`, whoever's that is; `None` where counting ends.
    pub fn above(highest: Option<Self>, device: DeviceId) -> Option<Self> {
        let counter = highest.map_or(0, |epoch| epoch.counter) + 1;
        (counter <= EPOCH_COUNTER_MAX).then_some(Self { counter, device })
    }
}

/// What a voter does with a claim, by the epoch that it has promised.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// It is above: it becomes the promise, is durable, and is answered then, not before.
    Raise,
    /// It is the promise: nothing changes, and it is answered.
    Confirm,
    /// It is below: nothing changes, and the promise is the answer.
    Refuse,
}

impl Verdict {
    /// Of a voter that has promised `held`.
    pub fn of(held: Option<Epoch>, claimed: Epoch) -> Self {
        match held {
            Some(held) if claimed < held => Self::Refuse,
            Some(held) if claimed == held => Self::Confirm,
            _ => Self::Raise,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn epoch(counter: u64, device: u8) -> Epoch {
        Epoch {
            counter,
            device: DeviceId([device; 32]),
        }
    }

    #[test]
    fn the_counter_goes_before_the_device() {
        assert!(epoch(1, 9) < epoch(2, 1));
        assert!(epoch(2, 1) < epoch(2, 9));
    }

    #[test]
    fn counting_ends_before_it_overflows() {
        let last = epoch(EPOCH_COUNTER_MAX, 1);
        assert_eq!(Epoch::above(Some(last), DeviceId([2; 32])), None);
        assert_eq!(
            Epoch::above(Some(epoch(EPOCH_COUNTER_MAX - 1, 2)), last.device),
            Some(last)
        );
        assert_eq!(Epoch::above(None, last.device), Some(epoch(1, 1)));
    }

    proptest! {
        #[test]
        fn no_order_of_claims_lowers_a_promise_or_makes_one_that_nobody_claimed(
            claims in prop::collection::vec((1..5_u64, 1..4_u8), 1..20),
        ) {
            let mut held = None;
            for (at, (counter, device)) in claims.iter().enumerate() {
                let claimed = epoch(*counter, *device);
                let before = held;
                match Verdict::of(held, claimed) {
                    Verdict::Raise => held = Some(claimed),
                    Verdict::Confirm => prop_assert_eq!(held, Some(claimed)),
                    Verdict::Refuse => prop_assert!(held > Some(claimed)),
                }
                prop_assert!(held >= before);
                let highest = claims[..=at].iter().map(|(counter, device)| epoch(*counter, *device)).max();
                prop_assert_eq!(held, highest);
            }
        }
    }
}
