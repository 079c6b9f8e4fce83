//! How much slower writers get as the journal fills: a little each, so that none of them stands still until a commit is through.
//!
//! As OpenZFS delays writers by how much is dirty (`zfs_delay_scale`): the wait grows without bound towards the end, so that they come to
//! write as fast as commits release, whatever that is.

use std::time::Duration;

/// Of what may be filled, in hundredths, up to which nobody is slowed down.
const FREE_PERCENT: u64 = 50;
/// Bytes a second in the middle between there and full. Chosen: about what commits to folders release on a small machine.
const MIDDLE_BYTES: u64 = 64 << 20;
/// Most that one change waits. Chosen: clients take ten seconds without an answer for a dead server.
const WAIT_MAX: Duration = Duration::from_secs(2);

/// How long a change of so many bytes waits, when so many of `full` are in use.
pub(super) fn wait(bytes: u64, used: u64, full: u64) -> Duration {
    let free_of_it = full / 100 * FREE_PERCENT;
    let Some(over) = used.checked_sub(free_of_it) else {
        return Duration::ZERO;
    };
    let left = full.saturating_sub(used).max(1);
    let secs = bytes as f64 / MIDDLE_BYTES as f64 * (over as f64 / left as f64);
    Duration::try_from_secs_f64(secs).unwrap_or(WAIT_MAX).min(WAIT_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a writer who writes without end has to wait for one change at most, with commits of 128 MiB, each of which takes `commit_secs`.
    fn longest_wait(commit_secs: u64) -> Duration {
        let (change, full, batch) = (1 << 20, 1800 << 20, 128 << 20);
        let (mut now, mut used, mut longest) = (Duration::ZERO, 0, Duration::ZERO);
        let mut release_at = Duration::from_secs(commit_secs);
        for _ in 0..20_000 {
            let mut waits = wait(change, used, full) + Duration::from_millis(1);
            if used + change > full {
                waits = waits.max(release_at.saturating_sub(now));
            }
            now += waits;
            longest = longest.max(waits);
            used += change;
            while now >= release_at {
                used = used.saturating_sub(batch);
                release_at += Duration::from_secs(commit_secs);
            }
        }
        longest
    }

    #[test]
    fn whoever_writes_without_end_waits_a_little_each_time_and_never_for_a_commit() {
        assert_eq!(wait(1 << 20, 0, 1 << 30), Duration::ZERO);
        assert_eq!(wait(1 << 20, 1 << 28, 1 << 30), Duration::ZERO);
        assert!(wait(1 << 20, (1 << 30) - 1, 1 << 30) == WAIT_MAX);
        assert!(wait(u64::MAX, 1 << 30, 1 << 30) == WAIT_MAX);
        // 128, 16 and 4 MiB a second.
        for (commit_secs, most) in [(1, 100), (8, 500), (32, 2_100)] {
            let longest = longest_wait(commit_secs);
            assert!(longest < Duration::from_millis(most), "{commit_secs}: {longest:?}");
        }
    }
}
