//! Changes, groups and statistics of snapshots as text.

use api::human::ByteSize;
use api::message::{Change, ChangeKind, DiffSummary, EntryKind, Group, Snapshot, StatsSummary, VerifySummary};

use super::Style;
use super::words::{GREEN, RED, YELLOW, clean, count, paint, seconds, short};

/// A path that differs: the mark is `+`, `-`, `M` for content, `U` for metadata and `T` for type, as restic has it.
pub fn change_text(change: &Change, style: &Style) -> String {
    let (mark, color) = match change.change {
        ChangeKind::Added => ("+", GREEN),
        ChangeKind::Removed => ("-", RED),
        ChangeKind::Modified => ("M", YELLOW),
        ChangeKind::Type => ("T", YELLOW),
        ChangeKind::Metadata => ("U", YELLOW),
    };
    let slash = match change.kind {
        EntryKind::Directory => "/",
        _ => "",
    };
    let what = match change.what.is_empty() {
        true => String::new(),
        false => format!("  ({})", change.what.join(", ")),
    };
    format!(
        "{}  {}{slash}{what}",
        paint(mark, color, style),
        clean(&change.path.display())
    )
}

/// Counts of a comparison.
pub fn diff_text(diff: &DiffSummary) -> String {
    format!(
        "From {} to {}: {} added, {} removed, {} modified, {} in metadata only, {} in type; +{} -{}",
        short(&diff.before),
        short(&diff.after),
        diff.added,
        diff.removed,
        diff.modified,
        diff.metadata,
        diff.type_changed,
        ByteSize(diff.bytes_added),
        ByteSize(diff.bytes_removed),
    )
}

/// The head of a group.
pub fn group_text(group: &Group, style: &Style) -> String {
    let number = count(group.snapshots, "snapshot", "snapshots");
    format!("\n{} ({number})", paint(&clean(&group.name), GREEN, style))
}

/// Tags, and that a snapshot is pinned.
pub fn marks_text(snapshot: &Snapshot) -> String {
    let pinned = snapshot.pinned.then_some("pinned").into_iter();
    let marks: Vec<&str> = pinned.chain(snapshot.tags.iter().map(String::as_str)).collect();
    clean(&marks.join(", "))
}

/// What snapshots take, in a column.
pub fn stats_text(stats: &StatsSummary) -> String {
    let of = match &stats.snapshot {
        Some(id) => format!("Snapshot {}", short(id)),
        None => count(stats.snapshots, "snapshot", "snapshots"),
    };
    let mut text = format!("{of}: {}\n", count(stats.files, "file", "files"));
    let rows = [
        ("by length", Some(stats.bytes)),
        ("deduplicated", Some(stats.bytes_deduplicated)),
        ("compressed", Some(stats.bytes_compressed)),
        ("on peers, with redundancy", Some(stats.bytes_stored)),
        ("in no other snapshot", stats.bytes_unique),
    ];
    for (name, bytes) in rows {
        if let Some(bytes) = bytes {
            text.push_str(&format!("  {name:<26} {:>12}\n", ByteSize(bytes)));
        }
    }
    if stats.contents_waiting > 0 {
        let waiting = count(stats.contents_waiting, "content waits", "contents wait");
        text.push_str(&format!("  {waiting} to go up, and count by length alone\n"));
    }
    text.trim_end().to_owned()
}

/// What a drill found.
pub fn verify_text(verify: &VerifySummary) -> String {
    let verdict = match (verify.ok, verify.unreadable + verify.differing) {
        (true, _) => "Restorable",
        (false, 0) if verify.snapshots_broken > 0 => "Restorable, but newer snapshots are not",
        (false, 0) => "Restorable here, but not by the phrase from every peer",
        (false, _) => "NOT all restorable",
    };
    format!(
        "{verdict}: of {} ({}) of snapshot {}, {} identical, {} changed here since, {} differing, {} unreadable in {}",
        count(verify.files, "file", "files"),
        ByteSize(verify.bytes),
        short(&verify.snapshot),
        verify.identical,
        verify.changed_since,
        verify.differing,
        verify.unreadable,
        seconds(verify.seconds),
    )
}
