//! What is simulated: who is in the grid, how they behave, what goes wrong.

use crate::care::audit::Pace;
use crate::care::standing::Patience;
use crate::planner::Uptime;
use crate::simulate::habit::Habit;
use crate::simulate::random::Random;

const GIB: u64 = 1 << 30;
/// A friend's room that no test fills.
const AMPLE_BYTES: u64 = 4096 * GIB;
/// 20 Mbit/s.
const UPLINK: u64 = 2_500_000;
const HOUR_SECS: u64 = 3600;

/// What is wrong with a friend, as its friends cannot see directly.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Fault {
    /// Nothing.
    None,
    /// Says it took a share and did not keep it; admits it when asked for it.
    Drops {
        /// Of all shares.
        share: f64,
    },
    /// As `Drops`, but gives no answer to a challenge that touches a missing share.
    Stalls {
        /// Of all shares.
        share: f64,
    },
    /// Keeps shares damaged.
    Corrupts {
        /// Of all shares.
        share: f64,
    },
    /// Keeps nothing; fetches what it is asked for from enough others.
    Relays,
    /// Keeps nothing; another friend keeps its shares beside its own.
    Colludes {
        /// Number of that friend.
        with: usize,
    },
}

/// A friend.
#[derive(Clone, PartialEq, Debug)]
pub struct Friend {
    /// When it is on.
    pub habit: Habit,
    /// Room it offers to this owner.
    pub room_bytes: u64,
    /// Bytes it sends in a second.
    pub uplink: u64,
    /// What is wrong with it.
    pub fault: Fault,
    /// Number of its household: friends with equal ones are one failure domain.
    pub household: usize,
}

impl Friend {
    /// An honest friend with ample room in a household of its own.
    pub fn new(household: usize, habit: Habit) -> Self {
        Self {
            habit,
            room_bytes: AMPLE_BYTES,
            uplink: UPLINK,
            fault: Fault::None,
            household,
        }
    }
}

/// A grid around one owner, and what may happen to it.
#[derive(Clone, PartialEq, Debug)]
pub struct Scenario {
    /// The friends at the start.
    pub friends: Vec<Friend>,
    /// When the owner's machine is on.
    pub owner: Habit,
    /// Bytes the owner sends in a second.
    pub uplink: u64,
    /// Friends that may vanish.
    pub tolerate: u8,
    /// Shares needed and made; `None`: as planned from the friends' uptimes.
    pub code: Option<(u8, u8)>,
    /// Packs; each stands for all that lie on the same friends.
    pub packs: usize,
    /// Sealed bytes that one pack stands for.
    pub pack_bytes: u64,
    /// Losses of a friend a year: a disk dies, somebody quits. At once and for good.
    pub losses_per_year: f64,
    /// Days until a new friend takes the place of a lost one, on average; `None`: never.
    pub replace_days: Option<f64>,
    /// That many days exactly, not on average.
    pub replace_exactly: bool,
    /// Seconds between two looks at the friends.
    pub look_secs: u64,
    /// When silence counts.
    pub patience: Patience,
    /// How often shares are asked for.
    pub pace: Pace,
    /// The owner's machine stays off from one day to another, and members look after its shares.
    pub owner_away_days: Option<(u64, u64)>,
    /// By how many seconds the owner's clock is set wrong, at most, every other month.
    pub clock_error_secs: u64,
    /// Days from one pack that is forgotten, and replaced by a new one, to the next.
    pub forget_days: Option<u64>,
    /// Simulated time.
    pub years: f64,
    /// Of these, the first ones, in which losses are not counted: a grid begins with no share missing.
    pub warm_up_years: f64,
}

