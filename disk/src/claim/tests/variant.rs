//! Rules broken on purpose, each at one place between the writers and the voters, whose own code has no hooks for it.

use std::time::Duration;

use proto::epoch::Epoch;

use super::world::{History, State};
use crate::claim::writer::{Answer, Event, Phase, Writer};

/// Which rule is broken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Variant {
    /// None.
    Right,
    /// The promise is confirmed before the head is kept.
    ConfirmBeforeHead,
    /// Heads are read with the promises, before the claim.
    HeadsBeforePromise,
    /// A head at one voter counts as one at a majority.
    HeadAtOne,
    /// Promises of fewer than a majority are enough.
    MinorityPromises,
    /// Of the heads that are found the highest number counts, whatever its epoch.
    NumberBeforeEpoch,
    /// There are no promises: today's rule for heads alone.
    NoPromise,
    /// A lower claim is taken, too.
    LastClaimWins,
    /// A voter forgets its last promise.
    VoterRestored,
    /// What was found is served before it is accepted.
    AdoptionNotAwaited,
    /// Two writers may have the same epoch.
    EpochsWithoutDevice,
    /// Late answers count for what is asked now.
    Untagged,
    /// The term is counted from the answers.
    TermFromAnswer,
    /// Confirmations count however late they come.
    LateAnswersCount,
    /// Who replaces voters asks those before alone.
    VotersBeforeAlone,
    /// Who replaces voters asks the new ones alone.
    VotersAfterAlone,
    /// One commit names the new voters, and they alone are asked by whoever sees it.
    ReplacedInOneStep,
    /// What is found is gone on with by the voters that were asked, whichever its root names.
    OtherVotersAdopted,
}

/// What a writer was made to believe when it had asked.
pub enum Pretended {
    /// Nothing.
    Nothing,
    /// That its head is kept.
    HeadsArePut,
    /// That this is accepted.
    Accepted(State),
}

impl Variant {
    /// Changes what a writer believes after it asked.
    pub fn pretends(self, writer: &mut Writer<History>) -> Pretended {
        let voters = writer.rules.quorum.voters();
        let Phase::Holding(held) = &mut writer.phase else {
            return Pretended::Nothing;
        };
        match (self, &mut held.pending) {
            (Self::ConfirmBeforeHead, Some(pending)) => {
                voters.for_each(|voter| pending.took.insert(voter));
                Pretended::HeadsArePut
            }
            (Self::AdoptionNotAwaited, Some(pending)) if !held.is_settled => {
                let state = pending.commit.clone();
                held.is_settled = true;
                held.accepted = held.pending.take();
                Pretended::Accepted(state)
            }
            _ => Pretended::Nothing,
        }
    }

    /// Gives an answer to a writer.
    pub fn tells(
        self,
        writer: &mut Writer<History>,
        voter: u8,
        tag: u64,
        answer: Answer<History>,
        now: Duration,
    ) -> Vec<Event<History>> {
        let quorum = writer.rules.quorum;
        let (mut tag, mut now) = (tag, now);
        match (self, &mut writer.phase) {
            (Self::HeadAtOne, _) if answer == Answer::Took => {
                for other in quorum.voters() {
                    writer.answered(other, tag, Answer::Took, now);
                }
            }
            (Self::Untagged, Phase::Holding(held)) => {
                let asked = match answer {
                    Answer::Took => held.pending.as_ref().map(|pending| pending.tag),
                    _ => held.round.as_ref().map(|round| round.tag),
                };
                tag = asked.unwrap_or(tag);
            }
            (Self::TermFromAnswer, Phase::Holding(held)) => {
                held.round.iter_mut().for_each(|round| round.since = now);
            }
            (Self::LateAnswersCount, Phase::Holding(held)) => {
                now = held.round.as_ref().map_or(now, |round| round.since);
            }
            _ => {}
        }
        writer.answered(voter, tag, answer, now).into_iter().collect()
    }

    /// What a taker sees of a head.
    pub fn seen(self, state: State) -> State {
        let device = state.epoch.device;
        match self {
            Self::NumberBeforeEpoch | Self::NoPromise => State {
                epoch: Epoch { counter: 1, device },
                ..state
            },
            _ => state,
        }
    }
}
