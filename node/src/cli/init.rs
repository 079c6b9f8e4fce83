//! `init`: a new account and device.

use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};

use api::failure::{Exit, Failure};
use api::message::Initialized;
use api::output::Output;
use engine::config::{ConfigFile, TOLERATE_MAX};
use engine::home::{
    DEVICE_NAME_BYTES_MAX, HomeLock, HomePaths, Identity, fill_random, keep_private, left_cert, write_private,
};
use proto::keys::{AccountKeys, power};
use proto::phrase::Seed;

use super::context::{Context, absolute};
use super::phrase;
use crate::render::Renderer;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// This node's name for friends [default: the host's name]
    #[arg(long)]
    name: Option<String>,
    /// Write the recovery phrase to this new file (mode 0600) instead of showing it
    #[arg(long, value_name = "FILE")]
    phrase_out: Option<PathBuf>,
    /// Friends that may vanish for good without loss
    #[arg(long, default_value_t = 2, value_name = "N", value_parser = clap::value_parser!(u16).range(0..=i64::from(TOLERATE_MAX)))]
    tolerate: u16,
}

/// Makes the account and says its phrase. Cut off anywhere, it can be run again.
pub fn run(context: &Context, args: Args) -> Result<Exit, Failure> {
    let paths = &context.paths;
    refuse_existing(paths)?;
    paths.create()?;
    let _lock = HomeLock::take(paths)?;
    refuse_existing(paths)?;
    let seed = seed(paths, args.phrase_out.as_deref())?;
    let phrase = seed.to_phrase();
    let identity = begin(paths, &seed, args.name, args.tolerate)?;
    backup::catalog::open(&paths.catalog())?;
    finish(paths, &identity, args.phrase_out.as_deref(), &phrase)?;
    let message = Initialized {
        account: identity.account.account_id().to_string(),
        device: identity.cert.device.to_string(),
        peer_id: identity.peer_id(),
        phrase: args.phrase_out.is_none().then(|| phrase.to_string()),
        phrase_file: args.phrase_out.as_deref().map(absolute).transpose()?,
    };
    let mut renderer = Renderer::stdout(context.options);
    let shown = renderer
        .show(&Output::Message(message.into()))
        .and_then(|()| renderer.finish());
    shown.map_err(|error| {
        Failure::context(format!("The recovery phrase could not be shown: {error}"), &error)
            .hint("remove this home and run `gridbackup init` again")
    })?;
    Ok(Exit::Done)
}

fn refuse_existing(paths: &HomePaths) -> Result<(), Failure> {
    let home = paths.state_dir().display();
    if paths.has_account() {
        return Err(
            Failure::new(Exit::Failed, format!("There is an account in {home} already"))
                .hint("use it, or name another folder with --home DIR"),
        );
    }
    if paths.was_used() {
        return Err(Failure::new(
            Exit::Failed,
            format!("{home} had an account, and its account.key is gone"),
        )
        .hint("put that file back, or take the account over here with `gridbackup recover --phrase-file FILE`"));
    }
    Ok(())
}

/// A new account's seed; that of one whose making was cut off after its phrase was written to `phrase_out`.
fn seed(paths: &HomePaths, phrase_out: Option<&Path>) -> Result<Seed, Failure> {
    if let Some(file) = phrase_out.filter(|file| file.exists()) {
        let is_left = |seed: &Seed| {
            let account = AccountKeys::from_seed(seed).account_id();
            left_cert(paths).is_ok_and(|cert| cert.is_some_and(|cert| cert.account == account))
        };
        return phrase::read_phrase(file).ok().filter(is_left).ok_or_else(|| {
            Failure::new(
                Exit::Failed,
                format!("`{}` is there already and is never overwritten", file.display()),
            )
            .hint("name a new file with --phrase-out")
        });
    }
    let mut seed = Seed([0; 32]);
    fill_random(&mut seed.0)?;
    Ok(seed)
}

/// Writes the phrase, then the account's key: the other order could leave an account that nobody can recover. With an error
/// neither stays.
fn finish(paths: &HomePaths, identity: &Identity, phrase_out: Option<&Path>, phrase: &str) -> Result<(), Failure> {
    let Some(file) = phrase_out else {
        return identity.finish(paths);
    };
    match file.exists() {
        true => keep_private(file),
        false => write_private(file, format!("{phrase}\n").as_bytes()),
    }?;
    identity.finish(paths).inspect_err(|_| {
        // The words of an account that does not exist would be taken for those of the next one.
        let _stays_at_worst = std::fs::remove_file(file);
    })
}

