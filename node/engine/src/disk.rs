//! Virtual disks: making, listing, committing and removing them. Serving one is `serve`, opening it `open`, and what is known of all of them
//! `known`.

use std::collections::HashSet;
use std::convert::Infallible;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use api::clock;
use api::failure::{Exit, Failure};
use api::message::{Changed, Deed, Disk, DiskFigures, DiskSnapshot, DiskState, Problem, Thing};
use api::output::Sink;
use api::request::{DiskCreate, DiskRemove, TakeOver};
use backup::catalog;
use backup::writer::WriteError;
use backup::writer::disks::DiskPost;
use data_encoding::HEXLOWER;
use disk::commit::lineage::{Origin, SnapshotEntry};
use disk::commit::opening::read_root;
use disk::running::stats::Stats;
use disks::open::{NotCommitted, OpenDisk};
use disks::record::{DiskRecord, Records, VolumeBytes};
use proto::cap_index::PackRecord;

use crate::repack::stop_flag;
use crate::{Engine, failures};

mod claim;
mod committed;
mod content;
mod edits;
mod exports;
pub(super) mod known;
mod learn;
pub(super) mod open;
mod serve;
mod voters;

use known::KnownDisk;
pub(super) use open::OpenDisks;
pub(super) use voters::DiskVotes;

/// Bytes of a journal unless asked otherwise. Chosen: some minutes of writing at the rate of a fast uplink.
const JOURNAL_BYTES: u64 = 2 << 30;
/// The least that a journal may take. Chosen: eight of its files.
const JOURNAL_BYTES_MIN: u64 = 512 << 20;
/// Longest name, in bytes; also that of an NBD export and of a file.
const NAME_BYTES_MAX: usize = disk::commit::lineage::NAME_BYTES_MAX;
/// How long `disk flush` waits for peers.
const FLUSH_PATIENCE: Duration = Duration::from_secs(600);

/// A disk's id in words.
fn id(volume: VolumeBytes) -> String {
    HEXLOWER.encode(&volume)
}

/// Names that no path, export or option reads as something else.
fn check_name(name: &str) -> Result<(), Failure> {
    let is_plain = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '.');
    let is_name = !name.is_empty() && name.chars().all(is_plain) && !name.starts_with(['-', '.']);
    if is_name && name.len() <= NAME_BYTES_MAX {
        return Ok(());
    }
    Err(Failure::new(Exit::Usage, format!("`{name}` is no name for a disk"))
        .hint("use letters, digits, `-`, `_` and `.`, 64 bytes at most, beginning with a letter or digit"))
}

impl Engine {
    pub(super) fn disk_records(&self) -> Records {
        Records::new(self.0.home.paths.disks())
    }

    pub(super) async fn create_disk(&self, asked: DiskCreate, sink: &Sink) -> Result<Exit, Failure> {
        let journal_bytes = asked.cache_size.unwrap_or(JOURNAL_BYTES);
        let cache = asked.cache.map(|cache| cache.to_path());
        self.make_disk(&asked.name, asked.size, cache.as_deref(), journal_bytes, sink)
            .await?;
        sink.send(Changed::new(Deed::Made, Thing::Disk, asked.name)).await?;
        Ok(Exit::Done)
    }

    async fn make_disk(
        &self,
        name: &str,
        size: u64,
        cache: Option<&Path>,
        journal_bytes: u64,
        sink: &Sink,
    ) -> Result<KnownDisk, Failure> {
        check_name(name)?;
        check_size(size)?;
        if journal_bytes < JOURNAL_BYTES_MIN {
            return Err(Failure::new(Exit::Usage, "So small a cache is full at once").hint("give it 512M at least"));
        }
        let config = self.config();
        let uploader = self.uploader(&config).await?;
        let _making = self.0.disks.making.lock().await;
        self.refuse_taken(name).await?;
        if let Some(cache) = &cache {
            self.check_outside_of_folders(cache)?;
            durable::create_folders(cache).map_err(|error| unusable(cache, &error))?;
        }
        let volume = new_volume()?;
        let (way, voters) = self.claim_new(volume, self.writer(uploader, &config)).await?;
        let (stop, _watch) = stop_flag(sink);
        let of = name.to_owned();
        let creating = tokio::task::spawn_blocking(move || way.create(of, size, &voters, &stop));
        let created = creating.await.map_err(failures::worker)?;
        created.map_err(|error| Failure::new(Exit::Failed, format!("`{name}` was not made: {error}")))?;
        let (records, record) = (
            self.disk_records(),
            DiskRecord::new(volume, name.to_owned(), size, cache, journal_bytes),
        );
        let put = records.put(&record);
        put.map_err(|error| unusable(&records.folder_of(volume), &error))?;
        let known = self.find_disk(&id(volume)).await?;
        if let Err(failure) = self.voters(&known).await {
            tracing::debug!("which peers vote on a new disk is not written down: {failure}");
        }
        Ok(known)
    }

