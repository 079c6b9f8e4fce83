//! The command line: what is typed becomes a request; `cli/execute.rs` has it executed, here or by the daemon.

use std::panic::{AssertUnwindSafe, PanicHookInfo};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

mod bare;
mod cat;
mod check;
mod choice;
mod completions;
mod config;
mod context;
mod demo;
mod device;
mod device_add;
mod diff;
mod disk;
mod dump;
mod endpoint;
mod exclude;
mod execute;
mod find;
mod folder;
mod init;
mod invite;
mod join;
mod leave;
mod log;
mod ls;
mod man;
mod mount;
mod passphrase;
mod peer;
mod phrase;
mod publish;
mod queue;
mod recover;
mod repair;
mod restore;
mod retention;
mod run;
mod serving;
mod signals;
mod simulate;
mod snapshot_path;
mod snapshots;
mod stats;
mod status;
mod verify;
mod words;

use api::failure::{Exit, Failure};
use api::request::Request;
use engine::home::HomePaths;
use engine::home::passphrase::PassphraseSource;

use self::context::Context;
use crate::render::RenderOptions;
use crate::{render, stderr};

/// Back up to your friends' machines, folders and buckets; nobody but you can read it.
#[derive(Debug, Parser)]
#[command(name = "gridbackup", version, propagate_version = true, infer_subcommands = false)]
#[command(
    after_help = "Exit codes: 0 done, 1 failed, 2 wrong command line, 3 some source files could not be read, 4 something is \
                  on too few peers, 10 no account, 11 home in use, 12 wrong phrase, 13 too few shares reachable, 130 interrupted."
)]
pub struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, clap::Args)]
struct Global {
    /// Folder for config, keys and state of this node [default: the platform's config and data folders]
    #[arg(long, global = true, env = "GRIDBACKUP_HOME", value_name = "DIR")]
    home: Option<PathBuf>,
    /// Machine-readable output: one JSON object a line
    #[arg(long, global = true)]
    json: bool,
    /// Say more: causes of failures, and what happens inside (twice: everything)
    #[arg(short, long, global = true, action = clap::ArgAction::Count, conflicts_with = "quiet")]
    verbose: u8,
    /// Say only what was asked for, and failures
    #[arg(short, long, global = true)]
    quiet: bool,
    /// No progress bar
    #[arg(long, global = true)]
    no_progress: bool,
    /// File with the passphrase of locked keys in its first line; `-` reads stdin
    #[arg(
        long,
        global = true,
        env = "GRIDBACKUP_PASSPHRASE_FILE",
        value_name = "FILE",
        hide_short_help = true
    )]
    passphrase_file: Option<PathBuf>,
    /// Command that prints the passphrase of locked keys, such as `secret-tool lookup gridbackup keys`
    #[arg(
        long,
        global = true,
        env = "GRIDBACKUP_PASSPHRASE_COMMAND",
        value_name = "COMMAND",
        hide_short_help = true,
        conflicts_with = "passphrase_file"
    )]
    passphrase_command: Option<String>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// See the whole story on this machine: back up, lose friends and the laptop, restore, compare
    Demo(demo::Args),
    /// Make a new account and its 24-word recovery phrase
    Init(init::Args),
    /// Take over an account on a new machine, from its recovery phrase
    Recover(recover::Args),
    /// What is backed up
    #[command(subcommand)]
    Folder(folder::Command),
    /// What is left out
    #[command(subcommand)]
    Exclude(exclude::Command),
    /// Print a one-use ticket for a friend
    Invite(invite::Args),
    /// Join the inviter's grid
    Join(join::Args),
    /// Leave the grid for good, with the recovery phrase; this node then has a grid of its own
    Leave(leave::Args),
    /// The machines of this account
    #[command(subcommand)]
    Device(device::Command),
    /// Who keeps what for whom
    #[command(subcommand)]
    Peer(peer::Command),
    /// Run the background job: store for friends, scan, upload; `--once`: one snapshot, then exit
    Run(run::Args),
    /// Only store for friends: a home server
    Node(run::NodeArgs),
    /// Is my data safe, in one look; exits with 0 if it is, 3 if some files could not be read, 4 if it is not
    Status(status::Args),
    /// What goes up next, and why
    Queue(queue::Args),
    /// List the snapshots
    Snapshots(snapshots::Args),
    /// Add, remove or set the tags of snapshots
    Tag(snapshots::TagArgs),
    /// Keep snapshots from being forgotten by a policy
    Pin(snapshots::PinArgs),
    /// Let policies forget them again
    Unpin(snapshots::PinArgs),
    /// List a folder of a snapshot
    Ls(ls::Args),
    /// Find entries by name, in all snapshots or in one
    Find(find::Args),
    /// Write a file of a snapshot to stdout
    Cat(cat::Args),
    /// What changed between two snapshots
    Diff(diff::Args),
    /// What snapshots take: by length, deduplicated, compressed, on peers
    Stats(stats::Args),
    /// Write a snapshot or a folder of it to stdout as an archive
    Dump(dump::Args),
    /// Restore files
    Restore(restore::Args),
    /// Show every snapshot as a read-only folder tree
    Mount(mount::Args),
    /// Virtual disks whose blocks lie on the grid, for virtual machines and any file system
    #[command(subcommand)]
    Disk(disk::Command),
    /// Forget snapshots, by name or all that a policy does not keep
    Forget(retention::ForgetArgs),
    /// Have peers give up what no snapshot wants: to their trash, for 30 days
    Prune(retention::PruneArgs),
    /// Bring forgotten snapshots back, while the trash of peers has them
    Undelete(retention::UndeleteArgs),
    /// Is every share where it should be, and intact
    Check(check::Args),
    /// Read random files from the grid and compare them with the disk; the daemon does it by itself
    Verify(verify::Args),
    /// What stands between this node and its friends, and what to do about it
    Doctor,
    /// How long would a grid like this keep my data: simulated years beside the formula
    Simulate(simulate::Args),
    /// Publish a folder as a web site or media library in an S3 bucket; needs no account
    Publish(Box<publish::Args>),
    /// Build shares anew that are lost; the daemon does it by itself
    Repair(repair::Args),
    /// Lock this machine's keys with a passphrase, change it, or unlock them
    #[command(subcommand)]
    Passphrase(passphrase::Command),
    /// Stop the daemon cleanly
    Stop,
    /// Read and change settings, keeping comments
    #[command(subcommand)]
    Config(config::Command),
    /// Print a completion script
    Completions(completions::Args),
    /// Print the manual page
    Man,
}

