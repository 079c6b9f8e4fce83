//! Drills: random files of the newest snapshot that is whole are read from the grid and compared with the disk; when asked, and by
//! the daemon now and then, so that the first restore is not the one that matters.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use api::clock;
use api::failure::{Exit, Failure};
use api::message::{Phase, Problem, Progress, Summary, VerifySummary};
use api::output::Sink;
use backup::catalog::tree::Snapshot;
use backup::restore::{Compared, Reader, RestoreError};

use crate::home::fill_random;
use crate::whole::Newest;
use crate::{Engine, failures, whole};

/// Longest file that is picked: a drill must not take a friend's evening. `check --read-data` reads everything.
const FILE_BYTES_MAX: u64 = 64 << 20;
/// Most files of one drill.
const FILES_MAX: u64 = 10_000;
/// How often the daemon looks whether a drill is due.
const LOOK: Duration = Duration::from_secs(600);

impl Engine {
    /// `files`: how many; none: as the config says.
    pub(super) async fn verify(&self, files: Option<u64>, sink: &Sink) -> Result<Exit, Failure> {
        let summary = self.drill(files, sink).await?;
        let exit = if summary.ok { Exit::Done } else { Exit::Failed };
        sink.send(Summary::Verify(summary)).await?;
        Ok(exit)
    }

    async fn drill(&self, files: Option<u64>, sink: &Sink) -> Result<VerifySummary, Failure> {
        let started = Instant::now();
        let newest = self.newest()?;
        for broken in &newest.broken {
            sink.send(Problem::new(broken_text(broken))).await?;
        }
        let snapshot = newest.whole.ok_or_else(|| match newest.broken.is_empty() {
            true => Failure::new(Exit::Failed, "No snapshot is complete on the grid yet")
                .hint("`gridbackup status` says what waits; `gridbackup run --once` sends it"),
            false => Failure::new(
                Exit::Failed,
                "No snapshot can be restored whole: content of each is lost",
            )
            .hint("`gridbackup check` names the files, `gridbackup run --once` sends again what is still here"),
        })?;
        let count = files
            .unwrap_or_else(|| u64::from(self.config().verify_files))
            .min(FILES_MAX);
        let reader = self.reader().await?;
        let to = sink.clone();
        let drilling = move || drill_files(&reader, &snapshot, count as usize, &to);
        let mut summary = tokio::task::spawn_blocking(drilling)
            .await
            .map_err(failures::worker)??;
        let heads = self.check_heads().await?;
        self.say_heads(&heads, sink).await?;
        let rosters = self.check_rosters().await;
        self.say_rosters(&rosters, sink).await?;
        (summary.heads_bad, summary.rosters_bad) = (heads.faults.len() as u64, rosters.faults.len() as u64);
        summary.snapshots_broken = newest.broken.len() as u64;
        summary.ok &= heads.faults.is_empty() && rosters.faults.is_empty() && newest.broken.is_empty();
        summary.seconds = started.elapsed().as_secs_f64();
        Ok(summary)
    }

    fn newest(&self) -> Result<Newest, Failure> {
        let scene = self.scene(None);
        Ok(self.0.db.read(|conn| whole::newest(conn, &|key| scene.is_known(key)))?)
    }

    /// The daemon's drills. Until it is dropped.
    pub(super) async fn drill_for_ever(&self, sink: &Sink) {
        let last = LastDrill::new(self.0.home.paths.state_dir());
        loop {
            let every = self.config().verify_interval.map(|every| every.0);
            if let Some(every) = every
                && last.is_due(clock::now_secs(), every)
                && self.newest().is_ok_and(|newest| newest.whole.is_some())
            {
                self.drill_in_background(sink).await;
                last.note(clock::now_secs());
            }
            tokio::time::sleep(every.map_or(LOOK, |every| every.clamp(Duration::from_secs(1), LOOK))).await;
        }
    }

    async fn drill_in_background(&self, sink: &Sink) {
        let (event, text) = match self.drill(None, sink).await {
            Ok(summary) if summary.ok => (
                "verified",
                format!(
                    "{} files were read from the grid and are as they were; {} of them have changed here since",
                    summary.files, summary.changed_since
                ),
            ),
            Ok(summary) if summary.snapshots_broken > 0 => (
                "verify_failed",
                format!(
                    "{} newer snapshots cannot be restored whole: run `gridbackup verify`",
                    summary.snapshots_broken
                ),
            ),
            Ok(summary) if summary.unreadable + summary.differing == 0 => (
                "verify_failed",
                format!(
                    "The head that leads to the backups is missing, old or damaged at {} peers, the roster that leads to friends at {}: \
                     run `gridbackup repair`",
                    summary.heads_bad, summary.rosters_bad
                ),
            ),
            Ok(summary) => (
                "verify_failed",
                format!(
                    "Of {} files read from the grid, {} could not be read and {} differ from the disk: run `gridbackup verify`",
                    summary.files, summary.unreadable, summary.differing
                ),
            ),
            Err(failure) => ("verify_failed", failure.to_string()),
        };
        match event {
            "verified" => tracing::info!("{text}"),
            _ => tracing::error!("{text}"),
        }
        self.tell(event, text, sink).await;
    }
}

