//! What came out.

use std::collections::BTreeMap;

const DAY_SECS: f64 = 86_400.0;

/// How long something took.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Delay {
    /// How often.
    pub count: u64,
    /// In all.
    pub sum_secs: u64,
    /// At most.
    pub max_secs: u64,
}

impl Delay {
    pub(super) fn add(&mut self, secs: u64) {
        self.merge(&Self {
            count: 1,
            sum_secs: secs,
            max_secs: secs,
        });
    }

    fn merge(&mut self, other: &Self) {
        self.count += other.count;
        self.sum_secs += other.sum_secs;
        self.max_secs = self.max_secs.max(other.max_secs);
    }

    /// Days, on average.
    pub fn mean_days(&self) -> f64 {
        self.sum_secs as f64 / DAY_SECS / self.count.max(1) as f64
    }

    /// Days, at most.
    pub fn max_days(&self) -> f64 {
        self.max_secs as f64 / DAY_SECS
    }
}

/// Something that must never happen, and did.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Violation {
    /// When.
    pub secs: u64,
    /// What.
    pub what: String,
}

/// What came out of one grid, or of many.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Report {
    /// Grids.
    pub grids: u64,
    /// Years in which losses were counted, of all grids.
    pub years: f64,
    /// Moments at which it was asked whether everything could be read.
    pub samples: u64,
    /// At so many of them it could at once.
    pub restorable_now: u64,
    /// At so many within the 48 hours.
    pub restorable_in_window: u64,
    /// How often the friends alone had too few shares left of anything.
    pub losses: u64,
    /// Friends lost for good, and new ones.
    pub deaths: u64,
    /// See `deaths`.
    pub joins: u64,
    /// Shares put anew.
    pub repair_puts: u64,
    /// Their bytes.
    pub repair_bytes: u64,
    /// Puts that a friend refused.
    pub refused: u64,
    /// From the loss of a share until it was elsewhere.
    pub repairs: Delay,
    /// From a friend's first fault until it was noticed, by kind of fault.
    pub found: BTreeMap<&'static str, Delay>,
    /// Friends with a fault that had not been noticed when the time was over.
    pub unfound: u64,
    /// How often an alarm was raised.
    pub alarms: u64,
    /// From the moment at which fewer than k shares had been reachable for 48 hours until the alarm.
    pub alarm_delay: Delay,
    /// What may cause repair: friends that fell silent, shares found missing, friends that came or went.
    pub causes: u64,
    /// What must never happen.
    pub violations: Vec<Violation>,
}

impl Report {
    /// Adds another one.
    pub fn merge(&mut self, other: &Self) {
        self.grids += other.grids;
        self.years += other.years;
        self.samples += other.samples;
        self.restorable_now += other.restorable_now;
        self.restorable_in_window += other.restorable_in_window;
        self.losses += other.losses;
        self.deaths += other.deaths;
        self.joins += other.joins;
        self.repair_puts += other.repair_puts;
        self.repair_bytes += other.repair_bytes;
        self.refused += other.refused;
        self.repairs.merge(&other.repairs);
        for (kind, delay) in &other.found {
            self.found.entry(kind).or_default().merge(delay);
        }
        self.unfound += other.unfound;
        self.alarms += other.alarms;
        self.alarm_delay.merge(&other.alarm_delay);
        self.causes += other.causes;
        self.violations.extend_from_slice(&other.violations);
    }

    /// Part of the samples at which everything could be read at once.
    pub fn p_restorable_now(&self) -> f64 {
        self.restorable_now as f64 / self.samples.max(1) as f64
    }

    /// Part of the samples at which everything could be read within 48 hours.
    pub fn p_restorable_in_window(&self) -> f64 {
        self.restorable_in_window as f64 / self.samples.max(1) as f64
    }

    /// Losses a year: measured, and the bounds that hold with 95 % probability.
    pub fn losses_per_year(&self) -> (f64, f64, f64) {
        let years = self.years.max(f64::MIN_POSITIVE);
        let (low, high) = poisson_interval(self.losses, 1.96);
        (self.losses as f64 / years, low / years, high / years)
    }
}

/// Between which means a Poisson count of `count` is likely, `z` standard deviations of a normal distribution to each
/// side: Wilson and Hilferty's approximation of the exact (Garwood) interval.
pub fn poisson_interval(count: u64, z: f64) -> (f64, f64) {
    let bound = |count: f64, z: f64| {
        let ninth = 1.0 / (9.0 * count);
        count * (1.0 - ninth + z * ninth.sqrt()).max(0.0).powi(3)
    };
    let low = if count == 0 { 0.0 } else { bound(count as f64, -z) };
    (low, bound(count as f64 + 1.0, z))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bounds from tables of the exact interval.
    #[test]
    fn intervals_are_close_to_the_exact_ones() {
        for (count, low, high) in [
            (0, 0.0, 3.69),
            (1, 0.025, 5.57),
            (10, 4.80, 18.39),
            (100, 81.36, 121.63),
        ] {
            let (found_low, found_high) = poisson_interval(count, 1.96);
            assert!((found_low - low).abs() < 0.05 + low * 0.01, "{count}: {found_low}");
            assert!((found_high - high).abs() < 0.05 + high * 0.02, "{count}: {found_high}");
        }
    }
}
