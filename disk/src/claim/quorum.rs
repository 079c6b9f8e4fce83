//! Which voters are enough: any two majorities have a voter in common, and that is all that one writer rests on.

/// Most voters of a volume. Chosen: two of five may be away, and a commit waits for three answers at most.
pub const VOTERS_MAX: u8 = 5;

/// How many voters a volume has: fixed in its root.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Quorum {
    voters: u8,
    majority: u8,
}

impl Quorum {
    /// Of so many voters; `None` unless they are odd and at most [`VOTERS_MAX`]. An even number would bear no more losses than
    /// one voter less, and needs more of them there.
    pub fn of(voters: u8) -> Option<Self> {
        let fits = voters % 2 == 1 && voters <= VOTERS_MAX;
        fits.then_some(Self {
            voters,
            majority: voters / 2 + 1,
        })
    }

    /// One in which too few are enough: what it breaks is seen in tests.
    #[cfg(test)]
    pub fn broken(voters: u8, majority: u8) -> Self {
        Self { voters, majority }
    }

    /// The voters by their numbers, which are their places in the volume's root.
    pub fn voters(self) -> impl Iterator<Item = u8> {
        0..self.voters
    }

    /// Whether these are a majority.
    pub fn is_met_by(self, set: VoterSet) -> bool {
        set.len() >= self.majority
    }

    /// Whether no majority is left without these.
    pub fn is_blocked_by(self, set: VoterSet) -> bool {
        set.len() > self.voters - self.majority
    }
}

/// Some of a volume's voters.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, Debug)]
pub struct VoterSet(u8);

impl VoterSet {
    /// Adds one.
    ///
    /// # Panics
    /// If no volume has a voter of this number.
    pub fn insert(&mut self, voter: u8) {
        assert!(voter < VOTERS_MAX, "voter {voter} of {VOTERS_MAX}");
        self.0 |= 1 << voter;
    }

    /// Whether it is among them.
    pub fn contains(self, voter: u8) -> bool {
        voter < VOTERS_MAX && self.0 & 1 << voter != 0
    }

    /// How many they are.
    pub fn len(self) -> u8 {
        self.0.count_ones() as u8
    }

    /// Whether there are none.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sets(quorum: Quorum) -> impl Iterator<Item = VoterSet> {
        (0..1 << quorum.voters).map(VoterSet)
    }

    #[test]
    fn an_odd_number_up_to_five() {
        let odd: Vec<u8> = (0..=u8::MAX).filter(|voters| Quorum::of(*voters).is_some()).collect();
        assert_eq!(odd, [1, 3, 5]);
    }

    #[test]
    fn two_majorities_meet_and_a_blocking_set_meets_each() {
        for quorum in [1, 3, 5].into_iter().filter_map(Quorum::of) {
            for one in sets(quorum) {
                let rest = VoterSet(!one.0 & ((1 << quorum.voters) - 1));
                assert_eq!(quorum.is_blocked_by(one), !quorum.is_met_by(rest), "{one:?}");
                for other in sets(quorum).filter(|other| quorum.is_met_by(*other)) {
                    assert!(!quorum.is_met_by(one) || one.0 & other.0 != 0, "{one:?} {other:?}");
                }
            }
        }
    }
}
