//! When a machine is on.

use crate::simulate::random::Random;

const HOUR: f64 = 3600.0;
const DAY_SECS: u64 = 24 * 3600;

/// When a machine is on.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Habit {
    /// On and off for times without memory: what the closed form assumes, with a cycle of a day.
    Spells {
        /// Hours on, on average; infinite: always.
        on_hours: f64,
        /// Hours off, on average.
        off_hours: f64,
    },
    /// On at the same time every day.
    Daily {
        /// Hour of the day at which it is switched on.
        from_hour: f64,
        /// For so many hours, less than 24.
        hours: f64,
        /// Days on which it stays off, as a share of all.
        skips: f64,
    },
    /// Opened and closed all day long, and sometimes left at home for weeks.
    Laptop {
        /// Hours open, on average.
        on_hours: f64,
        /// Hours closed, on average.
        off_hours: f64,
        /// Holidays a year.
        holidays: f64,
        /// Days of a holiday, on average.
        holiday_days: f64,
    },
}

impl Habit {
    /// Always on.
    pub const ALWAYS: Self = Self::Spells {
        on_hours: f64::INFINITY,
        off_hours: 0.0,
    };

    /// On for this share of the time (0 to 1), with a cycle of a day, as [`crate::planner::Uptime`] understands it.
    pub fn with_uptime(uptime: f64) -> Self {
        let uptime = uptime.clamp(0.0, 1.0);
        if uptime >= 1.0 {
            return Self::ALWAYS;
        }
        Self::Spells {
            on_hours: 24.0 * uptime,
            off_hours: 24.0 * (1.0 - uptime),
        }
    }

    /// The share of the time it is on.
    pub fn uptime(&self) -> f64 {
        match *self {
            Self::Spells { on_hours, .. } if on_hours.is_infinite() => 1.0,
            Self::Spells { on_hours, off_hours } => on_hours / (on_hours + off_hours),
            Self::Daily { hours, skips, .. } => hours / 24.0 * (1.0 - skips),
            Self::Laptop {
                on_hours,
                off_hours,
                holidays,
                holiday_days,
            } => on_hours / (on_hours + off_hours) * (1.0 - holidays * holiday_days / 365.25).max(0.0),
        }
    }

    /// When it changes next; `None`: never.
    pub(super) fn next_change(&self, now: u64, is_on: bool, random: &mut Random) -> Option<u64> {
        let wait = match *self {
            Self::Spells { on_hours, off_hours } => {
                let mean = if is_on { on_hours } else { off_hours };
                if mean.is_infinite() {
                    return None;
                }
                random.exponential(mean * HOUR)
            }
            Self::Daily { hours, .. } if is_on => hours * HOUR,
            Self::Daily { from_hour, skips, .. } => return Some(next_morning(now, from_hour, skips, random)),
            Self::Laptop { on_hours, .. } if is_on => random.exponential(on_hours * HOUR),
            Self::Laptop {
                on_hours,
                off_hours,
                holidays,
                holiday_days,
            } => {
                let cycles_per_year = 365.25 * 24.0 / (on_hours + off_hours);
                if random.chance(holidays / cycles_per_year) {
                    random.exponential(holiday_days * 24.0 * HOUR)
                } else {
                    random.exponential(off_hours * HOUR)
                }
            }
        };
        Some(now + (wait as u64).max(1))
    }
}

/// The next moment on a day that is not skipped at which the clock shows `from_hour`.
fn next_morning(now: u64, from_hour: f64, skips: f64, random: &mut Random) -> u64 {
    let mut morning = now - now % DAY_SECS + (from_hour.rem_euclid(24.0) * HOUR) as u64;
    while morning <= now || random.chance(skips.min(0.99)) {
        morning += DAY_SECS;
    }
    morning
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machines_are_on_for_as_long_as_they_say() {
        let habits = [
            Habit::with_uptime(0.3),
            Habit::with_uptime(0.95),
            Habit::Daily {
                from_hour: 22.0,
                hours: 8.0,
                skips: 0.1,
            },
            Habit::Laptop {
                on_hours: 2.0,
                off_hours: 4.0,
                holidays: 3.0,
                holiday_days: 7.0,
            },
        ];
        for habit in habits {
            let (mut random, mut now, mut is_on, mut on_secs) = (Random::new(1), 0, false, 0);
            while now < 3000 * DAY_SECS {
                let next = habit.next_change(now, is_on, &mut random).unwrap();
                on_secs += u64::from(is_on) * (next - now);
                (now, is_on) = (next, !is_on);
            }
            let uptime = on_secs as f64 / now as f64;
            assert!((uptime - habit.uptime()).abs() < 0.02, "{habit:?}: {uptime}");
        }
        assert_eq!(Habit::ALWAYS.uptime(), 1.0);
        assert_eq!(Habit::ALWAYS.next_change(0, true, &mut Random::new(1)), None);
        assert_eq!(Habit::with_uptime(1.0), Habit::ALWAYS);
    }
}