    async fn refuse_taken(&self, name: &str) -> Result<(), Failure> {
        match self.known_disks().await?.iter().any(|known| known.name == name) {
            false => Ok(()),
            true => {
                Err(Failure::new(Exit::Failed, format!("There is a disk `{name}` already")).hint("choose another name"))
            }
        }
    }

    pub(super) async fn list_disks(&self, sink: &Sink) -> Result<Exit, Failure> {
        let mut disks = self.known_disks().await?;
        disks.sort_by(|one, other| (&one.name, one.volume).cmp(&(&other.name, other.volume)));
        for known in &disks {
            sink.send(self.disk_message(known, false)).await?;
        }
        Ok(Exit::Done)
    }

    /// The same for `status`: of a home that has to do with none nobody is asked.
    pub(super) async fn disks_of_status(&self) -> Result<Vec<Disk>, Failure> {
        let posted = self.0.db.read(catalog::content::posted)?;
        let is_named = posted.is_some_and(|posted| posted.body.disks.is_some());
        if !is_named && self.disk_records().all().is_ok_and(|(records, _)| records.is_empty()) {
            return Ok(Vec::new());
        }
        let mut disks = self.known_disks().await?;
        disks.sort_by(|one, other| (&one.name, one.volume).cmp(&(&other.name, other.volume)));
        Ok(disks.iter().map(|known| self.disk_message(known, false)).collect())
    }

    pub(super) async fn disk_info(&self, name: &str, sink: &Sink) -> Result<Exit, Failure> {
        let known = self.find_disk(name).await?;
        let (engine, of) = (self.clone(), known.clone());
        // Figures wait for a commit that is being made.
        let looking = tokio::task::spawn_blocking(move || engine.disk_message(&of, true));
        let mut said = looking.await.map_err(failures::worker)?;
        if said.state != DiskState::Served
            && let Some(head) = &known.head
        {
            let (packs, at) = (self.disk_packs().await?, head.root.clone());
            let reading = tokio::task::spawn_blocking(move || read_root(&at, &*packs));
            match reading.await.map_err(failures::worker)? {
                Ok(root) => {
                    said.committed = Some(clock::timestamp(root.time_ns));
                    said.snapshots = root.snapshots.iter().map(snapshot_message).collect();
                    said.origin = root
                        .origin
                        .as_ref()
                        .map(|origin| format!("{}@{}", id(origin.volume), origin.snapshot));
                }
                Err(error) => said.problem = Some(error.to_string()),
            }
        }
        // Who cannot be asked is said to be away; a root that cannot be read is said above.
        said.voters = self.voter_messages(&known).await.unwrap_or_default();
        sink.send(said).await?;
        Ok(Exit::Done)
    }

    /// Puts what was written on peers, of a disk that is open or not.
    pub(super) async fn flush_disk(&self, name: &str, sink: &Sink) -> Result<Exit, Failure> {
        let known = self.find_disk(name).await?;
        match self.0.disks.get(known.volume) {
            Some((disk, _)) => self.commit_disk(&known, &disk, sink).await?,
            None if known.record.as_ref().is_some_and(|record| record.is_ahead) => {
                let (disk, _in_use) = self.open_disk(&known, TakeOver::Never).await?;
                let committed = self.commit_disk(&known, &disk, sink).await;
                // Nobody wrote since.
                let closed = self.close_disk(&known, disk, Duration::ZERO, sink).await;
                committed.and(closed)?;
            }
            None => {}
        }
        sink.send(Changed::new(Deed::Committed, Thing::Disk, known.name))
            .await?;
        Ok(Exit::Done)
    }

