//! How well a code keeps data on given peers: whether it can be restored now, within two days, and whether it is there in a
//! year. Plain arithmetic on measured uptimes; `gridbackup simulate` puts simulated years beside it.
//!
//! All shares of a backup lie on the same few friends, so what holds for one pack holds for the whole backup: nothing is
//! multiplied by the number of packs.

use crate::placement::code_for;

/// A restore is promised within this many hours, not at once: most friends sleep at night.
pub const RESTORE_WINDOW_HOURS: f64 = 48.0;
/// Hours in which a peer that is not always on is on and off once: people live by days.
const CYCLE_HOURS: f64 = 24.0;
/// A code is good enough when a restore within the window fails less often than this
/// (docs/decisions/0006-code-from-tolerate.md).
const WINDOW_FAILURE_MAX: f64 = 1e-4;
/// And is lost within a year less often than this.
const LOSS_MAX: f64 = 1e-3;
/// Days until somebody who has lost a friend's machine finds another one. Chosen: a month of asking around.
const FRIEND_SEARCH_DAYS: f64 = 30.0;
const DAYS_PER_YEAR: f64 = 365.25;

/// What is believed of a peer.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Uptime(f64);

impl Uptime {
    /// A share of time, 0 to 1; anything else is cut to that.
    pub fn new(share: f64) -> Self {
        Self(if share.is_nan() { 0.0 } else { share.clamp(0.0, 1.0) })
    }

    /// Probability that the peer answers at a random moment.
    pub fn now(self) -> f64 {
        self.0
    }

    /// Probability that the peer answers at some time within the restore window: it is on now, or its time off, on average
    /// (1 − uptime) of a day long and without memory, ends before.
    pub fn within_window(self) -> f64 {
        let off_hours = CYCLE_HOURS * (1.0 - self.0);
        if self.0 == 0.0 || off_hours == 0.0 {
            return self.0;
        }
        1.0 - (1.0 - self.0) * (-RESTORE_WINDOW_HOURS / off_hours).exp()
    }
}

/// Probability that at least `k` of independent events happen (the Poisson binomial distribution's tail).
pub fn at_least(k: usize, probabilities: impl IntoIterator<Item = f64>) -> f64 {
    // `counts[i]`: probability that i happened so far; all from k on are one.
    let mut counts = vec![0.0; k + 1];
    counts[0] = 1.0;
    for probability in probabilities {
        for count in (0..=k).rev() {
            let from_below = if count > 0 {
                counts[count - 1] * probability
            } else {
                0.0
            };
            let stays = if count == k { 1.0 } else { 1.0 - probability };
            counts[count] = counts[count] * stays + from_below;
        }
    }
    counts[k].clamp(0.0, 1.0)
}

/// How peers come to be lost for good, and how soon that is made up for.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Losses {
    /// Losses of one peer a year (a disk dies, a friend quits), as a rate.
    pub per_year: f64,
    /// Days from a loss until its shares are rebuilt elsewhere.
    pub repair_days: f64,
}

impl Default for Losses {
    /// A disk or a friend in twenty a year, and two weeks of waiting before a silent friend counts as lost.
    fn default() -> Self {
        Self {
            per_year: 0.05,
            repair_days: 15.0,
        }
    }
}

/// Times a year that fewer than `k` of `n` shares are left. Each share alternates between there (exponential with rate
/// λ) and lost (for T, however that is distributed); in equilibrium the number of lost ones is binomial with
/// q = T / (T + 1/λ), and the (n−k+1)th is lost at the rate n · 1/(T + 1/λ) · P(n−k of the other n−1 are lost).
pub fn losses_per_year(k: usize, n: usize, losses: Losses) -> f64 {
    if k == 0 || n < k || losses.per_year <= 0.0 {
        return if n < k { f64::INFINITY } else { 0.0 };
    }
    let repair_years = losses.repair_days.max(0.0) / DAYS_PER_YEAR;
    let cycle = repair_years + 1.0 / losses.per_year;
    let (missing, others) = (n - k, n - 1);
    let q = repair_years / cycle;
    n as f64 / cycle * binomial(others, missing) * q.powi(missing as i32) * (1.0 - q).powi((others - missing) as i32)
}

