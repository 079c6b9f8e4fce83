//! The progress bar on stderr: how far, how fast, how long still.

use std::io::Write;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use super::text::clean;
use crate::human::ByteSize;
use crate::message::Progress;

/// A bar that follows progress messages.
pub struct Bar {
    bar: ProgressBar,
    phase: String,
}

/// The widest that all parts but the last become is 70 columns; the last is cut off at the edge of the screen.
const KNOWN: &str =
    "{prefix:>6} [{bar:10}] {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec} {eta} left {wide_msg}";
const UNKNOWN: &str = "{prefix:>6} {spinner} {binary_bytes}  {wide_msg}";

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
