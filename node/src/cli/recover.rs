//! `recover`: a new machine takes over an account from its phrase and somebody who holds its backups.

use std::path::PathBuf;

use api::failure::{Exit, Failure};
use api::request::{Recover, Request};
use engine::config::{Config, TOLERATE_MAX};
use engine::home::{HomeLock, HomePaths, Identity, left_cert};
use jiff::Timestamp;
use proto::keys::{AccountKeys, power};
use proto::phrase::Seed;

use super::context::Context;
use super::endpoint::EndpointArgs;
use super::init;
use super::peer::absolute_url;
use super::phrase::read_phrase;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// File with the 24 words; `-` reads them from stdin. A home that has the account needs none
    #[arg(long, value_name = "FILE")]
    phrase_file: Option<PathBuf>,
    /// Who to ask: tickets, addresses of friends, `dir:PATH`, `s3://BUCKET[/PREFIX]`. A home that has the account asks its peers
    #[arg(long, num_args = 1.., value_name = "TICKET-OR-ADDRESS")]
    via: Vec<String>,
    #[command(flatten)]
    endpoint: EndpointArgs,
    /// Go back to the newest snapshot made before this time (2026-11-21T08:00, or with a zone), as far as friends keep older
    /// heads: 30 days. For when a thief has posted something else; revoke his machine first: it writes the times itself
    #[arg(long, value_name = "TIME", value_parser = moment)]
    before: Option<Timestamp>,
    /// This node's name for friends [default: the host's name]
    #[arg(long)]
    name: Option<String>,
    /// Friends that may vanish for good without loss [default: as it was]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(0..=i64::from(TOLERATE_MAX)))]
    tolerate: Option<u16>,
}

/// Makes the home, then lets the engine find the backups. Repeatable: a second run with the same phrase goes on.
pub async fn run(context: Context, args: Args) -> Result<Exit, Failure> {
    let seed = args.phrase_file.as_deref().map(read_phrase).transpose()?;
    let via = args
        .via
        .iter()
        .map(|address| absolute_url(address).map(|url| args.endpoint.url(url)))
        .collect::<Result<Vec<_>, _>>()?;
    let paths = &context.paths;
    if paths.has_account() {
        let cert = Identity::cert(paths)?;
        if cert.powers & power::READ == 0 {
            return Err(
                Failure::new(Exit::Failed, "This machine may only put: it reads no backups")
                    .hint("recover on another machine, or into another --home with the words"),
            );
        }
        let there = cert.account;
        if seed.is_some_and(|seed| there != AccountKeys::from_seed(&seed).account_id()) {
            return Err(other_account(paths));
        }
    } else {
        let missing = |what: &str, hint: &str| Failure::new(Exit::Usage, what.to_owned()).hint(hint);
        let home = paths.state_dir().display();
        let seed = seed.ok_or_else(|| {
            missing(
                &format!("There is no account in {home} to recover"),
                "give the 24 words with --phrase-file FILE, or name the home with --home DIR",
            )
        })?;
        if via.is_empty() && !paths.was_used() {
            return Err(missing(
                "Nobody is named who has the backups",
                "name a friend's address or ticket, a folder or a bucket with --via",
            ));
        }
        make_home(paths, &seed, args.name, args.tolerate)?;
    }
    let request = Request::Recover(Recover {
        via,
        before: args.before,
        tolerate: args.tolerate,
    });
    context.execute(request).await
}

fn make_home(paths: &HomePaths, seed: &Seed, name: Option<String>, tolerate: Option<u16>) -> Result<(), Failure> {
    paths.create()?;
    let _lock = HomeLock::take(paths)?;
    let account = AccountKeys::from_seed(seed).account_id();
    if left_cert(paths)?.is_some_and(|cert| cert.account != account) && paths.was_used() {
        return Err(other_account(paths));
    }
    // No catalog is made: until the recovery is done, this home must not be taken for one that has never backed anything up.
    init::begin(paths, seed, name, tolerate.unwrap_or(Config::default().tolerate))?.finish(paths)
}

fn other_account(paths: &HomePaths) -> Failure {
    Failure::new(
        Exit::WrongPhrase,
        format!("The account in {} is not the phrase's", paths.state_dir().display()),
    )
    .hint("name another folder with --home DIR, or use the other phrase")
}

/// A time with a zone, or one of this machine's zone.
fn moment(text: &str) -> Result<Timestamp, String> {
    if let Ok(timestamp) = text.parse() {
        return Ok(timestamp);
    }
    let local = text.parse::<jiff::civil::DateTime>();
    let local = local.and_then(|local| local.to_zoned(jiff::tz::TimeZone::system()));
    local
        .map(|zoned| zoned.timestamp())
        .map_err(|_| "a time looks like 2026-11-21T08:00".to_owned())
}
