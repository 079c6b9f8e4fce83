//! One backup: scan, upload until the queue is empty or nothing more can be placed, say how it went.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use api::clock;
use api::failure::{Exit, Failure};
use api::message::{PathName, Phase, Problem, Progress, RunSummary, Summary};
use api::output::Sink;
use api::request::RunOnce;
use backup::catalog::tree;
use backup::exclude::{Rules, escaped};
use backup::scan;
use backup::scan::{Emptied, ScanError, ScanOptions, ScanSummary};
use backup::writer::{PrepareLimits, WriteSummary, Writer};
use database::DbError;
use upload_queue::uploader::{UploadEvent, Uploader, UploaderConfig};

use crate::config::{Config, notices};
use crate::home::OwnFolders;
use crate::policy::tolerate;
use crate::repack::stop_flag;
use crate::upload_log::UploadLog;
use crate::upload_progress::Meter;
use crate::{Engine, Mode, failures, settings};

/// Threads that read and compress (measured: the third only adds memory on two cores).
const PREPARE_THREADS: usize = 2;
/// Bytes of content and open packs in memory (chosen: four packs and their parity stay under the 300 MiB that a backup
/// may take).
const WRITE_BYTES_IN_FLIGHT_MAX: usize = 48 << 20;
/// Puts in flight to one peer (chosen: hides the fsync of one behind the transfer of the others).
const PUTS_PER_PEER: usize = 3;
/// Files gone at once from which on it is worth a word when they are most. Chosen: nobody tidies up so many by hand.
const GONE_FILES_MIN: u64 = 20;
/// Upload events that wait to be counted.
const EVENTS_QUEUED_MAX: usize = 1024;

impl Engine {
    pub(super) async fn run_once(&self, asked: &RunOnce, sink: &Sink) -> Result<Exit, Failure> {
        let _busy = self.0.busy.lock().await;
        let config = self.config();
        let paths = &asked.paths;
        let emptied = match asked.accept_emptied {
            true => Emptied::ForGood,
            false => Emptied::Unmounted,
        };
        let roots = roots(paths, &config)?;
        for problem in notices::idle_rules(&config.exclude, config.folders.iter().chain(&roots)) {
            sink.send(problem).await?;
        }
        let options = self.scan_options(roots, emptied, &config)?;
        if paths.is_empty() {
            self.note_folders(&config.folders)?;
        }
        self.remembered(paths.is_empty(), self.run_over(options, &config, sink))
            .await
    }

    async fn run_over(&self, options: ScanOptions, config: &Config, sink: &Sink) -> Result<Exit, Failure> {
        let started = Instant::now();
        let roots = options.roots.clone();
        self.meet_heads().await?;
        let scanned = self.scan(options, sink).await?;
        self.note_seen(&roots, &scanned)?;
        let scanned = scanned.map_err(failures::scan)?;
        for problem in problems(&scanned) {
            sink.send(problem).await?;
        }
        self.connect().await?;
        let uploader = self.uploader(config).await?;
        let sent_before = uploader.bytes_sent();
        if matches!(self.0.mode, Mode::Command(_)) {
            self.repair_in_run(&uploader, sink).await?;
        }
        let written = self.write(uploader.clone(), config, sink).await?;
        self.note_read(&written.failed)?;
        self.say_refused(&written.heads_refused, sink).await?;
        let mut summary = self.summary(&scanned, &written)?;
        summary.bytes_sent = uploader.bytes_sent() - sent_before;
        self.tell_buckets().await;
        summary.seconds = started.elapsed().as_secs_f64();
        // Nothing had to be sent, and so nobody was asked: that is no reason to say that all is well.
        let is_alone = summary.bytes_sent == 0 && self.name_if_nobody_answers(sink).await?;
        let (exit, reasons) = self.verdict_of_run(&scanned.failed, &written, is_alone).await?;
        summary.reasons = reasons;
        let is_stopped = sink.stop().is_cancelled();
        let is_short = summary.files_waiting > 0 || written.undelivered.packs_unsafe > 0;
        let exit = match exit {
            _ if is_stopped => Exit::Interrupted,
            Exit::UnderProtected | Exit::SourceUnreadable if is_short => {
                self.name_reasons(&written.undelivered, sink).await?;
                exit
            }
            exit => exit,
        };
        summary.files_lost = self.name_lost(sink).await?;
        sink.send(Summary::Run(summary)).await?;
        Ok(exit)
    }