    /// Waits until what was written is on peers; says what it waits for, once.
    async fn commit_disk(&self, known: &KnownDisk, disk: &OpenDisk, sink: &Sink) -> Result<(), Failure> {
        let committed = tokio::select! {
            committed = disk.committed(FLUSH_PATIENCE) => committed,
            never = say_failing(&known.name, disk, sink) => match never {},
            () = sink.stop().cancelled() => return Err(Failure::interrupted()),
        };
        match committed {
            Ok(()) => Ok(()),
            Err(error) => Err(self.not_committed(known, error).await),
        }
    }

    pub(super) async fn remove_disk(&self, asked: &DiskRemove, sink: &Sink) -> Result<Exit, Failure> {
        let known = self.find_disk(&asked.name).await?;
        let config = self.config();
        let uploader = self.uploader(&config).await?;
        if self.0.disks.is_in_use(known.volume) {
            return Err(Failure::new(Exit::Failed, format!("`{}` is served", known.name)).hint("end that first"));
        }
        if let Some(machine) = known.machine.as_ref().filter(|_| !asked.lost) {
            let error = format!("`{}` was last written by the machine {machine}", known.name);
            return Err(Failure::new(Exit::Failed, error)
                .hint("remove it there; if that was done, --lost takes back what this machine says of it"));
        }
        let writer = self.writer(uploader, &config);
        let (packs, origin) = match asked.lost {
            true => (Vec::new(), None),
            false => self.packs_to_remove(&known, sink).await?,
        };
        let _in_use = self.0.disks.take(&known)?;
        let (volume, is_lost) = (known.volume, asked.lost);
        let post = move || {
            let gone = DiskPost {
                volume,
                newest: None,
                packs: &[],
            };
            writer.post_disk(&gone, &|_| {})?;
            // Only when no head names the disk any more.
            match is_lost {
                true => writer.forget_disk(volume)?,
                false => {
                    writer.give_up(&packs, clock::now_ns())?;
                    // Also what a commit that never was left behind.
                    writer.give_up_unnamed(volume, &HashSet::new(), clock::now_ns())?;
                }
            }
            Ok::<_, WriteError>(writer)
        };
        let posted = tokio::task::spawn_blocking(post).await.map_err(failures::worker)?;
        let discarded = posted.map_err(failures::write)?.discard_of_disks().await;
        discarded.map_err(failures::write)?;
        let records = self.disk_records();
        // One that was not opened here before was, to see what is in it.
        if let Some(record) = records.of(known.volume).ok().flatten().or(known.record) {
            let removed = records.remove(&record);
            removed.map_err(|error| unusable(&records.folder_of(known.volume), &error))?;
        }
        if let Some(origin) = origin
            && let Err(failure) = self
                .let_go(origin.volume, origin.snapshot.clone(), known.volume, sink)
                .await
        {
            let text = format!(
                "the snapshot {} that it was cloned from is still held for it: {failure}",
                origin.snapshot
            );
            sink.send(Problem::new(text)).await?;
        }
        sink.send(Changed::new(Deed::Removed, Thing::Disk, known.name)).await?;
        Ok(Exit::Done)
    }

    /// What was written last is not where it should be.
    async fn not_committed(&self, known: &KnownDisk, error: NotCommitted) -> Failure {
        let failure = Failure::from_error(&error).exit(Exit::UnderProtected);
        match error {
            NotCommitted::NotFlushed(_) => failure.hint("look at the disk of this machine, and into the log"),
            NotCommitted::Fenced { by } => {
                let (name, machine) = (&known.name, self.machine_name(by.device).await);
                failure.hint(format!(
                    "the machine {machine} is its writer; `gridbackup disk salvage {name} NEW` makes a disk of what is here"
                ))
            }
            _ => failure.hint(
                "it is in this machine's journal, and is committed when enough peers are up and the disk is served, or by \
                 `disk flush`",
            ),
        }
    }