/// The whole program.
pub fn main() -> ExitCode {
    let cli = match parse() {
        Ok(cli) => cli,
        Err(code) => return code,
    };
    let options = RenderOptions {
        json: cli.global.json,
        quiet: cli.global.quiet,
        verbose: cli.global.verbose > 0,
        no_progress: cli.global.no_progress,
        ..RenderOptions::default()
    };
    log::to_stderr(log::LogOptions {
        verbose: cli.global.verbose,
        quiet: cli.global.quiet,
        json: cli.global.json,
        dated: cli.command.as_ref().is_some_and(Command::is_daemon),
    });
    std::panic::set_hook(Box::new(tell_panic));
    // What a panic leaves half done is safe to break off: so is a killed process.
    let exit = match std::panic::catch_unwind(AssertUnwindSafe(|| run(cli, options))) {
        Ok(Ok(exit)) => exit,
        Ok(Err(failure)) => {
            complain(&failure, options);
            failure.exit
        }
        Err(_told_already) => Exit::Failed,
    };
    stderr::flush();
    ExitCode::from(exit.code())
}

/// A panic is a fault of this program: a line says so, and whoever waits for the thread gets an error.
fn tell_panic(panic: &PanicHookInfo<'_>) {
    let what = panic
        .payload_as_str()
        .unwrap_or("no reason")
        .lines()
        .next()
        .unwrap_or_default();
    let place = panic.location().map(ToString::to_string).unwrap_or_default();
    tracing::error!("A fault of gridbackup itself, please report it: {what} ({place})");
    tracing::debug!("{}", std::backtrace::Backtrace::force_capture());
}

/// Says why it failed; if nobody reads that, the exit code has to do.
fn complain(failure: &Failure, options: RenderOptions) {
    stderr::line(&render::failure(failure, options));
}

