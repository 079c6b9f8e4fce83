//! `recover`: a new machine takes over an account from its phrase and somebody who holds its backups.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use proto::keys::AccountKeys;
use proto::phrase::{PhraseError, Seed};
use zeroize::Zeroizing;

use super::context::Context;
use super::endpoint::EndpointArgs;
use super::init;
use super::peer::absolute_url;
use crate::config::TOLERATE_MAX;
use crate::failure::{Exit, Failure};
use crate::home::{HomeLock, Identity};
use crate::request::Request;

/// Arguments.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// File with the 24 words; `-` reads them from stdin
    #[arg(long, value_name = "FILE")]
    phrase_file: PathBuf,
    /// Who to ask: tickets, addresses of friends, `dir:PATH`, `s3://BUCKET[/PREFIX]`
    #[arg(long, required = true, num_args = 1.., value_name = "TICKET-OR-ADDRESS")]
    via: Vec<String>,
    #[command(flatten)]
    endpoint: EndpointArgs,
    /// Go back to the newest snapshot made before this time (2026-11-21T08:00, or with a zone), as far as friends keep older
    /// heads: 30 days. For when a thief has published something else
    #[arg(long, value_name = "TIME", value_parser = moment)]
    before: Option<Timestamp>,
    /// This node's name for friends [default: the host's name]
    #[arg(long)]
    name: Option<String>,
    /// Friends that may vanish for good without loss
    #[arg(long, default_value_t = 2, value_name = "N", value_parser = clap::value_parser!(u16).range(0..=i64::from(TOLERATE_MAX)))]
    tolerate: u16,
}

/// Far above 24 words with numbers and line breaks.
const PHRASE_BYTES_MAX: u64 = 4096;

/// Makes the home, then lets the engine find the backups. Repeatable: a second run with the same phrase goes on.
pub async fn run(context: Context, args: Args) -> Result<Exit, Failure> {
    let seed = read_phrase(&args.phrase_file)?;
    let via = args
        .via
        .iter()
        .map(|address| absolute_url(address).map(|url| args.endpoint.url(url)))
        .collect::<Result<Vec<_>, _>>()?;
    let paths = &context.paths;
    if paths.has_account() {
        let there = Identity::read(paths)?.account.account_id();
        if there != AccountKeys::from_seed(&seed).account_id() {
            return Err(Failure::new(
                Exit::WrongPhrase,
                format!("The account in {} is not the phrase's", paths.state_dir().display()),
            )
            .hint("name another folder with --home DIR, or use the other phrase"));
        }
    } else {
        paths.create()?;
        let lock = HomeLock::take(paths)?;
        init::create(paths, &seed, args.name, args.tolerate)?;
        drop(lock);
    }
    context
        .execute(Request::Recover {
            via,
            before: args.before,
        })
        .await
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

fn read_phrase(file: &Path) -> Result<Seed, Failure> {
    let mut words = Zeroizing::new(String::new());
    let read = if file == Path::new("-") {
        std::io::stdin().take(PHRASE_BYTES_MAX).read_to_string(&mut words)
    } else {
        File::open(file).and_then(|file| file.take(PHRASE_BYTES_MAX).read_to_string(&mut words))
    };
    read.map_err(|error| Failure::context(format!("`{}` cannot be read: {error}", file.display()), &error))?;
    Seed::from_phrase(&words).map_err(|error| {
        let hint = match error {
            PhraseError::Count { .. } => "write all 24 words, separated by spaces",
            PhraseError::UnknownWord { .. } | PhraseError::Checksum => "compare each word with what you wrote down",
        };
        Failure::from_error(&error).exit(Exit::WrongPhrase).hint(hint)
    })
}
