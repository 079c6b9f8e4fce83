//! Which voters are enough: any two majorities have a voter in common, and that is all that one writer rests on.

/// Most voters of a volume. Chosen: two of five may be away, and a commit waits for three answers at most.
pub const VOTERS_MAX: u8 = 5;

/// Most voters that one claim asks: those of before and those after, while they are replaced.
pub const ASKED_MAX: u8 = 2 * VOTERS_MAX;

/// Whose majority it takes: of a volume's voters; while they are replaced, of those before and of those after, of each by itself
/// (docs/decisions/0071-other-voters.md).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Quorum {
    /// Two, which are the same where nothing is replaced.
    groups: [Group; 2],
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Group {
    members: VoterSet,
    majority: u8,
}

impl Group {
    /// `None` unless they are odd and at most [`VOTERS_MAX`]. An even number would bear no more losses than one voter less, and needs
    /// more of them there.
    fn of(members: VoterSet) -> Option<Self> {
        let count = members.len();
        (count % 2 == 1 && count <= VOTERS_MAX).then_some(Self {
            members,
            majority: count / 2 + 1,
        })
    }

    fn is_met_by(self, set: VoterSet) -> bool {
        self.members.and(set).len() >= self.majority
    }

    fn is_blocked_by(self, set: VoterSet) -> bool {
        self.members.and(set).len() > self.members.len() - self.majority
    }
}

impl Quorum {
    /// Of so many voters, numbered from 0 on.
    pub fn of(voters: u8) -> Option<Self> {
        Self::joint((0..voters).collect(), (0..voters).collect())
    }

    /// Of these and of those.
    pub fn joint(before: VoterSet, after: VoterSet) -> Option<Self> {
        let groups = [Group::of(before)?, Group::of(after)?];
        Some(Self { groups })
    }

    /// One in which too few are enough: what it breaks is seen in tests.
    #[cfg(test)]
    pub fn broken(voters: u8, majority: u8) -> Self {
        let members = (0..voters).collect();
        let group = Group { members, majority };
        Self { groups: [group; 2] }
    }

    /// The voters by their numbers.
    pub fn voters(self) -> impl Iterator<Item = u8> {
        let [before, after] = self.groups;
        (0..ASKED_MAX).filter(move |voter| before.members.contains(*voter) || after.members.contains(*voter))
    }

    /// Whether these are a majority.
    pub fn is_met_by(self, set: VoterSet) -> bool {
        self.groups.iter().all(|group| group.is_met_by(set))
    }

    /// Whether no majority is left without these.
    pub fn is_blocked_by(self, set: VoterSet) -> bool {
        self.groups.iter().any(|group| group.is_blocked_by(set))
    }

    /// Whether whatever meets this one meets the other one.
    pub fn covers(self, other: Self) -> bool {
        other.groups.iter().all(|group| self.groups.contains(group))
    }
}

/// Some of the voters that a claim asks.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, Debug)]
pub struct VoterSet(u16);

impl VoterSet {
    /// Adds one.
    ///
    /// # Panics
    /// If no claim asks a voter of this number.
    pub fn insert(&mut self, voter: u8) {
        assert!(voter < ASKED_MAX, "voter {voter} of {ASKED_MAX}");
        self.0 |= 1 << voter;
    }

    /// Whether it is among them.
    pub fn contains(self, voter: u8) -> bool {
        voter < ASKED_MAX && self.0 & 1 << voter != 0
    }

    /// How many they are.
    pub fn len(self) -> u8 {
        self.0.count_ones() as u8
    }

    /// Whether there are none.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
}

impl FromIterator<u8> for VoterSet {
    fn from_iter<T: IntoIterator<Item = u8>>(voters: T) -> Self {
        let mut set = Self::default();
        // One too many is none that a quorum can have.
        voters
            .into_iter()
            .filter(|voter| *voter < ASKED_MAX)
            .for_each(|voter| set.insert(voter));
        set
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sets(voters: u8) -> impl Iterator<Item = VoterSet> {
        (0..1 << voters).map(VoterSet)
    }

    fn joint(before: &[u8], after: &[u8]) -> Quorum {
        Quorum::joint(before.iter().copied().collect(), after.iter().copied().collect()).unwrap()
    }

    #[test]
    fn an_odd_number_up_to_five() {
        let odd: Vec<u8> = (0..=u8::MAX).filter(|voters| Quorum::of(*voters).is_some()).collect();
        assert_eq!(odd, [1, 3, 5]);
    }

    #[test]
    fn two_majorities_meet_and_a_blocking_set_meets_each() {
        for voters in [1, 3, 5] {
            let quorum = Quorum::of(voters).unwrap();
            for one in sets(voters) {
                let rest = VoterSet(!one.0 & ((1 << voters) - 1));
                assert_eq!(quorum.is_blocked_by(one), !quorum.is_met_by(rest), "{one:?}");
                for other in sets(voters).filter(|other| quorum.is_met_by(*other)) {
                    assert!(!quorum.is_met_by(one) || one.0 & other.0 != 0, "{one:?} {other:?}");
                }
            }
        }
    }

    #[test]
    fn while_voters_are_replaced_it_takes_a_majority_of_each() {
        for (before, after) in [(&[0][..], &[1][..]), (&[0, 1, 2], &[2, 3, 4]), (&[0, 1, 2], &[0])] {
            let (both, old, new) = (joint(before, after), joint(before, before), joint(after, after));
            assert!(both.covers(old) && both.covers(new) && !old.covers(both) && !new.covers(old));
            for set in sets(5) {
                assert_eq!(both.is_met_by(set), old.is_met_by(set) && new.is_met_by(set));
                assert_eq!(
                    both.is_blocked_by(set),
                    old.is_blocked_by(set) || new.is_blocked_by(set)
                );
            }
        }
        assert_eq!(joint(&[0, 1, 2], &[2, 3, 4]).voters().count(), 5);
    }
}
