//! Runs a target: all that is kept first, then mutations of it until the time is over. What fails is written down and named.

use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use crate::heap;
use crate::heard::Heard;
use crate::mutate::{Dice, INPUT_BYTES_MAX, mutate};

/// Something that reads what others wrote.
pub struct Target {
    /// Its name: a folder of `corpus`.
    pub name: &'static str,
    /// Reads one input, and panics if what must hold does not.
    pub run: fn(&[u8], &mut Heard),
    /// Valid inputs made by the code of today, to begin with.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// Golden files of proto to begin with: folders or files below `golden`.
    pub golden: &'static [&'static str],
    /// What its language is made of.
    pub words: &'static [&'static [u8]],
    /// What an input may cost.
    pub cost: Cost,
}

/// What an input may cost.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    /// Bytes held at once, beside `HELD_PER_BYTE` for each byte of the input.
    pub bytes: usize,
    /// Processor time.
    pub time: Duration,
}

impl Cost {
    /// Of what reads a few records: a section of records may be 16 MiB.
    pub const SMALL: Self = Self {
        bytes: 1 << 20,
        time: Duration::from_secs(1),
    };
    /// Of what works with files.
    pub const LARGE: Self = Self {
        bytes: 64 << 20,
        time: Duration::from_secs(10),
    };
}

/// Bytes that may be held for each byte of the input.
const HELD_PER_BYTE: usize = 256;
/// Seconds a target when nothing else is asked for: what is kept is read, and the harness works.
const SECS: u64 = 2;
/// Inputs that are changed further. Chosen: answers are far fewer.
const POOL_MAX: usize = 4000;
/// An input that has not been read by then never will be.
const ENDLESS: Duration = Duration::from_secs(120);
/// Bytes of an input that are shown.
const SHOWN_MAX: usize = 512;

/// Runs a target for the time that is asked for.
///
/// # Panics
/// If the target does, costs too much or does not end: the input is in the message, or in the file that it names.
pub fn run(target: &Target) {
    let watched = Watched::begin(target.name);
    if let Some(file) = std::env::var_os("GRIDBACKUP_FUZZ_INPUT") {
        let input = std::fs::read(&file).expect("GRIDBACKUP_FUZZ_INPUT names a file");
        try_one(target, &input, &watched);
        return;
    }
    let seed = number("GRIDBACKUP_FUZZ_SEED").unwrap_or_else(|| {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        since.map_or(1, |since| since.as_nanos() as u64)
    });
    let until = Instant::now() + Duration::from_secs(number("GRIDBACKUP_FUZZ_SECS").unwrap_or(SECS));
    let (mut dice, mut known) = (Dice::new(seed), HashSet::new());
    let mut pool = kept(target);
    assert!(!pool.is_empty(), "{} has nothing to begin with", target.name);
    for input in &pool {
        known.extend(try_one(target, input, &watched));
    }
    let (begun, mut tried) = (pool.len(), 0u64);
    while Instant::now() < until {
        // New ones have been tried least.
        let newest = pool.len().saturating_sub(64);
        let at = match dice.roll(2) {
            0 => newest + dice.roll(pool.len() - newest),
            _ => dice.roll(pool.len()),
        };
        let (mut input, other) = (pool[at].clone(), dice.roll(pool.len()));
        mutate(&mut dice, &mut input, &pool[other], target.words);
        let answers = try_one(target, &input, &watched);
        tried += 1;
        if answers.iter().any(|answer| !known.contains(answer)) && pool.len() < POOL_MAX {
            known.extend(answers);
            pool.push(input);
        }
    }
    println!(
        "{}: seed {seed}, {begun} kept inputs, {tried} mutated, {} answers",
        target.name,
        known.len()
    );
    if let Some(folder) = std::env::var_os("GRIDBACKUP_FUZZ_KEEP") {
        write_all(&Path::new(&folder).join(target.name), &pool[begun..]);
    }
}