/// Parses the command line; what clap answers itself (help, version, usage errors) is printed here. A usage error is a
/// JSON object, too, if `--json` is anywhere on the line.
fn parse() -> Result<Cli, ExitCode> {
    let parsed = Cli::command()
        .try_get_matches()
        .and_then(|matches| Cli::from_arg_matches(&matches));
    parsed.map_err(|error| {
        let is_failure = error.use_stderr();
        if is_failure && std::env::args_os().any(|argument| argument == "--json") {
            let text = error.to_string();
            let line = text.lines().next().unwrap_or_default().trim_start_matches("error: ");
            let options = RenderOptions {
                json: true,
                ..RenderOptions::default()
            };
            complain(
                &Failure::new(Exit::Usage, line).hint("see `gridbackup --help`"),
                options,
            );
            stderr::flush();
        } else {
            // Help is what was asked for; a usage error that nobody reads has its exit code.
            match error.print() {
                Err(error) if !is_failure && error.kind() != std::io::ErrorKind::BrokenPipe => {
                    complain(&execute::unwritable(&error), RenderOptions::default());
                    stderr::flush();
                    return ExitCode::from(Exit::Failed.code());
                }
                _ => {}
            }
        }
        ExitCode::from(if is_failure { Exit::Usage } else { Exit::Done }.code())
    })
}

fn run(cli: Cli, options: RenderOptions) -> Result<Exit, Failure> {
    let passphrase = PassphraseSource {
        file: cli.global.passphrase_file,
        command: cli.global.passphrase_command,
    };
    let paths = || HomePaths::locate(cli.global.home.as_deref()).map(|paths| paths.with_passphrase(passphrase.clone()));
    let Some(command) = cli.command else {
        return bare::run(paths()?, options);
    };
    // What needs no home must work where none can be located.
    match command {
        Command::Completions(args) => return completions::run(&args),
        Command::Man => return man::run(),
        Command::Demo(args) => return context::block_on(demo::run(args, options))?,
        Command::Simulate(args) => return simulate::run(&args, paths().ok().as_ref(), options),
        Command::Publish(args) => return context::block_on(publish::run(*args, paths()?, options))?,
        _ => {}
    }
    let context = Context {
        paths: paths()?,
        options,
    };
    match command {
        Command::Init(args) => init::run(&context, args),
        Command::Passphrase(command) => command.run(&context),
        Command::Device(device::Command::Add(args)) => device_add::run(&context, args),
        command => context::block_on(run_async(context, command))?,
    }
}

async fn run_async(context: Context, command: Command) -> Result<Exit, Failure> {
    match command {
        Command::Recover(args) => recover::run(context, args).await,
        Command::Run(args) => run::run(context, args).await,
        Command::Node(args) => run::node(context, args).await,
        Command::Mount(args) => mount::run(context, args).await,
        Command::Config(command) => config::run(context, command).await,
        Command::Disk(command) => disk::run(context, command).await,
        command => {
            let request = command.request(&context.paths)?;
            context.execute(request).await
        }
    }
}

impl Command {
    /// What it asks.
    fn request(self, paths: &HomePaths) -> Result<Request, Failure> {
        Ok(match self {
            Self::Run(args) => args.request()?,
            Self::Mount(args) => args.request()?,
            Self::Config(command) => command.request(),
            Self::Disk(command) => command.request()?,
            Self::Folder(command) => command.request()?,
            Self::Exclude(command) => command.request()?,
            Self::Invite(args) => args.request(),
            Self::Join(args) => args.request(paths)?,
            Self::Leave(args) => args.request(paths)?,
            Self::Device(command) => command.request(paths)?,
            Self::Peer(command) => command.request()?,
            Self::Status(args) => args.request()?,
            Self::Queue(args) => args.request(),
            Self::Snapshots(args) => args.request()?,
            Self::Tag(args) => args.request(),
            Self::Pin(args) => args.pin(),
            Self::Unpin(args) => args.unpin(),
            Self::Ls(args) => args.request(),
            Self::Cat(args) => args.request()?,
            Self::Diff(args) => args.request(),
            Self::Stats(args) => args.request(),
            Self::Dump(args) => args.request(),
            Self::Verify(args) => args.request(),
            Self::Find(args) => args.request(),
            Self::Check(args) => args.request(),
            Self::Repair(args) => args.request(),
            Self::Restore(args) => args.request()?,
            Self::Doctor => Request::Doctor,
            Self::Forget(args) => args.request(),
            Self::Prune(args) => args.request(),
            Self::Undelete(args) => args.request(),
            Self::Stop => Request::Stop,
            Self::Demo(_)
            | Self::Simulate(_)
            | Self::Publish(_)
            | Self::Init(_)
            | Self::Recover(_)
            | Self::Node(_)
            | Self::Passphrase(_)
            | Self::Completions(_)
            | Self::Man => unreachable!("these do more than ask, and were answered before"),
        })
    }

