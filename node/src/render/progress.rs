//! The progress bar on stderr: how far, how fast, how long still.

use std::fmt;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use api::human::ByteSize;
use api::message::{Phase, Progress};
use indicatif::{HumanDuration, ProgressBar, ProgressState, ProgressStyle};

use super::words::clean;

/// A bar that follows progress messages.
pub struct Bar {
    bar: ProgressBar,
    phase: Option<Phase>,
    slowest: Slowest,
    /// Seconds that the slowest peer needs still, as the bar shows them.
    slowest_secs: Arc<AtomicU64>,
}

/// In place of seconds: not known yet.
const UNKNOWN_SECS: u64 = u64::MAX;

/// The peer that is waited for, and what was due to it when that was most.
#[derive(Default)]
struct Slowest {
    name: String,
    most: Option<(Instant, u64)>,
}

/// The widest that all parts but the last become is 70 columns; the last is cut off at the edge of the screen.
const KNOWN: &str =
    "{prefix:>6} [{bar:10}] {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec} {left} left {wide_msg}";
const UNKNOWN: &str = "{prefix:>6} {spinner} {binary_bytes}  {wide_msg}";

impl Bar {
    /// A bar that shows nothing yet.
    pub fn new() -> Self {
        Self {
            bar: ProgressBar::hidden(),
            phase: None,
            slowest: Slowest::default(),
            slowest_secs: Arc::default(),
        }
    }

    /// Shows `progress`; a new phase starts a new bar.
    pub fn set(&mut self, progress: &Progress) {
        if self.phase != Some(progress.phase) {
            self.bar.finish_and_clear();
            self.phase = Some(progress.phase);
            let template = if progress.bytes_total.is_some() { KNOWN } else { UNKNOWN };
            let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
            self.bar = match progress.bytes_total {
                Some(total) => ProgressBar::new(total),
                None => ProgressBar::new_spinner(),
            };
            let slowest_secs = self.slowest_secs.clone();
            let style = style.with_key("left", move |state: &ProgressState, out: &mut dyn fmt::Write| {
                let _nobody_reads = match slowest_secs.load(Ordering::Relaxed) {
                    UNKNOWN_SECS => write!(out, "?"),
                    secs => write!(out, "{:#}", HumanDuration(state.eta().max(Duration::from_secs(secs)))),
                };
            });
            self.bar.set_style(style.progress_chars("=> "));
            self.bar.set_prefix(progress.phase.name());
            self.bar.enable_steady_tick(Duration::from_millis(250));
        }
        if let Some(total) = progress.bytes_total {
            self.bar.set_length(total);
        }
        self.slowest_secs.store(self.slowest.secs(progress), Ordering::Relaxed);
        self.bar.set_position(progress.bytes_done);
        self.bar.set_message(message(progress));
    }

    /// Writes something where the bar stands; the bar moves below it.
    pub fn suspend<T>(&self, write: impl FnOnce() -> T) -> T {
        self.bar.suspend(write)
    }

    /// Writes a line above the bar.
    pub fn above(&self, line: &str) {
        let _nobody_reads = self.bar.suspend(|| writeln!(std::io::stderr(), "{line}"));
    }

    /// Takes the bar away.
    pub fn finish(self) {
        self.bar.finish_and_clear();
    }
}

impl Slowest {
    /// Seconds that it needs still, by what it took since most was due to it. While one peer is waited for, what all took says
    /// nothing: the fast ones were done at once, and "0s left" stood there for a minute.
    fn secs(&mut self, progress: &Progress) -> u64 {
        let (Some(name), Some(bytes)) = (&progress.slowest, progress.bytes_to_slowest.filter(|bytes| *bytes > 0))
        else {
            *self = Self::default();
            return 0;
        };
        match self.most {
            Some((since, most)) if *name == self.name && bytes <= most => left_secs(since.elapsed(), most, bytes),
            _ => {
                name.clone_into(&mut self.name);
                self.most = Some((Instant::now(), bytes));
                // While there is more to read, more is due to it all the time: what all took is the best guess.
                let is_all_read = progress.files_total.is_none_or(|total| progress.files_done >= total);
                if is_all_read { UNKNOWN_SECS } else { 0 }
            }
        }
    }
}

/// What `bytes` of `most` take if the rest took `elapsed`.
fn left_secs(elapsed: Duration, most: u64, bytes: u64) -> u64 {
    let millis = elapsed.as_millis() * u128::from(bytes);
    match most - bytes {
        0 => UNKNOWN_SECS,
        taken => u64::try_from(millis / u128::from(taken) / 1000).unwrap_or(UNKNOWN_SECS),
    }
}

/// What stands behind the numbers: first whom is waited for.
fn message(progress: &Progress) -> String {
    let slowest = match (&progress.slowest, progress.bytes_to_slowest) {
        (Some(name), Some(bytes)) => format!("{} to {}  ", ByteSize(bytes), clean(name)),
        _ => String::new(),
    };
    let files = match progress.files_total {
        Some(total) => format!("{}/{total} files", progress.files_done),
        None => format!("{} files", progress.files_done),
    };
    let current = progress.current.as_deref();
    let current = current
        .map(|current| format!("  {}", clean(current)))
        .unwrap_or_default();
    slowest + &files + &current
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The story: "0s left" for a minute, while a peer took 600 KB a second of 12 MiB.
    #[test]
    fn the_time_left_is_that_of_the_slowest_peer() {
        let secs = Duration::from_secs;
        assert_eq!(left_secs(secs(7), 12 << 20, 8 << 20), 14);
        assert_eq!(
            left_secs(secs(7), 12 << 20, 12 << 20),
            UNKNOWN_SECS,
            "it took nothing yet"
        );
        let due = |name: &str, bytes| Progress {
            slowest: Some(name.to_owned()),
            bytes_to_slowest: Some(bytes),
            ..Progress::default()
        };
        let mut slowest = Slowest::default();
        assert_eq!(slowest.secs(&due("carol", 12)), UNKNOWN_SECS);
        assert_eq!(slowest.secs(&due("carol", 6)), 0, "at once");
        assert_eq!(slowest.secs(&due("dave", 6)), UNKNOWN_SECS, "another one");
        let reading = Progress {
            files_total: Some(9),
            ..due("dave", 7)
        };
        assert_eq!(slowest.secs(&reading), 0, "there is more to read");
        assert_eq!(slowest.secs(&Progress::default()), 0, "nobody is waited for");
    }

    /// The story: 81 columns on a screen of 80, "0s lef" and a "t" on the next line.
    #[test]
    fn all_but_the_last_part_fit_on_a_narrow_screen() {
        let widest = "upload [          ] 1023.99 MiB/1023.99 GiB 1023.99 MiB/s 59m left ";
        assert!(widest.len() <= 70, "{}", widest.len());
        let progress = Progress {
            files_done: 3,
            files_total: Some(9),
            slowest: Some("carol\n".to_owned()),
            bytes_to_slowest: Some(12 << 20),
            ..Progress::default()
        };
        assert!(
            message(&progress).starts_with("12 MiB to carol") || message(&progress).starts_with("12.0 MiB to carol")
        );
        assert!(!message(&progress).contains('\n'));
    }
}
