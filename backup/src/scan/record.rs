//! Recording a scan: the snapshot, its rows and its jobs become visible in one transaction, or not at all.
//!
//! No file is touched here. Rows go in sorted by directory and name, which SQLite takes ten times as fast as any order.

use std::collections::HashMap;
use std::os::unix::ffi::OsStrExt;

use database::DbError;
use proto::id::VersionId;
use proto::log_record::{Content, LeftOut, PathBytes, SnapshotRecord};
use rusqlite::Transaction;
use upload_queue::job::{JobState, NewJob};
use upload_queue::queue::Queue;

use super::ScanOptions;
use super::contents::{Move, Needs};
use super::outcome::{Delta, Outcome};
use crate::catalog::content::reserve_versions;
use crate::catalog::tree;
use crate::catalog::tree::rows::{EntryRow, child_directories, child_directory, join};
use crate::catalog::tree::{Snapshot, rows};

/// Jobs handed to the queue at a time.
const JOBS_AT_ONCE: usize = 1024;

/// Records everything, and returns the snapshot's sequence number.
pub(super) fn record(
    tx: &Transaction<'_>,
    queue: &Queue,
    options: &ScanOptions,
    roots: Vec<PathBytes>,
    outcome: &mut Outcome,
    needs: &Needs,
) -> Result<u64, DbError> {
    let parent = tree::latest(tx)?.map(|snapshot| snapshot.record.seq);
    let seq = parent.unwrap_or(0) + 1;
    let record = SnapshotRecord {
        seq,
        id: tree::snapshot_id(options.device, seq, options.now_ns),
        time_ns: options.now_ns,
        parent,
        source_roots: roots,
        files: outcome.files,
        bytes: outcome.bytes,
    };
    tree::insert_snapshot(
        tx,
        &Snapshot {
            record,
            device: options.device,
        },
    )?;
    tree::set_left_out(tx, seq, &left_out(options, outcome))?;
    name_versions(tx, outcome, needs)?;
    let taken_over = take_over(tx, queue, outcome, needs)?;
    end_gone(tx, seq, outcome)?;
    for delta in &outcome.deltas {
        write_delta(tx, seq, delta)?;
    }
    write_aliases(tx, outcome, needs)?;
    write_marks(tx, outcome)?;
    queue.enqueue(tx, &taken_over, options.now_ns)?;
    for places in needs.jobs.chunks(JOBS_AT_ONCE) {
        let jobs = places
            .iter()
            .filter_map(|(delta, staged)| job(&outcome.deltas[*delta], *staged));
        queue.enqueue(tx, &jobs.collect::<Vec<_>>(), options.now_ns)?;
    }
    Ok(seq)
}

/// What this scan did not look at, so that a restore does not take it for absent.
fn left_out(options: &ScanOptions, outcome: &Outcome) -> LeftOut {
    let failed = outcome.failed.iter().map(|failure| failure.path.as_os_str().as_bytes());
    let passed_over = outcome.passed_over.iter().map(Vec::as_slice);
    let left_out = outcome.left_out.iter().map(Vec::as_slice);
    let unread = failed.chain(passed_over).chain(left_out);
    let mut unread: Vec<PathBytes> = unread.map(|path| PathBytes(path.to_vec())).collect();
    unread.sort();
    unread.dedup();
    LeftOut {
        rules: options.rules.texts().to_vec(),
        keeps_caches: !options.rules.heeds_cache_tags(),
        one_file_system: options.one_file_system,
        unread,
        is_cut: false,
    }
    .within_limits()
}

/// Turns the scan's own count of fresh versions into version ids.
fn name_versions(tx: &Transaction<'_>, outcome: &mut Outcome, needs: &Needs) -> Result<(), DbError> {
    if needs.versions == 0 {
        return Ok(());
    }
    let first = reserve_versions(tx, needs.versions)?;
    let staged = outcome.deltas.iter_mut().flat_map(|delta| &mut delta.set);
    for staged in staged.filter(|staged| staged.fresh) {
        if let Content::Version(VersionId(number)) = &mut staged.entry.content {
            *number = number.wrapping_add(first.0);
        }
    }
    Ok(())
}

fn job(delta: &Delta, staged: usize) -> Option<NewJob> {
    let entry = &delta.set[staged].entry;
    let Content::Version(version) = entry.content else {
        return None;
    };
    Some(NewJob {
        version,
        path: join(&delta.path, &entry.name),
        bytes: entry.meta.size,
        mtime_ns: entry.meta.mtime_ns,
    })
}

