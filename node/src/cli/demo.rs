//! `demo`: the whole story on one machine, with real processes: a grid of friends, a backup, friends and laptop lost, a
//! restore from the phrase alone, a comparison byte for byte.

use std::path::{Path, PathBuf};
use std::time::Instant;

mod compare;
mod folder;
mod grid;

use api::failure::{Exit, Failure};
use api::human::ByteSize;
use api::message::{DemoSummary, Message, Summary};
use engine::config::TOLERATE_MAX;

use self::compare::{Comparison, compare};
use self::grid::{Grid, Node};
use super::context::absolute;
use super::signals::Signals;
use crate::render::RenderOptions;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// What to back up [default: a small made-up folder with odd files]
    dir: Option<PathBuf>,
    /// Friends in the grid
    #[arg(long, default_value_t = 5, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=30))]
    peers: u16,
    /// Friends that vanish
    #[arg(long, default_value_t = 2, value_name = "N", value_parser = clap::value_parser!(u16).range(0..=i64::from(TOLERATE_MAX)))]
    tolerate: u16,
    /// Keep the temporary folder
    #[arg(long)]
    keep: bool,
}

/// Tells the story; processes and folders are gone afterwards, however it ends.
pub async fn run(args: Args, options: RenderOptions) -> Result<Exit, Failure> {
    if args.tolerate >= args.peers {
        return Err(Failure::new(
            Exit::Usage,
            format!("{} of {} friends cannot vanish", args.tolerate, args.peers),
        )
        .hint("at least one has to stay: use a larger --peers or a smaller --tolerate"));
    }
    let signals = Signals::listen()?;
    let work = tempfile::Builder::new()
        .prefix("gridbackup-demo-")
        .tempdir()
        .map_err(|error| Failure::context("A temporary folder cannot be made", &error))?;
    let mut narrator = Narrator {
        step: 0,
        silent: options.json || options.quiet,
    };
    let told = tokio::select! {
        told = story(&args, work.path(), &mut narrator) => told,
        () = signals.stop.cancelled() => Err(Failure::interrupted()),
    };
    if args.keep {
        let path = work.keep();
        narrator.aside(&format!("Everything is kept in {}", path.display()));
    }
    let summary = told?;
    let identical = summary.identical;
    if options.json {
        let line = serde_json::to_string(&Message::from(Summary::Demo(summary)));
        let line = line.map_err(|error| Failure::from_error(&error))?;
        super::completions::print((line + "\n").as_bytes())?;
    }
    match identical {
        true => Ok(Exit::Done),
        false => Err(
            Failure::new(Exit::Failed, "What was restored differs from what was backed up")
                .hint("please report it; with --keep both are kept"),
        ),
    }
}

async fn story(args: &Args, work: &Path, narrator: &mut Narrator) -> Result<DemoSummary, Failure> {
    let source = match &args.dir {
        Some(dir) => absolute(dir)?.to_path(),
        None => folder::make_up(&work.join("documents"))
            .map_err(|error| Failure::context("The made-up folder cannot be written", &error))?,
    };
    let size = compare::measure(&source)?;
    narrator.step(&format!(
        "Source: {} with {} files, {}",
        source.display(),
        size.files,
        ByteSize(size.bytes)
    ));

    let owner = work.join("laptop");
    let phrase = work.join("phrase.txt");
    let mut grid = Grid::new(work)?;
    grid.init(&owner, "laptop", args.tolerate, Some(&phrase)).await?;
    let mut friends = befriend(&mut grid, args, &owner).await?;
    narrator.step(&format!(
        "{} friends' nodes run on loopback and joined the laptop's grid by tickets",
        friends.len()
    ));

    let seconds_backup = back_up(&grid, &owner, &source, size.bytes, narrator).await?;

    for friend in friends.drain(..usize::from(args.tolerate)) {
        friend.kill().await;
    }
    std::fs::remove_dir_all(&owner).map_err(|error| Failure::context("The laptop's home cannot be removed", &error))?;
    narrator.step(&format!(
        "{} friends vanished (SIGKILL), and the laptop was lost with all its keys",
        args.tolerate
    ));

    let begun = Instant::now();
    let restored = recover_and_restore(&grid, &friends, work, &phrase, &source, narrator).await?;
    let seconds_restore = begun.elapsed().as_secs_f64();

    let comparison = compare(&source, &restored)?;
    narrator.comparison(&comparison);
    Ok(DemoSummary {
        files: size.files,
        bytes: size.bytes,
        peers: args.peers.into(),
        peers_stopped: args.tolerate.into(),
        identical: comparison.differences.is_empty(),
        seconds_backup,
        seconds_restore,
    })
}

