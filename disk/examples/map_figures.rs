//! What the committed map of a disk takes and how long: `cargo run --release -p disk --example map_figures -- FOLDER [RUNS] [BLOCKS]`.
//! RUNS (10,000,000) of one to four blocks are put at drawn places of a volume of BLOCKS (2^28: 1 TiB), a thousand to a commit; then all
//! is written, blocks are looked up, and the map is opened again. FOLDER is made and has to be empty.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result};
use disk::extents::{CommittedMap, MapOptions, NoSource, Place, Run, Update};

/// Runs of a commit.
const COMMIT_RUNS: u64 = 1_000;
/// Blocks that are looked up.
const LOOKUPS: u64 = 100_000;

/// Numbers that follow from a seed (SplitMix64).
struct Draw(u64);

impl Draw {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % end
    }
}

/// Most memory that this process ever took, in MiB.
fn peak_mib() -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib: u64 = line.context("no VmHWM")?.trim().trim_end_matches(" kB").parse()?;
    Ok(kib / 1024)
}

fn look_up(map: &mut CommittedMap, draw: &mut Draw, blocks: u64) -> Result<u64> {
    let mut found = 0;
    for _ in 0..LOOKUPS {
        found += map.find(draw.below(blocks), 1)?.len() as u64;
    }
    Ok(found)
}

/// Puts runs in, a commit after the other.
fn put_in(map: &mut CommittedMap, draw: &mut Draw, runs: u64, blocks: u64) -> Result<()> {
    for commit in 1..=runs / COMMIT_RUNS {
        let updates = (0..COMMIT_RUNS as u32).map(|slot| {
            let count = 1 + draw.below(4);
            let place = Place::new(commit as u32, slot, 0).context("a thousand slots fit in a pack")?;
            let start = draw.below(blocks - count);
            Ok(Update::Map(Run { start, count, place }))
        });
        map.apply(commit, &updates.collect::<Result<Vec<_>>>()?)?;
    }
    Ok(())
}

/// Writes all that is in memory alone; its bytes.
fn write_all(map: &mut CommittedMap) -> Result<usize> {
    let mut written = 0;
    loop {
        let done = map.write_back(8 << 20)?;
        written += done.bytes;
        if done.regions.is_empty() {
            return Ok(written);
        }
    }
}

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let folder = PathBuf::from(arguments.next().context("which folder?")?);
    let runs: u64 = arguments.next().map_or(Ok(10_000_000), |text| text.parse())?;
    let blocks: u64 = arguments.next().map_or(Ok(1 << 28), |text| text.parse())?;
    std::fs::create_dir_all(&folder)?;
    let options = MapOptions::new(folder.clone(), [1; 16]);
    let mut map = CommittedMap::open(options.clone(), Arc::new(NoSource))?;
    let mut draw = Draw(1);
    let begun = Instant::now();
    put_in(&mut map, &mut draw, runs, blocks)?;
    let (secs, usage, peak) = (begun.elapsed().as_secs_f64(), map.usage(), peak_mib()?);
    println!("{runs} runs put in {secs:.1} s; {usage:?}; peak {peak} MiB");

    let begun = Instant::now();
    let written = write_all(&mut map)? >> 20;
    let secs = begun.elapsed().as_secs_f64();
    println!("the rest, {written} MiB of leaves, written in {secs:.1} s");
    drop(map);

    let begun = Instant::now();
    let mut map = CommittedMap::open(options, Arc::new(NoSource))?;
    println!("opened again in {:.3} s", begun.elapsed().as_secs_f64());
    for _ in 0..2 {
        let begun = Instant::now();
        let found = look_up(&mut map, &mut draw, blocks)?;
        let rate = LOOKUPS as f64 / begun.elapsed().as_secs_f64();
        println!("{rate:.0} blocks looked up a second, {found} of {LOOKUPS} mapped");
    }
    let begun = Instant::now();
    let is_right = map.recount()?;
    println!("recounted in {:.1} s: {is_right}", begun.elapsed().as_secs_f64());
    let mut bytes = 0;
    for entry in std::fs::read_dir(&folder)? {
        bytes += entry?.metadata()?.len();
    }
    println!("{} MiB on disk; peak {} MiB", bytes >> 20, peak_mib()?);
    Ok(())
}