/// Files that moved before their job had read them: the job would look for them under a name that is gone. They get a
/// fresh version and job under the new name, and the old snapshot's row gets that version too, since it is one content.
fn take_over(
    tx: &Transaction<'_>,
    queue: &Queue,
    outcome: &mut Outcome,
    needs: &Needs,
) -> Result<Vec<NewJob>, DbError> {
    let mut renamed: HashMap<VersionId, VersionId> = HashMap::new();
    let mut jobs = Vec::new();
    for moved in &needs.moves {
        let Move {
            version,
            old_name,
            delta,
            staged,
        } = moved;
        if !renamed.contains_key(version) {
            let old_path = join(&old_name.directory_path, &old_name.row.entry.name);
            let waits = queue
                .get(tx, *version)?
                .filter(|job| job.state != JobState::Sending && job.path == old_path);
            if waits.is_none() {
                continue;
            }
            let fresh = reserve_versions(tx, 1)?;
            queue.settle(tx, &[*version])?;
            renamed.insert(*version, fresh);
            outcome.deltas[*delta].set[*staged].entry.content = Content::Version(fresh);
            jobs.extend(job(&outcome.deltas[*delta], *staged));
        }
        let fresh = renamed[version];
        outcome.deltas[*delta].set[*staged].entry.content = Content::Version(fresh);
        let mut entry = old_name.row.entry.clone();
        entry.content = Content::Version(fresh);
        rows::update(tx, old_name.directory, old_name.row.since, &entry)?;
        tree::note_amendment(tx, old_name.row.since, old_name.directory, &entry.name)?;
    }
    Ok(jobs)
}

/// Ends everything below directories that have gone.
fn end_gone(tx: &Transaction<'_>, seq: u64, outcome: &Outcome) -> Result<(), DbError> {
    for (parent, _, name) in &outcome.gone_directories {
        let Some(id) = child_directory(tx, *parent, name)? else {
            continue;
        };
        tree::close_below(tx, seq, id)?;
        let mut pending = vec![id];
        while let Some(id) = pending.pop() {
            tx.prepare_cached("UPDATE directory SET fingerprint = NULL WHERE id = ?")?
                .execute([id])?;
            tx.prepare_cached("DELETE FROM lacking WHERE directory = ?")?
                .execute([id])?;
            tx.prepare_cached("DELETE FROM mount_point WHERE directory = ?")?
                .execute([id])?;
            pending.extend(child_directories(tx, id)?);
        }
    }
    Ok(())
}

fn write_delta(tx: &Transaction<'_>, seq: u64, delta: &Delta) -> Result<(), DbError> {
    if delta.is_new {
        tx.prepare_cached("INSERT INTO directory (id, parent, name, fingerprint) VALUES (?, ?, ?, ?)")?
            .execute((delta.id, delta.parent, delta.name(), delta.fingerprint))?;
    } else {
        // An amendment made while the scan was under way asks for another look.
        tx.prepare_cached("UPDATE directory SET fingerprint = iif(marks = ?, ?, NULL) WHERE id = ?")?
            .execute((delta.marks, delta.fingerprint, delta.id))?;
    }
    if !delta.set.is_empty() || !delta.ended.is_empty() {
        rows::note_change(tx, seq, delta.id)?;
    }
    let mut end = tx.prepare_cached("UPDATE entry SET until = ? WHERE directory = ? AND name = ? AND until IS NULL")?;
    for name in &delta.ended {
        end.execute((seq, delta.id, name))?;
    }
    for staged in &delta.set {
        let row = EntryRow {
            since: seq,
            until: None,
            suspect: staged.suspect,
            entry: staged.entry.clone(),
        };
        rows::insert(tx, delta.id, &row)?;
    }
    Ok(())
}

/// What later scans have to know.
fn write_marks(tx: &Transaction<'_>, outcome: &Outcome) -> Result<(), DbError> {
    let mut delete = tx.prepare_cached("DELETE FROM lacking WHERE directory = ? AND name = ?")?;
    for delta in &outcome.deltas {
        let set = delta.set.iter().map(|staged| &staged.entry.name);
        set.chain(&delta.ended)
            .try_for_each(|name| delete.execute((delta.id, name)).map(drop))?;
    }
    let mut insert = tx.prepare_cached("INSERT OR REPLACE INTO lacking VALUES (?, ?, ?)")?;
    for (directory, name, reason) in &outcome.lacking {
        insert.execute((directory, name, reason))?;
    }
    for (directory, is_mount_point) in &outcome.mount_points {
        let sql = match is_mount_point {
            true => "INSERT OR IGNORE INTO mount_point VALUES (?)",
            false => "DELETE FROM mount_point WHERE directory = ?",
        };
        tx.prepare_cached(sql)?.execute([directory])?;
    }
    Ok(())
}

fn write_aliases(tx: &Transaction<'_>, outcome: &Outcome, needs: &Needs) -> Result<(), DbError> {
    let moved = needs.moves.iter().map(|moved| (moved.delta, moved.staged));
    let mut insert = tx.prepare_cached("INSERT OR IGNORE INTO alias (version, directory, name) VALUES (?, ?, ?)")?;
    for (delta, staged) in needs.aliases.iter().copied().chain(moved) {
        let delta = &outcome.deltas[delta];
        let entry = &delta.set[staged].entry;
        insert.execute((rows::version_column(&entry.content), delta.id, &entry.name))?;
    }
    Ok(())
}