/// The laptop's one backup; returns the seconds it took.
async fn back_up(
    grid: &Grid,
    owner: &Path,
    source: &Path,
    source_bytes: u64,
    narrator: &mut Narrator,
) -> Result<f64, Failure> {
    let begun = Instant::now();
    let summary = grid
        .last_message(
            owner,
            &[
                "run".into(),
                "--once".into(),
                "--listen".into(),
                grid::ANY_PORT.into(),
                source.into(),
            ],
        )
        .await?;
    let seconds_backup = begun.elapsed().as_secs_f64();
    let Message::Summary(Summary::Run(backup)) = summary else {
        return Err(grid::unexpected("run --once"));
    };
    narrator.step(&format!(
        "Backup in {seconds_backup:.1} s, {}: {} of content became {} of shares on friends' disks",
        rate(source_bytes, seconds_backup),
        ByteSize(backup.bytes_added),
        ByteSize(backup.bytes_sent),
    ));
    if !backup.complete {
        return Err(Failure::new(Exit::UnderProtected, "The backup is not complete")
            .hint("this should not happen with all friends online; please report it"));
    }
    Ok(seconds_backup)
}

/// Starts the friends' nodes and lets them join the laptop's grid, one ticket each. The laptop listens only meanwhile.
async fn befriend(grid: &mut Grid, args: &Args, owner: &Path) -> Result<Vec<Node>, Failure> {
    let mut friends = Vec::new();
    for number in 1..=args.peers {
        let name = format!("friend-{number}");
        let home = grid.home(&name);
        grid.init(&home, &name, args.tolerate, None).await?;
        friends.push(grid.start(&home, &["node".into()]).await?);
    }
    let laptop = grid.start(owner, &["run".into(), "--store-only".into()]).await?;
    for friend in &friends {
        let ticket = match grid.last_message(owner, &["invite".into()]).await? {
            Message::Ticket(ticket) => ticket.ticket,
            _ => return Err(grid::unexpected("invite")),
        };
        grid.run(friend.home(), &["join".into(), ticket.into()]).await?;
    }
    laptop.stop().await?;
    Ok(friends)
}

async fn recover_and_restore(
    grid: &Grid,
    friends: &[Node],
    work: &Path,
    phrase: &Path,
    source: &Path,
    narrator: &mut Narrator,
) -> Result<PathBuf, Failure> {
    let home = work.join("new-machine");
    let restored = work.join("restored");
    let via = friends
        .first()
        .and_then(Node::address)
        .ok_or_else(|| grid::unexpected("node"))?;
    let begun = Instant::now();
    let recover = [
        "recover".into(),
        "--phrase-file".into(),
        phrase.into(),
        "--via".into(),
        via.into(),
    ];
    grid.run(&home, &recover).await?;
    let seconds = begun.elapsed().as_secs_f64();
    narrator.step(&format!(
        "New machine: 24 words and one friend's address gave back the account in {seconds:.1} s"
    ));

    let begun = Instant::now();
    let mut from = std::ffi::OsString::from("latest:");
    from.push(source);
    let restore = ["restore".into(), from, "--target".into(), restored.clone().into()];
    let Message::Summary(Summary::Restore(summary)) = grid.last_message(&home, &restore).await? else {
        return Err(grid::unexpected("restore"));
    };
    let seconds = begun.elapsed().as_secs_f64();
    narrator.step(&format!(
        "Restored {} files from {} friends in {seconds:.1} s, {}",
        summary.files_restored,
        summary.peers_used.len(),
        rate(summary.bytes_restored, seconds),
    ));
    Ok(restored)
}

fn rate(bytes: u64, seconds: f64) -> String {
    format!("{:.1} MB/s", bytes as f64 / 1e6 / seconds.max(1e-3))
}

/// Tells the steps to a person.
struct Narrator {
    step: u32,
    silent: bool,
}

impl Narrator {
    fn step(&mut self, text: &str) {
        self.step += 1;
        self.aside(&format!("{}. {text}", self.step));
    }

    fn aside(&self, text: &str) {
        if !self.silent {
            let _nobody_reads = super::completions::print(format!("{text}\n").as_bytes());
        }
    }

    fn comparison(&mut self, comparison: &Comparison) {
        if comparison.differences.is_empty() {
            self.step(&format!(
                "Compared byte for byte, with modes, times and links: {} entries, all identical",
                comparison.entries
            ));
            return;
        }
        self.step(&format!(
            "{} DIFFERENCES in {} entries:",
            comparison.differences.len(),
            comparison.entries
        ));
        for difference in comparison.differences.iter().take(DIFFERENCES_SHOWN_MAX) {
            self.aside(&format!("   {difference}"));
        }
    }
}

/// Enough to see what is wrong.
const DIFFERENCES_SHOWN_MAX: usize = 20;
