//! One file's content in order, with a few packs fetched ahead.

use std::io::{self, Write};
use std::sync::Mutex;

use futures::StreamExt;
use proto::cap_index::{ChunkSlot, Extent};
use proto::log_record::Content;
use proto::size::{KIB, MIB};
use upload_queue::packs::PackRow;

use crate::catalog::content::Place;
use crate::catalog::{content, tree};
use crate::restore::content::open_chunk;
use crate::restore::fetch_stats::FetchStats;
use crate::restore::sections::{load_inlines, take_inline};
use crate::restore::{Reader, RestoreError};

/// Chunks of one pack that are fetched as one, at most so many bytes, and how many such are fetched ahead.
const RUN_BYTES_MAX: u64 = 8 * MIB as u64;
const RUNS_AHEAD: usize = 4;

/// Consecutive chunks in one pack, with their offsets in the file.
struct Run {
    pack: PackRow,
    chunks: Vec<(ChunkSlot, u64)>,
}

pub(super) fn cat(reader: &Reader, snapshot: u64, path: &[u8], out: &mut dyn Write) -> Result<u64, RestoreError> {
    let name = || String::from_utf8_lossy(path).into_owned();
    let entry = reader
        .db
        .read(|conn| tree::entry(conn, snapshot, path))?
        .ok_or_else(|| RestoreError::NoSuchPath { path: name() })?;
    let stats = Mutex::new(FetchStats::default());
    let version = match entry.content {
        Content::Inline(content) => return write(out, &content).map(|()| content.len() as u64),
        Content::None => return Err(RestoreError::NoContent { path: name() }),
        Content::Version(version) => version,
    };
    match reader.db.read(|conn| content::place(conn, version))? {
        None => Err(RestoreError::Waiting { path: name() }),
        Some(Place::Section(section)) => {
            let loaded = reader.runtime.block_on(load_inlines(reader, section, &stats));
            let content = take_inline(&mut loaded?, version)?;
            write(out, &content).map(|()| content.len() as u64)
        }
        Some(Place::Extents(extents)) => reader.runtime.block_on(cat_extents(reader, &extents, &stats, out)),
    }
}

/// Writes the content made of `extents`, a few packs ahead; returns its length.
pub(super) async fn cat_extents(
    reader: &Reader,
    extents: &[Extent],
    stats: &Mutex<FetchStats>,
    out: &mut dyn Write,
) -> Result<u64, RestoreError> {
    let mut runs: Vec<Run> = Vec::new();
    let mut run_bytes = 0;
    let end = reader.locate(extents, |pack, slot, offset| {
        run_bytes += u64::from(slot.raw_len);
        match runs.last_mut() {
            Some(run) if run.pack == pack && run_bytes <= RUN_BYTES_MAX => run.chunks.push((slot, offset)),
            _ => {
                run_bytes = u64::from(slot.raw_len);
                let chunks = vec![(slot, offset)];
                runs.push(Run { pack, chunks });
            }
        }
    })?;
    let mut fetched = futures::stream::iter(runs)
        .map(|run| async move {
            let slots: Vec<ChunkSlot> = run.chunks.iter().map(|(slot, _)| *slot).collect();
            reader
                .read_slots(run.pack, &slots, stats)
                .await
                .map(|stored| (run, stored))
        })
        .buffered(RUNS_AHEAD);
    let mut position = 0;
    while let Some(fetched) = fetched.next().await {
        let (run, stored) = fetched?;
        for ((slot, offset), stored) in run.chunks.iter().zip(&stored) {
            write_zeros(out, offset - position)?;
            write(out, &open_chunk(reader, slot, stored)?)?;
            position = offset + u64::from(slot.raw_len);
        }
    }
    write_zeros(out, end - position)?;
    Ok(end)
}

fn write(out: &mut dyn Write, bytes: &[u8]) -> Result<(), RestoreError> {
    out.write_all(bytes).map_err(failed)
}

fn write_zeros(out: &mut dyn Write, len: u64) -> Result<(), RestoreError> {
    let zeros = [0; 64 * KIB];
    let mut left = len;
    while left > 0 {
        let now = left.min(zeros.len() as u64);
        write(out, &zeros[..now as usize])?;
        left -= now;
    }
    Ok(())
}

fn failed(source: io::Error) -> RestoreError {
    RestoreError::Target {
        path: "The output".into(),
        source,
    }
}
