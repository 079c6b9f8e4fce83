//! When packs may be given up: the steps of one commit. The rule is that nothing is given up as long as any head that may still be
//! accepted needs it. A pack can become an orphan by that, which the next pass finds, but never a hole.

use std::collections::BTreeSet;

use thiserror::Error;

use super::table::PackId;

/// How far a commit has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Its packs are being made and sent.
    Planned,
    /// They are on as many peers as a commit needs, and that is recorded.
    Stored,
    /// Its head may be at a voter. From here on only an answer tells whether it counts.
    Offered,
    /// Its head is accepted.
    Accepted,
    /// It will never be accepted: another writer has the volume.
    Refused,
}

/// What is known of a head that was offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// A majority that survives `tolerate` has it.
    Accepted,
    /// A majority promised not to take it.
    Refused,
    /// Anything else. It may be accepted later, by whoever offers it again.
    Unknown,
}

/// What cannot be done now.
#[derive(Debug, Error, Clone, Copy, PartialEq, Eq)]
#[error("Not possible for a commit that is {0:?}")]
pub struct WrongStage(pub Stage);

/// A commit on its way, with the packs that come and go by it. It is in memory only: after a crash `orphans` finds what it left.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cycle {
    stage: Stage,
    made: Vec<PackId>,
    unneeded: Vec<PackId>,
}

impl Cycle {
    /// It brings the packs `made`, and leaves nothing of the packs `unneeded` to be needed.
    pub fn new(made: Vec<PackId>, unneeded: Vec<PackId>) -> Self {
        Self {
            stage: Stage::Planned,
            made,
            unneeded,
        }
    }

    /// How far it has come.
    pub fn stage(&self) -> Stage {
        self.stage
    }

    /// All packs are where they have to be.
    pub fn stored(&mut self) -> Result<(), WrongStage> {
        self.pass(Stage::Planned, Stage::Stored)
    }

    /// The head is about to be sent. Called before the first byte leaves.
    pub fn offering(&mut self) -> Result<(), WrongStage> {
        self.pass(Stage::Stored, Stage::Offered)
    }

    /// What became of the head. The table is told of the commit when this was `Accepted`, not before.
    pub fn answered(&mut self, answer: Answer) -> Result<(), WrongStage> {
        let to = match answer {
            Answer::Accepted => Stage::Accepted,
            Answer::Refused => Stage::Refused,
            Answer::Unknown => Stage::Offered,
        };
        self.pass(Stage::Offered, to)
    }

    /// The packs that nobody needs any more.
    pub fn give_up(&self) -> Result<&[PackId], WrongStage> {
        match self.stage {
            Stage::Accepted => Ok(&self.unneeded),
            stage => Err(WrongStage(stage)),
        }
    }

    /// Ends a commit that no voter has seen: its packs are orphans. After a refusal they are not ours to give up: who has the volume
    /// now may have adopted the head.
    pub fn abandon(self) -> Result<Vec<PackId>, WrongStage> {
        match self.stage {
            Stage::Planned | Stage::Stored => Ok(self.made),
            stage => Err(WrongStage(stage)),
        }
    }

    fn pass(&mut self, from: Stage, to: Stage) -> Result<(), WrongStage> {
        if self.stage != from {
            return Err(WrongStage(self.stage));
        }
        self.stage = to;
        Ok(())
    }
}

/// Packs that lie about and that nothing needs, when a volume was opened: `named` is what the head and its snapshots name.
/// That head must have been put again under this writer's epoch and accepted before: until then one that
/// the writer before offered may still come to count. No commit of this writer may be on its way meanwhile.
pub fn orphans(found: impl IntoIterator<Item = PackId>, named: &BTreeSet<PackId>) -> Vec<PackId> {
    found.into_iter().filter(|pack| !named.contains(pack)).collect()
}

#[cfg(test)]
mod tests;
