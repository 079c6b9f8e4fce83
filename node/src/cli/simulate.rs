//! `simulate`: how long a grid like this keeps a backup, and how often it can be read: simulated years beside the formula.
//!
//! Needs no account and no daemon; where there is an account, its grid and policy are the defaults.

use std::time::Instant;

use api::failure::{Exit, Failure};
use api::message::{Message, SimulateSummary, Summary};
use api::output::Output;
use engine::config::{ConfigFile, TOLERATE_MAX};
use engine::home::HomePaths;
use friendnet::roster::Roster;
use upload_queue::planner::{Losses, forecast, losses_per_year, plan_code};
use upload_queue::simulate;
use upload_queue::simulate::report::Report;
use upload_queue::simulate::scenario::Scenario;

use super::execute::unwritable;
use crate::render::{RenderOptions, Renderer};

/// Most friends that are simulated: the grids this program is for.
const FRIENDS_MAX: u16 = 30;
/// Friends where no account says how many there are.
const FRIENDS: u16 = 5;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Friends in the grid [default: as many peers as this account has, else 5]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=i64::from(FRIENDS_MAX)))]
    friends: Option<u16>,
    /// Part of the time that each friend is on, 0 to 1
    #[arg(long, default_value_t = 0.9, value_name = "P", value_parser = part)]
    uptime: f64,
    /// Friends that may vanish [default: as configured, else 2]
    #[arg(long, value_name = "T", value_parser = clap::value_parser!(u16).range(0..=i64::from(TOLERATE_MAX)))]
    tolerate: Option<u16>,
    /// Years of each grid
    #[arg(long, default_value_t = 5, value_name = "Y", value_parser = clap::value_parser!(u16).range(1..=100))]
    years: u16,
    /// Grids
    #[arg(long, default_value_t = 100, value_name = "R", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    runs: u32,
    /// How often a friend is lost for good in a year: a disk dies, somebody quits
    #[arg(long, default_value_t = 0.05, value_name = "L", value_parser = rate)]
    loss_per_year: f64,
    /// Days until a new friend takes the place of a lost one, on average
    #[arg(long, default_value_t = 30, value_name = "D", value_parser = clap::value_parser!(u16).range(1..=3650))]
    replace_days: u16,
    /// Replays a simulation [default: a random one, which is printed]
    #[arg(long, value_name = "S")]
    seed: Option<u64>,
}

/// Simulates, and shows what came out.
pub fn run(args: &Args, paths: Option<&HomePaths>, options: RenderOptions) -> Result<Exit, Failure> {
    let (friends, tolerate) = paths.map(own_grid).transpose()?.flatten().unwrap_or((FRIENDS, 2));
    let friends = args.friends.unwrap_or(friends);
    let tolerate = args.tolerate.unwrap_or(tolerate);
    let random = || {
        getrandom::u32()
            .map(u64::from)
            .map_err(|error| Failure::context("No random seed was given", &error))
    };
    let seed = args.seed.map_or_else(random, Ok)?;
    let mut scenario = Scenario::uniform(friends.into(), args.uptime, u8::try_from(tolerate).unwrap_or(u8::MAX));
    scenario.years = args.years.into();
    scenario.losses_per_year = args.loss_per_year;
    scenario.replace_days = Some(args.replace_days.into());
    let started = Instant::now();
    let mut report = Report::default();
    for one in simulate::run_all(args.runs.into(), seed, |_| scenario.clone()) {
        report.merge(&one);
    }
    let mut summary = summary(&scenario, &report);
    (summary.runs, summary.seed) = (args.runs.into(), seed);
    summary.uptime = args.uptime;
    summary.seconds = started.elapsed().as_secs_f64();
    let is_sound = summary.violations == 0;
    let mut renderer = Renderer::stdout(options);
    let shown = renderer.show(&Output::Message(Message::from(Summary::Simulate(summary))));
    match shown.and_then(|()| renderer.finish()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(unwritable(&error)),
        _ if is_sound => Ok(Exit::Done),
        _ => Ok(Exit::Failed),
    }
}