    /// Runs until it is told to stop, and what it says ends up in a log.
    fn is_daemon(&self) -> bool {
        match self {
            Self::Node(_) => true,
            Self::Run(args) => args.is_daemon(),
            _ => false,
        }
    }
}

/// The command tree, for completions, the manual and tests.
fn command() -> clap::Command {
    Cli::command()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use api::request::VERBS;

    use super::*;

    /// A command line for each verb.
    const TYPED: &[&str] = &[
        "stop",
        "folder ls",
        "folder add /",
        "folder rm /",
        "exclude ls",
        "exclude add x",
        "exclude rm x",
        "config get",
        "config set tolerate 1",
        "invite",
        "join TICKET",
        "device ls",
        "peer ls",
        "peer evict bob",
        "status",
        "queue",
        "doctor",
        "run --once",
        "snapshots",
        "tag latest --add x",
        "pin latest",
        "ls",
        "find x",
        "cat latest:/x",
        "diff latest~1 latest",
        "dump latest",
        "stats",
        "verify",
        "restore latest --target /x",
        "mount /x",
        "forget",
        "prune",
        "undelete",
        "check",
        "repair",
        "disk ls",
        "disk info vm",
        "disk create vm --size 1G",
        "disk serve vm --nbd unix:/x",
        "disk flush vm",
        "disk snapshot vm one",
        "disk snapshot vm one --delete",
        "disk rollback vm one",
        "disk clone vm other",
        "disk resize vm 2G",
        "disk salvage vm other",
        "disk export vm /x",
        "disk import vm /x",
        "disk check vm",
        "disk voters vm",
        "disk voters vm --replace",
        "disk erase vm --force",
        "disk rm vm --force",
        "peer add usb dir:/x",
        "peer rm usb",
        "peer set usb --quota 1G",
    ];

    /// Verbs that no command line alone leads to, and what does.
    const NOT_TYPED: &[(&str, &str)] = &[
        ("ready", "`run` asks whether it is a daemon that has the home"),
        ("say", "`leave` and `device revoke` ask it of a home, with the 24 words"),
        ("recover", "`recover` makes the home first"),
    ];

    #[test]
    fn every_verb_is_reached_from_the_command_line() {
        let paths = HomePaths::locate(Some(Path::new("/nowhere"))).unwrap();
        let asked = |line: &&str| {
            let words = ["gridbackup"].into_iter().chain(line.split(' '));
            let command = Cli::try_parse_from(words).unwrap().command.unwrap();
            command.request(&paths).unwrap().verb().name
        };
        let mut reached: Vec<&str> = TYPED.iter().map(asked).collect();
        reached.extend(NOT_TYPED.iter().map(|(name, _)| *name));
        let verbs: BTreeSet<&str> = VERBS.iter().map(|verb| verb.name).collect();
        assert_eq!(reached.len(), verbs.len(), "a verb is named twice");
        assert_eq!(reached.into_iter().collect::<BTreeSet<_>>(), verbs);
    }

    #[test]
    fn the_command_tree_is_sound() {
        command().debug_assert();
    }

    /// It was taken for `publish` without arguments once an argument of it was one of a shared group.
    #[test]
    fn what_publish_is_given_reaches_it() {
        for more in [&[][..], &["--endpoint", "http://x", "--region", "r"], &["--dry-run"]] {
            let words = ["gridbackup", "publish", "folder", "s3://bucket"];
            let cli = Cli::try_parse_from(words.iter().chain(more)).unwrap();
            let Some(Command::Publish(args)) = cli.command else {
                panic!("{more:?}: another command");
            };
            assert!(args.is_complete(), "{more:?}");
        }
    }

    #[test]
    fn every_command_and_flag_is_described() {
        fn visit(command: &clap::Command) {
            assert!(
                command.get_about().is_some(),
                "{} has no description",
                command.get_name()
            );
            for argument in command.get_arguments().filter(|argument| !argument.is_hide_set()) {
                assert!(
                    argument.get_help().is_some(),
                    "{} {}",
                    command.get_name(),
                    argument.get_id()
                );
            }
            command
                .get_subcommands()
                .filter(|sub| sub.get_name() != "help")
                .for_each(visit);
        }
        visit(&command());
    }
}