    fn scan_options(&self, roots: Vec<PathBuf>, emptied: Emptied, config: &Config) -> Result<ScanOptions, Failure> {
        let rules = Rules::new(&config.exclude).map_err(|error| Failure::from_error(&error).exit(Exit::Usage))?;
        Ok(ScanOptions {
            roots,
            rules,
            own_state: OwnFolders::of(&self.0.home.paths, config).not_saved(),
            one_file_system: config.one_file_system,
            emptied,
            device: self.device(),
            now_ns: clock::now_ns(),
        })
    }

    /// What the config and this home's own path leave out, as patterns: what a restore must not remove either.
    pub(super) fn rules(&self, config: &Config) -> Result<Rules, Failure> {
        let own = OwnFolders::of(&self.0.home.paths, config).not_saved();
        let own = own
            .iter()
            .filter_map(|own| Some(format!("{}/", escaped(own.to_str()?))));
        let patterns: Vec<String> = config.exclude.iter().cloned().chain(own).collect();
        Rules::new(&patterns).map_err(|error| Failure::from_error(&error).exit(Exit::Usage))
    }

    async fn scan(&self, options: ScanOptions, sink: &Sink) -> Result<Result<ScanSummary, ScanError>, Failure> {
        let (db, queue, progress) = (self.0.db.clone(), self.0.queue.clone(), sink.clone());
        let say = move |files, _directories| {
            progress.progress(Progress {
                phase: Phase::Scan,
                files_done: files,
                ..Progress::default()
            });
        };
        let scanning = move || scan::scan(&db, &queue, &options, &say);
        tokio::task::spawn_blocking(scanning).await.map_err(failures::worker)
    }

    /// The uploader, started with the first use: it goes on with what an earlier process left in the spool.
    pub(super) async fn uploader(&self, config: &Config) -> Result<Uploader, Failure> {
        let start = || async {
            // Held until the uploader is there: nobody replaces the catalog under it.
            let _met = self.meet_heads_once().await?;
            let (events, mut heard) = tokio::sync::mpsc::channel(EVENTS_QUEUED_MAX);
            let engine = Arc::downgrade(&self.0);
            let mut log = UploadLog::new(self.0.peers.clone());
            tokio::spawn(async move {
                while let Some(event) = heard.recv().await {
                    log.log(&event);
                    if let (UploadEvent::Delivered { .. }, Some(engine)) = (&event, engine.upgrade()) {
                        engine.delivered.notify_one();
                    }
                }
            });
            let uploader = UploaderConfig {
                spool: self.0.home.paths.spool(),
                spool_bytes_max: config.spool_max.0,
                min_free: config.min_free.0,
                puts_per_peer: PUTS_PER_PEER,
                tolerate: tolerate(config),
                steward: self.steward(),
            };
            Uploader::start(self.0.db.clone(), self.0.peers.clone(), uploader, events)
                .map_err(|error| Failure::from_error(&error))
        };
        self.0.uploader.get_or_try_init(start).await.cloned()
    }

    /// The write side, over this uploader.
    pub(super) fn writer(&self, uploader: Uploader, config: &Config) -> Writer {
        Writer {
            db: self.0.db.clone(),
            queue: self.0.queue.clone(),
            uploader,
            keys: Arc::new(self.0.home.account.clone()),
            device: self.0.home.device.clone(),
            cert: self.0.home.cert.clone(),
            peers: self.0.peers.clone(),
            heads: self.0.head_lock.clone(),
            runtime: tokio::runtime::Handle::current(),
            settings: settings::text(config),
            limits: PrepareLimits {
                bytes_in_flight_max: WRITE_BYTES_IN_FLIGHT_MAX,
                threads: PREPARE_THREADS,
                zstd_level: config.zstd_level,
                post_interval_secs: config.publish_interval.0.as_secs(),
            },
        }
    }

