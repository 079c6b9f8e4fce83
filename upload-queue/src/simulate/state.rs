//! The state of a simulated grid. What happens to it is in the files that step it on: `grid`, `owner`, `helpers`, `transfer`, `check`.

use crate::care::audit::Rota;
use crate::care::helper::Short;
use crate::care::repair::{PackPlan, PackState};
use crate::care::standing::{Patience, Standing, Watch};
use crate::simulate::events::Queue;
use crate::simulate::friend::Node;
use crate::simulate::random::Random;
use crate::simulate::report::Report;
use crate::simulate::scenario::Scenario;

pub(super) const DAY_SECS: u64 = 24 * 3600;
pub(super) const YEAR_SECS: f64 = 365.25 * 86_400.0;
/// Time between two samples, and the time within which a restore is promised: that of `planner`.
pub(super) const WINDOW_SECS: u64 = 48 * 3600;
/// Most shares of a pack, as `placement` makes them.
pub(super) const SHARES_MAX: usize = 20;

pub(super) struct Grid<'a> {
    pub(super) scenario: &'a Scenario,
    pub(super) random: Random,
    pub(super) now: u64,
    pub(super) queue: Queue,
    pub(super) nodes: Vec<Node>,
    pub(super) owner: Owner,
    /// One for each node, if members help in this scenario.
    pub(super) helpers: Vec<Helper>,
    pub(super) packs: Vec<Pack>,
    pub(super) transfers: Vec<Transfer>,
    pub(super) report: Report,
    pub(super) is_lost: bool,
    /// Shares of new packs for which there was no place: they are put later.
    pub(super) first_puts_missing: u64,
    pub(super) code: (u8, u8),
    pub(super) batches: u64,
}

/// A pack: what is believed of it, and what is known to the simulation.
pub(super) struct Pack {
    pub(super) state: PackState,
    /// What the owner planned last.
    pub(super) plan: PackPlan,
    pub(super) is_retired: bool,
    /// There were k shares on the grid once.
    pub(super) is_established: bool,
    pub(super) has_alarm: bool,
    /// Seconds listened without an alarm while too few shares were where they can be reached: by what was put, and by
    /// what is really kept.
    pub(super) silent_secs: u64,
    pub(super) hollow_secs: u64,
    /// Since when too few shares are really reachable.
    pub(super) short_since: Option<u64>,
    /// And that has been told.
    pub(super) is_told: bool,
    /// Since when a share is nowhere.
    pub(super) gone_since: [Option<u64>; SHARES_MAX],
}

/// What the owner's machine knows.
pub(super) struct Owner {
    pub(super) is_on: bool,
    pub(super) is_away: bool,
    pub(super) clock_error_secs: i64,
    pub(super) link_free_secs: u64,
    /// Something changed that a plan depends on, other than standings.
    pub(super) has_news: bool,
    pub(super) watch: Watch,
    pub(super) looked_secs: u64,
    pub(super) rotas: Vec<Option<Rota>>,
    pub(super) standings: Vec<Standing>,
    pub(super) planned_secs: u64,
    /// A pack had fewer shares than it should have after all plans.
    pub(super) is_short: bool,
    pub(super) patience: Patience,
}

impl Default for Owner {
    fn default() -> Self {
        Self {
            is_on: true,
            is_away: false,
            clock_error_secs: 0,
            link_free_secs: 0,
            has_news: true,
            watch: Watch::default(),
            looked_secs: 0,
            rotas: Vec::new(),
            standings: Vec::new(),
            planned_secs: 0,
            is_short: false,
            patience: Patience::default(),
        }
    }
}

impl Owner {
    pub(super) fn is_up(&self) -> bool {
        self.is_on && !self.is_away
    }

    pub(super) fn standing(&self, node: &Node) -> Standing {
        self.watch.standing(&node.key, &self.patience)
    }

    pub(super) fn counts_on(&self, node: &Node) -> bool {
        node.is_listed && self.standing(node) == Standing::Good
    }
}

/// What a member's machine knows.
#[derive(Default)]
pub(super) struct Helper {
    pub(super) watch: Watch,
    pub(super) short: Short,
    pub(super) planned_secs: u64,
}

/// Who sends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum By {
    /// The owner, who has the files.
    Owner,
    /// A member, who has only what lies on the grid.
    Friend(usize),
}

/// A share on its way.
pub(super) struct Transfer {
    pub(super) pack: usize,
    pub(super) index: u8,
    pub(super) to: usize,
    pub(super) by: By,
    pub(super) is_open: bool,
}
