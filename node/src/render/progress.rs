//! The progress bar on stderr: how far, how fast, how long still.

use std::io::Write;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use super::text::clean;
use crate::message::Progress;

/// A bar that follows progress messages.
pub struct Bar {
    bar: ProgressBar,
    phase: String,
}

const KNOWN: &str =
    "{prefix:>8} [{bar:24}] {binary_bytes} of {binary_total_bytes}  {binary_bytes_per_sec}  {eta} left  {wide_msg}";
const UNKNOWN: &str = "{prefix:>8} {spinner} {binary_bytes}  {wide_msg}";

impl Bar {
    /// A bar that shows nothing yet.
    pub fn new() -> Self {
        Self {
            bar: ProgressBar::hidden(),
            phase: String::new(),
        }
    }

    /// Shows `progress`; a new phase starts a new bar.
    pub fn set(&mut self, progress: &Progress) {
        if progress.phase != self.phase {
            self.bar.finish_and_clear();
            self.phase.clone_from(&progress.phase);
            let template = if progress.bytes_total.is_some() { KNOWN } else { UNKNOWN };
            let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
            self.bar = match progress.bytes_total {
                Some(total) => ProgressBar::new(total),
                None => ProgressBar::new_spinner(),
            };
            self.bar.set_style(style.progress_chars("=> "));
            self.bar.set_prefix(clean(&self.phase));
            self.bar.enable_steady_tick(Duration::from_millis(250));
        }
        if let Some(total) = progress.bytes_total {
            self.bar.set_length(total);
        }
        self.bar.set_position(progress.bytes_done);
        let files = match progress.files_total {
            Some(total) => format!("{}/{total} files", progress.files_done),
            None => format!("{} files", progress.files_done),
        };
        let current = progress
            .current
            .as_deref()
            .map(|current| format!("  {}", clean(current)))
            .unwrap_or_default();
        self.bar.set_message(files + &current);
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