/// Why an older snapshot than this one is read.
fn broken_text(broken: &Snapshot) -> String {
    format!(
        "Snapshot {} of {} cannot be restored whole, content of it is lost: `gridbackup check` names the files",
        broken.record.id.short(),
        clock::timestamp(broken.record.time_ns)
    )
}

fn drill_files(reader: &Reader, snapshot: &Snapshot, count: usize, sink: &Sink) -> Result<VerifySummary, Failure> {
    let seq = snapshot.record.seq;
    let mut failed = None;
    let picked = reader.pick(seq, count, FILE_BYTES_MAX, &mut |below| match random_below(below) {
        Ok(number) => number,
        Err(failure) => {
            failed = Some(failure);
            below
        }
    });
    let picked = picked.map_err(failures::read)?;
    if let Some(failure) = failed {
        return Err(failure);
    }
    let mut summary = VerifySummary {
        snapshot: snapshot.record.id.to_string(),
        files: picked.len() as u64,
        ..VerifySummary::default()
    };
    for (number, file) in picked.iter().enumerate() {
        sink.go_on()?;
        let problem = match reader.drill(seq, file) {
            Ok((compared, bytes)) => {
                summary.bytes += bytes;
                count_compared(&mut summary, compared)
            }
            Err(error @ RestoreError::Stopped) => return Err(failures::read(error)),
            Err(error) => {
                summary.unreadable += 1;
                Some(error.to_string())
            }
        };
        if let Some(error) = problem {
            sink.send_blocking(Problem::of_path(file.path.as_slice(), error))?;
        }
        sink.progress(Progress {
            phase: Phase::Verify,
            files_done: number as u64 + 1,
            files_total: Some(picked.len() as u64),
            bytes_done: summary.bytes,
            ..Progress::default()
        });
    }
    summary.ok = summary.unreadable + summary.differing == 0;
    Ok(summary)
}

/// Counts a file that could be read; what is wrong with it, if anything.
fn count_compared(summary: &mut VerifySummary, compared: Compared) -> Option<String> {
    match compared {
        Compared::Identical => summary.identical += 1,
        Compared::ChangedSince => summary.changed_since += 1,
        Compared::Differs => {
            summary.differing += 1;
            let error = "The file here differs from its backup though its length and time are the same: one of them is \
                         damaged; restore it beside and compare";
            return Some(error.to_owned());
        }
    }
    None
}

/// A random number below `limit`; the bias of the remainder is below one in 2^40 for any count of files.
fn random_below(limit: u64) -> Result<u64, Failure> {
    let mut bytes = [0; 8];
    fill_random(&mut bytes)?;
    Ok(u64::from_le_bytes(bytes) % limit.max(1))
}

/// When the last drill of the daemon was, in a file of its own: seconds since 1970.
struct LastDrill(PathBuf);

impl LastDrill {
    fn new(state_dir: &Path) -> Self {
        Self(state_dir.join("verified"))
    }

    fn is_due(&self, now_secs: u64, every: Duration) -> bool {
        let last = std::fs::read_to_string(&self.0).ok();
        let last = last.and_then(|text| text.trim().parse::<u64>().ok());
        // A clock that was ahead must not put drills off for years.
        last.is_none_or(|last| now_secs >= last.saturating_add(every.as_secs()) || last > now_secs)
    }

    fn note(&self, now_secs: u64) {
        if let Err(error) = durable::replace_note(&self.0, &[now_secs.to_string().as_bytes()]) {
            tracing::warn!(%error, "the time of the drill could not be noted");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drill_is_due_at_first_and_then_once_in_its_time() {
        let dir = tempfile::tempdir().unwrap();
        let last = LastDrill::new(dir.path());
        let week = Duration::from_secs(7 * 86_400);
        assert!(last.is_due(1_000, week));
        last.note(1_000);
        assert!(!last.is_due(1_000 + 86_400, week));
        assert!(last.is_due(1_000 + 7 * 86_400, week));
        assert!(last.is_due(999, week), "the clock was set back");
    }
}