/// Writes config.toml (unless there is one) and this device's files for `seed`'s account; the caller holds the lock. What an
/// earlier attempt left is used. The home has no account yet: that is for `Identity::finish`.
pub fn begin(paths: &HomePaths, seed: &Seed, name: Option<String>, tolerate: u16) -> Result<Identity, Failure> {
    begin_with(paths, seed, name, tolerate, power::ALL)
}

/// The same for a device with these powers.
pub fn begin_with(
    paths: &HomePaths,
    seed: &Seed,
    name: Option<String>,
    tolerate: u16,
    powers: u8,
) -> Result<Identity, Failure> {
    let name = name.unwrap_or_else(host_name);
    if name.is_empty() || name.len() > DEVICE_NAME_BYTES_MAX || name.chars().any(char::is_control) {
        return Err(
            Failure::new(Exit::Usage, "A node's name has 1 to 64 bytes of printable text")
                .hint("choose another with --name"),
        );
    }
    if !paths.config().exists() {
        let mut file = ConfigFile::parse(&paths.config(), TEMPLATE)?;
        file.set("name", &name)?;
        file.set("tolerate", &tolerate.to_string())?;
        file.set("listen", &format!("[\"/ip4/0.0.0.0/tcp/{}\"]", free_port()?))?;
        file.save()?;
    }
    let now_secs = u64::try_from(jiff::Timestamp::now().as_second()).unwrap_or(0);
    Identity::begin_with(paths, seed, &name, now_secs, powers)
}

fn host_name() -> String {
    let name = ["/proc/sys/kernel/hostname", "/etc/hostname"]
        .iter()
        .find_map(|file| std::fs::read_to_string(file).ok());
    let name: String = name
        .unwrap_or_default()
        .trim()
        .chars()
        .filter(|c| !c.is_control())
        .collect();
    if name.is_empty() || name.len() > DEVICE_NAME_BYTES_MAX {
        "node".to_owned()
    } else {
        name
    }
}

/// Ports that nodes choose from: above the registered services that people run, below the ephemeral range of Linux, from
/// which the kernel would lend the port to somebody else between two runs.
const PORTS: std::ops::Range<u16> = 20_000..32_000;

/// A port that is free now. It is stored, because friends dial it for years; chosen at random, so that several nodes of a
/// machine or behind one router do not collide.
fn free_port() -> Result<u16, Failure> {
    for _ in 0..64 {
        let mut random = [0; 2];
        fill_random(&mut random)?;
        let port = PORTS.start + u16::from_le_bytes(random) % (PORTS.end - PORTS.start);
        if TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).is_ok() {
            return Ok(port);
        }
    }
    Err(Failure::new(Exit::Failed, "No free port was found").hint("set `listen` in config.toml"))
}

const TEMPLATE: &str = r#"# gridbackup. Every key is optional; `gridbackup config get` shows all of them with their values.

# This node's name for friends.
name = ""

# Friends that may vanish for good without loss.
tolerate = 2

# What is backed up, and what is left out (gitignore-style; later rules win, `!` takes back in).
folders = []
exclude = []

# Where friends reach this node. It should keep its port.
listen = []

# Bytes a second, for example "2M"; without them there is no limit.
# limit_upload = "2M"
# limit_download = "10M"
# [[schedule]]        # full speed at night (at the end of the file)
# from = "01:00"
# to = "07:00"

# Offered to all friends together ("auto": half of what is free, 100G at most), and what may wait here for friends who are away.
store_max = "auto"
spool_max = "10G"
# What stays free of a disk ("auto": 1% of it or 1G, the larger; 10% of a small one), for example "2%" or "20G".
min_free = "auto"

# How often the daemon looks for changes.
interval = "1h"
"#;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_template_says_the_built_in_values() {
        let file = ConfigFile::parse(std::path::Path::new("/x"), TEMPLATE).unwrap();
        let expected = engine::config::Config {
            listen: Vec::new(),
            ..Default::default()
        };
        assert_eq!(*file.config(), expected);
    }
}