    async fn write(&self, uploader: Uploader, config: &Config, sink: &Sink) -> Result<WriteSummary, Failure> {
        let writer = self.writer(uploader, config);
        let (stop, _watch) = stop_flag(sink);
        let counts = self.0.queue.counts()?;
        let total = (counts.jobs, counts.bytes);
        let peers = self.0.peers.clone();
        let read_ahead_max = WRITE_BYTES_IN_FLIGHT_MAX as u64;
        let meter = Arc::new(Meter::new(
            writer.uploader.clone(),
            peers,
            sink.clone(),
            total,
            read_ahead_max,
        ));
        let of_writer = meter.clone();
        let writing = tokio::task::spawn_blocking(move || writer.run(&stop, &|event| of_writer.note(event)));
        let written = tokio::select! {
            written = writing => written,
            never = meter.say_for_ever() => match never {},
        };
        written.map_err(failures::worker)?.map_err(failures::write)
    }

    fn summary(&self, scanned: &ScanSummary, written: &WriteSummary) -> Result<RunSummary, Failure> {
        let seq = scanned.snapshot;
        let known = self.0.db.read(|conn| {
            let snapshot = tree::snapshots(conn)?
                .into_iter()
                .find(|snapshot| snapshot.record.seq == seq);
            Ok::<_, DbError>((snapshot, tree::snapshot_complete(conn, seq)?))
        });
        let (snapshot, complete) = known?;
        Ok(RunSummary {
            snapshot: snapshot.map(|snapshot| snapshot.record.id.to_string()),
            complete,
            files_new: scanned.files_new,
            files_changed: scanned.files_changed,
            files_unmodified: scanned.files_unmodified,
            files_gone: scanned.files_gone + written.gone,
            files_failed: files_failed(scanned, written),
            bytes_read: written.bytes_read,
            bytes_added: written.bytes_added,
            packs: written.packs,
            files_waiting: self.0.queue.counts()?.jobs,
            ..RunSummary::default()
        })
    }
}

fn roots(paths: &[PathName], config: &Config) -> Result<Vec<PathBuf>, Failure> {
    let roots: Vec<_> = if paths.is_empty() {
        config.folders.clone()
    } else {
        paths.iter().map(PathName::to_path).collect()
    };
    if roots.is_empty() {
        return Err(Failure::new(Exit::Usage, "There is nothing to back up")
            .hint("name a folder, or add one with `gridbackup folder add PATH`"));
    }
    Ok(roots)
}

/// What a scan has to tell: what the snapshot does not have as it is, what was left out, and what looks like an accident.
fn problems(scanned: &ScanSummary) -> Vec<Problem> {
    let failed = scanned.failed.iter();
    let mut problems: Vec<_> = failed
        .map(|failure| Problem::of_path(failure.path.as_path(), &failure.reason))
        .collect();
    let stores = scanned.stores.iter();
    problems.extend(stores.map(|store| Problem::of_path(store.as_path(), notices::STORE_LEFT_OUT)));
    let gone = scanned.files_gone.saturating_sub(scanned.files_moved);
    if gone >= GONE_FILES_MIN && gone > scanned.files {
        problems.push(Problem::new(format!(
            "{gone} files are gone since the snapshot before, more than the {} that are left; if that is a mistake, \
             earlier snapshots have them",
            scanned.files
        )));
    }
    problems
}

/// How many things are not saved as they are. One may have failed twice: an attribute when scanned, the content when read.
fn files_failed(scanned: &ScanSummary, written: &WriteSummary) -> u64 {
    let scanned = scanned.failed.iter().map(|failure| failure.path.as_path());
    let written = written.failed.iter().map(|(path, _)| path.as_path());
    scanned.chain(written).collect::<HashSet<_>>().len() as u64
}
