//! Standard error as nobody can hold it up: lines are queued, and a thread of its own writes them.
//!
//! Whoever reads may be slow, have stopped, or be gone (`2>&1 | head -3`), and the disk of a log may be full. None of that may stop
//! or fail a backup, so that a line is dropped and counted rather than waited for, and errors of writing are nobody's. Leaves out
//! the progress bar, which is drawn on a terminal only.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::{Condvar, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Lines that wait at most. Chosen: a burst of messages at `-vv` fits, a few megabytes at worst.
const LINES_QUEUED_MAX: usize = 10_000;

/// For so long in all, over the life of the process, callers wait for room: a reader that is only slow gets every line. Chosen: as
/// long as a person looks at a pager's first page, nothing against a backup.
const PATIENCE: Duration = Duration::from_secs(5);

/// At the end of the process the last lines have this long to be written.
const FLUSH_WAIT: Duration = Duration::from_secs(1);

static QUEUE: LazyLock<Queue> = LazyLock::new(|| {
    // Without a thread nothing is written; that is no reason to fail either.
    let _started = std::thread::Builder::new()
        .name("stderr".to_owned())
        .spawn(|| QUEUE.write_all_to(io::stderr()));
    Queue::new(PATIENCE)
});

/// Writes a line, soon.
pub fn line(text: &str) {
    let mut line = Vec::with_capacity(text.len() + 1);
    line.extend_from_slice(text.as_bytes());
    line.push(b'\n');
    QUEUE.push(line);
}

/// Waits until what was queued is written, but not for long.
pub fn flush() {
    QUEUE.flush(FLUSH_WAIT);
}

/// Takes whole lines, as loggers write them.
#[derive(Clone, Copy, Debug, Default)]
pub struct Lines;

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        QUEUE.push(bytes.to_vec());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Queue {
    lines: Mutex<State>,
    changed: Condvar,
}

struct State {
    waiting: VecDeque<Vec<u8>>,
    /// One is being written.
    writing: bool,
    missed: u64,
    patience: Duration,
}

impl Queue {
    fn new(patience: Duration) -> Self {
        let state = State {
            waiting: VecDeque::new(),
            writing: false,
            missed: 0,
            patience,
        };
        Self {
            lines: Mutex::new(state),
            changed: Condvar::new(),
        }
    }

    fn push(&self, line: Vec<u8>) {
        let mut state = self.state();
        if state.waiting.len() >= LINES_QUEUED_MAX && !state.patience.is_zero() {
            let begun = Instant::now();
            let patience = state.patience;
            let is_full = |state: &mut State| state.waiting.len() >= LINES_QUEUED_MAX;
            state = self
                .changed
                .wait_timeout_while(state, patience, is_full)
                .map_or_else(|poisoned| poisoned.into_inner().0, |(state, _)| state);
            state.patience = state.patience.saturating_sub(begun.elapsed());
        }
        if state.waiting.len() >= LINES_QUEUED_MAX {
            state.missed += 1;
        } else {
            state.waiting.push_back(line);
            self.changed.notify_all();
        }
    }

    fn flush(&self, patience: Duration) {
        let is_pending = |state: &mut State| state.writing || !state.waiting.is_empty();
        let _late = self.changed.wait_timeout_while(self.state(), patience, is_pending);
    }

    fn write_all_to(&self, mut to: impl Write) {
        loop {
            let mut state = self.state();
            state.writing = false;
            self.changed.notify_all();
            state = self
                .changed
                .wait_while(state, |state| state.waiting.is_empty())
                .unwrap_or_else(PoisonError::into_inner);
            let line = state.waiting.pop_front().unwrap_or_default();
            let missed = std::mem::take(&mut state.missed);
            state.writing = true;
            drop(state);
            // Errors are nobody's: the reader is gone or the disk full, and there is no other place to say so.
            let _nobody_reads = to.write_all(&line);
            if missed > 0 {
                let _nobody_reads = writeln!(
                    to,
                    "gridbackup: {missed} lines are left out here: nobody read them in time"
                );
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_that_stopped_holds_nobody_up_and_is_told_what_it_missed() {
        let queue: &'static Queue = Box::leak(Box::new(Queue::new(Duration::from_millis(20))));
        let (reader, writer) = std::io::pipe().unwrap();
        std::thread::spawn(move || queue.write_all_to(writer));
        // Far more than a pipe and the queue hold.
        let (count, begun) = (LINES_QUEUED_MAX + 5_000, Instant::now());
        for number in 0..count {
            queue.push(format!("line {number:1000}\n").into_bytes());
        }
        assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
        let (mut read, mut missed) = (0, 0);
        for line in io::BufRead::lines(io::BufReader::new(reader)).map_while(Result::ok) {
            match line
                .strip_prefix("gridbackup: ")
                .and_then(|rest| rest.split(' ').next())
            {
                Some(number) => missed += number.parse::<usize>().unwrap(),
                None => read += 1,
            }
            if read + missed == count {
                break;
            }
        }
        assert!(missed > 0 && read >= LINES_QUEUED_MAX, "{read} {missed}");
    }

    #[test]
    fn a_reader_that_left_is_no_error() {
        let queue: &'static Queue = Box::leak(Box::new(Queue::new(PATIENCE)));
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        std::thread::spawn(move || queue.write_all_to(writer));
        (0..3 * LINES_QUEUED_MAX).for_each(|_| queue.push(b"line\n".to_vec()));
        queue.flush(Duration::from_secs(10));
        assert!(queue.state().waiting.is_empty());
    }
}