    /// What is given up with a disk, and what it was cloned from.
    async fn packs_to_remove(
        &self,
        known: &KnownDisk,
        sink: &Sink,
    ) -> Result<(Vec<PackRecord>, Option<Origin>), Failure> {
        let collecting = |disk: &Arc<OpenDisk>| {
            let root = disk.root();
            if let Some(held) = root.snapshots.iter().find(|snapshot| snapshot.is_held()) {
                let error = format!("Disks were cloned from its snapshot {}", held.name);
                return Err(Failure::new(Exit::Failed, error).hint("remove these first"));
            }
            let mut all = Vec::new();
            let packs = disk.own_packs(&mut |records| {
                all.extend_from_slice(records);
                Ok(())
            });
            packs.map_err(|error| Failure::context("Its packs are not known", &error).exit(Exit::TooFewShares))?;
            Ok((all, root.origin))
        };
        let collected = self.with_disk(known, sink, collecting).await;
        collected.map_err(|failure| match failure.hint {
            Some(_) if failure.exit == Exit::Failed => failure,
            _ => failure.hint(
                "try again when more peers are up; if it is lost for good: --lost, and its packs stay with peers",
            ),
        })
    }

    fn disk_message(&self, known: &KnownDisk, with_figures: bool) -> Disk {
        let mut said = Disk {
            name: known.name.clone(),
            id: id(known.volume),
            size: known.size,
            state: known.state(),
            commit: known.head.as_ref().map(|head| head.commit),
            committed: known.committed_ns.map(clock::timestamp),
            held_bytes: self
                .0
                .db
                .read(|conn| catalog::disks::bytes_held(conn, known.volume))
                .ok(),
            machine: known.machine.clone(),
            problem: known.problem.clone(),
            ..Disk::default()
        };
        if let Some(record) = &known.record {
            let cache = self.disk_records().cache_of(record);
            said.cache = Some(cache.to_string_lossy().into_owned());
            said.journal_bytes_max = Some(record.journal_bytes);
        }
        if let Some((open, served_at)) = self.0.disks.get(known.volume) {
            let (root, state, (used, most)) = (open.root(), open.state(), open.journal());
            said.snapshots = root.snapshots.iter().map(snapshot_message).collect();
            said.origin = root
                .origin
                .as_ref()
                .map(|origin| format!("{}@{}", id(origin.volume), origin.snapshot));
            said.figures = with_figures.then(|| figures(&open.stats()));
            said.state = DiskState::Served;
            said.size = Some(root.size);
            said.commit = Some(root.commit);
            said.committed = Some(clock::timestamp(root.time_ns));
            said.served_at = served_at;
            (said.journal_bytes, said.journal_bytes_max) = (Some(used), Some(most));
            said.waiting_secs = open.waiting().map(|waiting| waiting.as_secs());
            said.problem = state.failed;
        }
        said
    }
}

/// Says why a commit is waited for. May be dropped.
async fn say_failing(name: &str, disk: &OpenDisk, sink: &Sink) -> Infallible {
    let why = disk.failing().await;
    let text = format!("Disk {name} waits until what was written is on peers: {why}");
    let _nobody_reads = sink.send(Problem::new(text)).await;
    std::future::pending().await
}

fn snapshot_message(entry: &SnapshotEntry) -> DiskSnapshot {
    DiskSnapshot {
        name: entry.name.clone(),
        time: clock::timestamp(entry.time_ns),
        clones: entry.held.len() as u64,
    }
}

fn figures(stats: &Stats) -> DiskFigures {
    DiskFigures {
        live_bytes: stats.live_bytes,
        stored_bytes: stats.stored_bytes,
        packs: stats.packs,
        commits: stats.commits,
        host_bytes: stats.host_bytes,
        sent_bytes: stats.sent_bytes,
        moved_bytes: stats.moved_bytes,
        memory_bytes: stats.blocks_cache_bytes + stats.leaves_cache_bytes + stats.overlay_bytes,
    }
}

fn new_volume() -> Result<VolumeBytes, Failure> {
    let mut volume = VolumeBytes::default();
    let filled = getrandom::fill(&mut volume);
    filled.map_err(|error| Failure::new(Exit::Failed, format!("The system gave no random bytes: {error}")))?;
    Ok(volume)
}

fn check_size(size: u64) -> Result<(), Failure> {
    let most = disk::commit::root::BLOCKS_MAX * 4096;
    if size == 0 || !size.is_multiple_of(4096) || size > most {
        return Err(Failure::new(Exit::Usage, format!("No disk has {size} bytes"))
            .hint("a disk has a multiple of 4,096 bytes, and 64 TiB at most"));
    }
    Ok(())
}

fn unusable(path: &std::path::Path, error: &std::io::Error) -> Failure {
    Failure::new(
        Exit::Failed,
        format!("`{}` cannot be used for a disk: {error}", path.display()),
    )
}