/// Probability that data is lost within a year.
pub fn loss_in_a_year(k: usize, n: usize, losses: Losses) -> f64 {
    1.0 - (-losses_per_year(k, n, losses)).exp()
}

fn binomial(n: usize, k: usize) -> f64 {
    (0..k).fold(1.0, |product, i| product * (n - i) as f64 / (i + 1) as f64)
}

/// What a grid promises.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Forecast {
    /// Probability that everything can be read at a random moment.
    pub restorable_now: f64,
    /// Probability that everything can be read within 48 hours.
    pub restorable_in_window: f64,
    /// Probability that something is lost within a year.
    pub loss_in_a_year: f64,
}

/// What holds for data of which any `k` of the shares at these peers (one each) suffice.
pub fn forecast(k: usize, holders: &[Uptime], losses: Losses) -> Forecast {
    Forecast {
        restorable_now: at_least(k, holders.iter().map(|peer| peer.now())),
        restorable_in_window: at_least(k, holders.iter().map(|peer| peer.within_window())),
        loss_in_a_year: loss_in_a_year(k, holders.len(), losses),
    }
}

/// Shares needed and made, for `tolerate` friends that may vanish and failure domains with these uptimes: the code for
/// their number, with as few needed shares as it takes for a restore within the window to be all but certain.
pub fn plan_code(tolerate: u8, domains: &[Uptime]) -> (u8, u8) {
    let (mut k, n) = code_for(tolerate, domains.len());
    // The best n hold the shares at least as surely as any: the estimate is for those.
    let mut best: Vec<f64> = domains.iter().map(|peer| peer.within_window()).collect();
    best.sort_by(|a, b| b.total_cmp(a));
    best.truncate(usize::from(n));
    while k > 1 && 1.0 - at_least(usize::from(k), best.iter().copied()) > WINDOW_FAILURE_MAX {
        k -= 1;
    }
    (k, n)
}

impl Losses {
    /// As [`Losses::default`], for a code of `n` shares on this many failure domains: without one to spare, a lost share
    /// waits until a new friend is found.
    pub fn on_domains(n: usize, domains: usize) -> Self {
        let usual = Self::default();
        Self {
            repair_days: usual.repair_days + if domains > n { 0.0 } else { FRIEND_SEARCH_DAYS },
            ..usual
        }
    }
}

/// What would help most.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Advice {
    /// Nothing is needed.
    Enough,
    /// One more friend, in a household of its own.
    AnotherFriend,
    /// A peer that is always on: a home server, or a bucket.
    AlwaysOnPeer,
}