impl Scenario {
    /// Equal honest friends that are on for this share of the time, each with ample room.
    pub fn uniform(friends: usize, uptime: f64, tolerate: u8) -> Self {
        let habit = Habit::with_uptime(uptime);
        Self {
            friends: (0..friends).map(|household| Friend::new(household, habit)).collect(),
            owner: Habit::ALWAYS,
            uplink: UPLINK,
            tolerate,
            code: None,
            packs: 4,
            pack_bytes: 50 * GIB,
            losses_per_year: 0.05,
            replace_days: Some(30.0),
            replace_exactly: false,
            look_secs: 6 * HOUR_SECS,
            patience: Patience::default(),
            pace: Pace::default(),
            owner_away_days: None,
            clock_error_secs: 0,
            forget_days: None,
            years: 5.0,
            warm_up_years: 0.0,
        }
    }

    /// A grid of 2 to 9 unlike friends in which much goes wrong; all of it follows from the seed.
    pub fn mixed(seed: u64) -> Self {
        let random = &mut Random::new(!seed);
        let count = 2 + random.below(8) as usize;
        let mut scenario = Self::uniform(count, 1.0, 1 + random.below(2) as u8);
        scenario.friends = (0..count).map(|number| some_friend(number, random)).collect();
        scenario.owner = some_habit(random);
        scenario.uplink = random.between(2e5, 5e6) as u64;
        scenario.losses_per_year = random.between(0.0, 0.3);
        scenario.replace_days = random.chance(0.8).then(|| random.between(5.0, 90.0));
        scenario.pack_bytes = random.between(2.0, 80.0) as u64 * GIB;
        if random.chance(0.25) {
            let from = random.below(1000);
            scenario.owner_away_days = Some((from, from + 30 + random.below(300)));
        }
        if random.chance(0.3) {
            scenario.clock_error_secs = random.below(3 * 24 * HOUR_SECS);
        }
        scenario.forget_days = random.chance(0.5).then(|| 60 + random.below(300));
        // Two machines of one household, and at most one or two who lie.
        if count > 3 && random.chance(0.3) {
            scenario.friends[1].household = 0;
        }
        if count > 2 && random.chance(0.3) {
            scenario.friends[count - 1].fault = some_fault(random);
        }
        if count > 5 && random.chance(0.1) {
            scenario.friends[2].fault = Fault::Colludes { with: 3 };
        }
        scenario
    }

    /// The best uptime of each household.
    pub fn domains(&self) -> Vec<Uptime> {
        let households = self.friends.iter().map(|friend| friend.household).max();
        let best = |household| {
            let members = self.friends.iter().filter(move |friend| friend.household == household);
            members.map(|friend| friend.habit.uptime()).max_by(f64::total_cmp)
        };
        let found = households.into_iter().flat_map(|last| (0..=last).filter_map(best));
        found.map(Uptime::new).collect()
    }
}

fn some_habit(random: &mut Random) -> Habit {
    match random.below(5) {
        0 => Habit::ALWAYS,
        1 => Habit::Spells {
            on_hours: random.between(100.0, 2000.0),
            off_hours: random.between(0.2, 30.0),
        },
        2 | 3 => Habit::Daily {
            from_hour: random.between(0.0, 24.0),
            hours: random.between(6.5, 14.0),
            skips: random.between(0.0, 0.2),
        },
        _ => Habit::Laptop {
            on_hours: random.between(1.0, 6.0),
            off_hours: random.between(2.0, 12.0),
            holidays: random.between(0.0, 4.0),
            holiday_days: random.between(3.0, 20.0),
        },
    }
}

fn some_friend(number: usize, random: &mut Random) -> Friend {
    Friend {
        room_bytes: random.between(20.0, 1000.0) as u64 * GIB,
        uplink: random.between(1e5, 1e7) as u64,
        ..Friend::new(number, some_habit(random))
    }
}

fn some_fault(random: &mut Random) -> Fault {
    let share = [0.01, 0.1, 0.5, 1.0][random.below(4) as usize];
    match random.below(4) {
        0 => Fault::Drops { share },
        1 => Fault::Stalls { share },
        2 => Fault::Corrupts { share },
        _ => Fault::Relays,
    }
}
