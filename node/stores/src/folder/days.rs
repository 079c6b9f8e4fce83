//! Days as a store counts them: how long something was in the trash, whatever happens to the clock.
//!
//! A wall clock may jump by years (an empty battery, a wrong year typed in, a thief at the keyboard), and trash that
//! expires at once is lost. So time is counted here: while the process runs by the monotonic clock, which no setting of
//! the wall clock moves; and between two processes by the wall clock, but never more than [`GAP_SECS_MAX`]. A machine that
//! sleeps or is off for weeks counts too few days and keeps things longer, which costs space and never a backup.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Instant, SystemTime};

const DAY_SECS: u64 = 86_400;
/// Most seconds that are believed to have passed while no process counted. Chosen: a laptop that is on for some hours a day
/// counts every day; a clock that jumps counts one day too many a restart, out of thirty.
const GAP_SECS_MAX: u64 = DAY_SECS;
/// Seconds counted before they are written down. Chosen: losing them in a crash only keeps things longer.
const SAVE_SECS: u64 = 600;
const FILE: &str = "gridbackup-days";
const TITLE: &str = "gridbackup days 1";
/// Longest file that is read.
const FILE_BYTES_MAX: u64 = 256;

/// The days of one store's folder.
pub struct Days {
    path: PathBuf,
    state: Mutex<State>,
}

struct State {
    /// Seconds counted when this process opened the store.
    base_secs: u64,
    opened: Instant,
    saved_secs: u64,
}

/// What the file says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Saved {
    counted_secs: u64,
    wall_secs: u64,
}

impl Days {
    /// Goes on counting for the store in `root`. `newest` is the last day that anything in its trash names: where the count
    /// was lost, it starts behind it, so that everything there waits its full time again.
    pub fn open(root: &Path, newest: Option<u32>) -> Self {
        Self::open_at(root, newest, wall_secs())
    }

    fn open_at(root: &Path, newest: Option<u32>, wall_secs: u64) -> Self {
        let path = root.join(FILE);
        let floor_secs = newest.map_or(0, |day| u64::from(day) * DAY_SECS);
        let base_secs = match read(&path) {
            Some(saved) => {
                let gap = wall_secs.saturating_sub(saved.wall_secs).min(GAP_SECS_MAX);
                saved.counted_secs.saturating_add(gap)
            }
            None => floor_secs + DAY_SECS,
        };
        let days = Self {
            path,
            state: Mutex::new(State {
                base_secs: base_secs.max(floor_secs),
                opened: Instant::now(),
                saved_secs: 0,
            }),
        };
        days.today_at(wall_secs);
        days
    }

    /// The number of the day that is counted now.
    pub fn today(&self) -> u32 {
        self.today_at(wall_secs())
    }

    #[cfg(test)]
    pub(super) fn pass(&self, days: u32) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.base_secs += u64::from(days) * DAY_SECS;
    }

    fn today_at(&self, wall_secs: u64) -> u32 {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let counted_secs = state.base_secs.saturating_add(state.opened.elapsed().as_secs());
        // A file that has gone since it was opened is on a disk that has.
        let is_due = counted_secs - state.saved_secs >= SAVE_SECS && self.path.exists();
        if state.saved_secs == 0 || is_due {
            // Another process may count for the same folder: both count the same time, so the larger count is it.
            let known = read(&self.path).map_or(0, |saved| saved.counted_secs);
            let saved = Saved {
                counted_secs: counted_secs.max(known),
                wall_secs,
            };
            if let Err(error) = write(&self.path, saved)
                && error.kind() != std::io::ErrorKind::ReadOnlyFilesystem
            {
                tracing::warn!("The days of {} cannot be written: {error}", self.path.display());
            }
            state.saved_secs = counted_secs;
        }
        u32::try_from(counted_secs / DAY_SECS).unwrap_or(u32::MAX)
    }
}

fn wall_secs() -> u64 {
    SystemTime::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_secs())
}

/// `None` if there is no count, or none that can be read.
fn read(path: &Path) -> Option<Saved> {
    let bytes = fs::metadata(path).ok()?.len();
    let text = (bytes <= FILE_BYTES_MAX).then(|| fs::read_to_string(path).ok())??;
    let mut lines = text.lines();
    if lines.next() != Some(TITLE) {
        return None;
    }
    let mut number = |name: &str| lines.next()?.strip_prefix(name)?.trim().parse().ok();
    Some(Saved {
        counted_secs: number("counted_secs ")?,
        wall_secs: number("wall_secs ")?,
    })
}

fn write(path: &Path, saved: Saved) -> std::io::Result<()> {
    let text = format!(
        "{TITLE}\ncounted_secs {}\nwall_secs {}\n",
        saved.counted_secs, saved.wall_secs
    );
    durable::replace(path, &[text.as_bytes()])
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_800_000_000;

    fn open(root: &Path, wall_secs: u64) -> u32 {
        Days::open_at(root, None, wall_secs).today_at(wall_secs)
    }

    #[test]
    fn days_between_processes_are_counted_one_by_one() {
        let root = tempfile::tempdir().unwrap();
        let first = open(root.path(), NOW);
        for day in 1..5 {
            assert_eq!(open(root.path(), NOW + u64::from(day) * DAY_SECS), first + day);
        }
    }

    #[test]
    fn a_clock_that_jumps_by_years_counts_one_day() {
        let root = tempfile::tempdir().unwrap();
        let days = Days::open_at(root.path(), None, NOW);
        let first = days.today_at(NOW);
        assert_eq!(days.today_at(NOW + 3_650 * DAY_SECS), first, "while the process runs");
        drop(days);
        assert_eq!(open(root.path(), NOW + 3_650 * DAY_SECS), first + 1, "over a restart");
        assert_eq!(open(root.path(), NOW), first + 1, "and back");
        assert_eq!(open(root.path(), NOW + DAY_SECS), first + 2, "then time goes on");
    }

    #[test]
    fn a_lost_count_starts_behind_everything_in_the_trash() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join(FILE), "gridbackup days 1\ncounted_secs x\n").unwrap();
        assert_eq!(Days::open_at(root.path(), Some(700), NOW).today_at(NOW), 701);
    }
}