fn summary(scenario: &Scenario, report: &Report) -> SimulateSummary {
    let domains = scenario.domains();
    let (k, n) = plan_code(scenario.tolerate, &domains);
    let (needed, made) = (usize::from(k), usize::from(n));
    let usual = Losses::on_domains(made, domains.len());
    let spare = domains.len() > made;
    let losses = Losses {
        per_year: scenario.losses_per_year,
        // Without a domain to spare a share waits for the new friend, and for nobody's patience.
        repair_days: if spare {
            usual.repair_days
        } else {
            scenario.replace_days.unwrap_or(usual.repair_days)
        },
    };
    let formula = forecast(needed, &domains[..made.min(domains.len())], losses);
    let (measured, low, high) = report.losses_per_year();
    SimulateSummary {
        friends: scenario.friends.len() as u32,
        tolerate: scenario.tolerate.into(),
        k: k.into(),
        n: n.into(),
        friend_losses_per_year: scenario.losses_per_year,
        years: scenario.years,
        p_restorable_now: report.p_restorable_now(),
        p_restorable_now_formula: formula.restorable_now,
        p_restorable_48h: report.p_restorable_in_window(),
        p_restorable_48h_formula: formula.restorable_in_window,
        losses: report.losses,
        losses_per_year: measured,
        losses_per_year_low: low,
        losses_per_year_high: high,
        losses_per_year_formula: losses_per_year(needed, made, losses),
        friends_lost: report.deaths,
        repair_bytes_per_year: (report.repair_bytes as f64 / report.years.max(f64::MIN_POSITIVE)) as u64,
        repair_days: report.repairs.mean_days(),
        violations: report.violations.len() as u64,
        ..SimulateSummary::default()
    }
}

/// Peers and tolerance of the account in this home, if there is one.
fn own_grid(paths: &HomePaths) -> Result<Option<(u16, u16)>, Failure> {
    if !paths.has_account() {
        return Ok(None);
    }
    let file = ConfigFile::open(&paths.config())?;
    let roster = Roster::load(&paths.roster());
    let friends = roster.map_or(0, |roster| roster.members().count().saturating_sub(1));
    let config = file.config();
    let folders = config.peers.values().filter(|peer| peer.url.is_some()).count();
    let peers = u16::try_from(friends + folders).unwrap_or(u16::MAX).min(FRIENDS_MAX);
    Ok(Some((if peers == 0 { FRIENDS } else { peers }, config.tolerate)))
}

fn part(text: &str) -> Result<f64, String> {
    let number: f64 = text.parse().map_err(|_| format!("`{text}` is not a number"))?;
    (0.01..=1.0)
        .contains(&number)
        .then_some(number)
        .ok_or_else(|| format!("{text} is not from 0.01 to 1"))
}

fn rate(text: &str) -> Result<f64, String> {
    let number: f64 = text.parse().map_err(|_| format!("`{text}` is not a number"))?;
    (0.0..=50.0)
        .contains(&number)
        .then_some(number)
        .ok_or_else(|| format!("{text} is not from 0 to 50"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_simulated_stands_beside_the_formula() {
        let scenario = Scenario {
            years: 1.0,
            ..Scenario::uniform(5, 0.9, 2)
        };
        let mut report = Report::default();
        for one in simulate::run_all(10, 1, |_| scenario.clone()) {
            report.merge(&one);
        }
        let summary = summary(&scenario, &report);
        assert_eq!((summary.k, summary.n, summary.violations), (3, 5, 0));
        assert!(
            (summary.p_restorable_now - summary.p_restorable_now_formula).abs() < 0.05,
            "{summary:?}"
        );
        assert!(part("1.5").is_err() && part("x").is_err() && part("0.5") == Ok(0.5) && rate("-1").is_err());
    }
}