/// Everything that a target begins with.
pub fn kept(target: &Target) -> Vec<Vec<u8>> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut inputs = (target.seeds)();
    let golden = target.golden.iter().map(|name| here.join("../proto/golden").join(name));
    for place in golden.chain([here.join("corpus").join(target.name)]) {
        read_below(&place, &mut inputs);
    }
    inputs
}

fn read_below(place: &Path, into: &mut Vec<Vec<u8>>) {
    let Ok(entries) = std::fs::read_dir(place) else {
        into.extend(std::fs::read(place));
        return;
    };
    // In one order everywhere: a seed is to give the same inputs again.
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    for path in paths {
        read_below(&path, into);
    }
}

fn write_all(folder: &Path, inputs: &[Vec<u8>]) {
    std::fs::create_dir_all(folder).expect("GRIDBACKUP_FUZZ_KEEP can be written to");
    for input in inputs {
        std::fs::write(folder.join(name_of(input)), input).expect("GRIDBACKUP_FUZZ_KEEP can be written to");
    }
}

fn name_of(input: &[u8]) -> String {
    blake3::hash(input).to_hex()[..16].to_owned()
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

/// Reads one input; what was answered.
fn try_one(target: &Target, input: &[u8], watched: &Watched) -> Vec<u64> {
    let mut heard = Heard::default();
    watched.read(input);
    let (mut outcome, before) = (Ok(()), processor_time());
    let bytes = heap::peak_bytes(|| {
        outcome = catch_unwind(AssertUnwindSafe(|| (target.run)(input, &mut heard)));
    });
    let time = processor_time().saturating_sub(before);
    if let Err(panic) = outcome {
        eprintln!("{}", written_down(target.name, input));
        resume_unwind(panic);
    }
    let bytes_max = target.cost.bytes + HELD_PER_BYTE * input.len();
    assert!(
        bytes <= bytes_max,
        "{} bytes were held for {} of input: {}",
        bytes,
        input.len(),
        written_down(target.name, input)
    );
    assert!(
        time <= target.cost.time,
        "{time:?} were spent on {} bytes: {}",
        input.len(),
        written_down(target.name, input)
    );
    heard.answers().to_vec()
}

/// Of this thread: other tests run beside it.
fn processor_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// Keeps an input that failed, and says how to read it again.
fn written_down(name: &str, input: &[u8]) -> String {
    let path = std::env::temp_dir().join(format!("gridbackup-fuzz-{name}-{}", name_of(input)));
    let kept = match std::fs::write(&path, input) {
        Ok(()) => format!("GRIDBACKUP_FUZZ_INPUT={} reads it again", path.display()),
        Err(error) => format!("it could not be written down: {error}"),
    };
    let shown = &input[..input.len().min(SHOWN_MAX)];
    format!("target {name}, input {}, {kept}", data_encoding::HEXLOWER.encode(shown))
}

/// Ends the process when an input is never read to its end: a test cannot be stopped from outside.
struct Watched(Arc<Mutex<(Instant, Vec<u8>)>>);

impl Watched {
    fn begin(name: &'static str) -> Self {
        let shared = Arc::new(Mutex::new((Instant::now(), Vec::with_capacity(INPUT_BYTES_MAX))));
        let watching = Arc::downgrade(&shared);
        std::thread::spawn(move || {
            while let Some(shared) = watching.upgrade() {
                let (since, input) = shared.lock().unwrap_or_else(PoisonError::into_inner).clone();
                if since.elapsed() > ENDLESS {
                    eprintln!("No end after {ENDLESS:?}: {}", written_down(name, &input));
                    std::process::abort();
                }
                drop(shared);
                std::thread::sleep(Duration::from_secs(1));
            }
        });
        Self(shared)
    }

    fn read(&self, input: &[u8]) {
        let (since, bytes) = &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *since = Instant::now();
        bytes.clear();
        bytes.extend_from_slice(input);
    }
}