/// What a new friend or an always-on peer would change, if anything needs to change: enough domains for the policy, then
/// a restore within the window, then durability. A friend is preferred where it does as much.
pub fn advise(tolerate: u8, domains: &[Uptime]) -> Advice {
    let failures = |more: Option<f64>| {
        let grown: Vec<Uptime> = domains.iter().copied().chain(more.map(Uptime::new)).collect();
        let (k, n) = plan_code(tolerate, &grown);
        let (k, n) = (usize::from(k), usize::from(n));
        let mut best = grown.clone();
        best.sort_by(|a, b| b.now().total_cmp(&a.now()));
        best.truncate(n);
        let forecast = forecast(k, &best, Losses::on_domains(n, grown.len()));
        (1.0 - forecast.restorable_in_window, forecast.loss_in_a_year)
    };
    let average = domains.iter().map(|peer| peer.now()).sum::<f64>() / domains.len().max(1) as f64;
    if domains.len() <= usize::from(tolerate) {
        return Advice::AnotherFriend;
    }
    let now = failures(None);
    if now.0 > WINDOW_FAILURE_MAX {
        let (friend, always) = (failures(Some(average)), failures(Some(1.0)));
        return if friend.0 <= (2.0 * always.0).max(WINDOW_FAILURE_MAX) {
            Advice::AnotherFriend
        } else {
            Advice::AlwaysOnPeer
        };
    }
    if now.1 > LOSS_MAX {
        Advice::AnotherFriend
    } else {
        Advice::Enough
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn close(found: f64, expected: f64) -> bool {
        (found / expected - 1.0).abs() < 0.06
    }

    #[test]
    fn unavailability_is_as_in_the_published_table() {
        // k, n, uptime, P(restore fails at a random instant): binomial sums computed independently.
        for (k, n, uptime, fails) in [
            (1, 3, 0.5, 1.25e-1),
            (2, 5, 0.9, 4.6e-4),
            (3, 7, 0.95, 6.0e-6),
            (5, 11, 0.8, 2.0e-3),
            (10, 20, 0.67, 3.5e-2),
        ] {
            let up = at_least(k, std::iter::repeat_n(uptime, n));
            assert!(close(1.0 - up, fails), "{k}/{n} at {uptime}: {:e}", 1.0 - up);
        }
    }

    #[test]
    fn a_desktop_that_runs_eight_hours_a_day_is_met_within_two_days() {
        let desktop = Uptime::new(1.0 / 3.0);
        assert!(desktop.within_window() > 0.95, "{}", desktop.within_window());
        assert_eq!(Uptime::new(0.0).within_window(), 0.0);
        assert_eq!(Uptime::new(1.0).within_window(), 1.0);
        assert_eq!(Uptime::new(f64::NAN).now(), 0.0);
    }

    #[test]
    fn quicker_repair_buys_nines() {
        let at = |repair_days| {
            let losses = Losses {
                per_year: 0.2,
                repair_days,
            };
            loss_in_a_year(2, 5, losses)
        };
        assert!(at(90.0) > 100.0 * at(10.0));
        assert!(at(30.0) < 1e-4);
        assert_eq!(loss_in_a_year(3, 2, Losses::default()), 1.0);
    }

    #[test]
    fn two_of_two_lose_with_either() {
        let losses = Losses {
            per_year: 0.1,
            repair_days: 0.0,
        };
        assert!(close(losses_per_year(2, 2, losses), 0.2));
    }

    #[test]
    fn sleepy_friends_get_a_smaller_k() {
        let server = Uptime::new(0.98);
        assert_eq!(plan_code(2, &[server; 5]), code_for(2, 5));
        let (k, n) = plan_code(2, &[Uptime::new(0.05); 5]);
        assert_eq!((k, n), (1, 5));
    }

    #[test]
    fn advice_is_what_would_help() {
        let of = |uptime, count| vec![Uptime::new(uptime); count];
        assert_eq!(advise(2, &[]), Advice::AnotherFriend);
        assert_eq!(
            advise(2, &of(1.0, 2)),
            Advice::AnotherFriend,
            "two cannot survive the loss of two"
        );
        assert_eq!(
            advise(1, &of(0.1, 2)),
            Advice::AlwaysOnPeer,
            "friends who are hardly ever on"
        );
        assert_eq!(advise(2, &of(0.98, 8)), Advice::Enough);
        assert_eq!(Losses::on_domains(6, 7), Losses::default());
        assert!(Losses::on_domains(6, 6).repair_days > Losses::default().repair_days);
    }

    proptest! {
        #[test]
        fn another_friend_never_makes_it_worse(
            uptimes in proptest::collection::vec(0.01f64..1.0, 1..12),
            k in 1usize..6,
            more in 0.0f64..1.0,
        ) {
            let holders: Vec<_> = uptimes.iter().copied().map(Uptime::new).collect();
            let mut grown = holders.clone();
            grown.push(Uptime::new(more));
            let (before, after) = (
                forecast(k, &holders, Losses::default()),
                forecast(k, &grown, Losses::default()),
            );
            prop_assert!(after.restorable_now >= before.restorable_now - 1e-12);
            prop_assert!(after.restorable_in_window >= before.restorable_now - 1e-12);
            prop_assert!(after.loss_in_a_year <= before.loss_in_a_year + 1e-12);
        }

        #[test]
        fn a_planned_code_survives_what_it_is_asked_to(
            tolerate in 0u8..4,
            uptimes in proptest::collection::vec(0.0f64..1.0, 1..25),
        ) {
            let domains: Vec<_> = uptimes.iter().copied().map(Uptime::new).collect();
            let (k, n) = plan_code(tolerate, &domains);
            prop_assert!(k >= 1 && k <= n && usize::from(n) <= domains.len().max(usize::from(tolerate) + 1));
            prop_assert!(n - k >= tolerate || k == 1);
        }
    }
}
