//! Virtual disks as text.

use std::time::Duration;

use api::human::{ByteSize, Period};
use api::message::{Disk, DiskFigures, DiskServed, DiskState, DiskVoter, Promised};

use super::Style;
use super::table::Row;
use super::words::{GREEN, RED, YELLOW, age, clean, paint, time};

fn state(disk: &Disk, style: &Style) -> String {
    let color = match disk.state {
        DiskState::Served | DiskState::Closed if disk.problem.is_none() => GREEN,
        DiskState::Unreadable => RED,
        _ => YELLOW,
    };
    paint(disk.state.name(), color, style)
}

fn size(bytes: Option<u64>) -> String {
    bytes.map_or_else(|| "-".to_owned(), |bytes| ByteSize(bytes).to_string())
}

fn committed(disk: &Disk, style: &Style) -> String {
    match (disk.waiting_secs, disk.committed) {
        (Some(secs), _) => format!("waits for {}", Period(Duration::from_secs(secs))),
        (None, Some(at)) => age(at, style),
        (None, None) => "-".to_owned(),
    }
}

/// A line of `status`.
pub fn line(disk: &Disk, style: &Style) -> String {
    let mut parts = vec![size(disk.size), state(disk, style)];
    parts.extend(
        disk.machine
            .as_ref()
            .map(|machine| format!("written by machine {}", clean(machine))),
    );
    parts.extend(disk.committed.map(|at| format!("last commit {}", age(at, style))));
    let waits = |secs| format!("not committed for {}", Period(Duration::from_secs(secs)));
    parts.extend(disk.waiting_secs.map(waits));
    parts.extend(disk.held_bytes.map(|bytes| format!("{} at peers", ByteSize(bytes))));
    format!("Disk {}: {}", clean(&disk.name), parts.join(", "))
}

/// A line of the list.
pub fn row(disk: &Disk, style: &Style) -> Row {
    let committed = committed(disk, style);
    let place = match (&disk.machine, &disk.served_at[..]) {
        (Some(machine), _) => format!("machine {machine}"),
        (None, []) => "-".to_owned(),
        (None, places) => places.join(", "),
    };
    Row {
        head: &["NAME", "ID", ">SIZE", "STATE", ">JOURNAL", "COMMITTED", "AT"],
        cells: vec![
            clean(&disk.name),
            disk.id.chars().take(8).collect(),
            size(disk.size),
            disk.state.name().to_owned(),
            size(disk.journal_bytes),
            committed,
            clean(&place),
        ],
    }
}

/// A line of the list of a disk's voters.
pub fn voter_row(voter: &DiskVoter) -> Row {
    let (state, promised) = voter_words(voter);
    Row {
        head: &["VOTER", "ID", "STATE", "PROMISED TO"],
        cells: vec![voter_name(voter), short(&voter.id), state.to_owned(), promised],
    }
}

fn short(id: &str) -> String {
    id.chars().take(8).collect()
}

fn voter_name(voter: &DiskVoter) -> String {
    match &voter.peer {
        Some(peer) => clean(peer),
        None if voter.gone => "gone".to_owned(),
        None => "?".to_owned(),
    }
}

fn voter_words(voter: &DiskVoter) -> (&'static str, String) {
    let state = match (voter.gone, voter.online, voter.leaving) {
        (true, ..) => "gone",
        (_, false, _) => "away",
        (_, _, true) => "being replaced",
        _ => "there",
    };
    let promised = match (voter.promised, &voter.machine) {
        (Promised::Other, Some(machine)) => format!("machine {}", clean(machine)),
        (Promised::Unknown, _) => "-".to_owned(),
        (promised, _) => promised.name().to_owned(),
    };
    (state, promised)
}

/// All that is known of one.
pub fn text(disk: &Disk, style: &Style) -> String {
    let mut lines = vec![
        ("name", clean(&disk.name)),
        ("id", disk.id.clone()),
        ("size", size(disk.size)),
        ("state", state(disk, style)),
    ];
    if !disk.served_at.is_empty() {
        lines.push(("served at", clean(&disk.served_at.join(", "))));
    }
    if let Some(machine) = &disk.machine {
        lines.push(("last written by", clean(machine)));
    }
    if let Some(commit) = disk.commit {
        let at = disk
            .committed
            .map_or_else(String::new, |at| format!(" of {}", time(at, style)));
        lines.push(("last commit", format!("{commit}{at}")));
    }
    if let Some(bytes) = disk.held_bytes {
        lines.push(("at peers", ByteSize(bytes).to_string()));
    }
    if let Some(secs) = disk.waiting_secs {
        let waits = Period(Duration::from_secs(secs));
        lines.push(("not committed", format!("what was written in the last {waits}")));
    }
    if let Some(bytes) = disk.journal_bytes {
        lines.push((
            "journal",
            format!("{} of {}", ByteSize(bytes), size(disk.journal_bytes_max)),
        ));
    }
    if let Some(cache) = &disk.cache {
        lines.push(("cache", clean(cache)));
    }
    if let Some(origin) = &disk.origin {
        lines.push(("cloned from", clean(origin)));
    }
    for voter in &disk.voters {
        let (state, promised) = voter_words(voter);
        let text = format!(
            "{} ({}), {state}, promised to {promised}",
            voter_name(voter),
            short(&voter.id)
        );
        lines.push(("voter", text));
    }
    for snapshot in &disk.snapshots {
        let clones = match snapshot.clones {
            0 => String::new(),
            clones => format!(", cloned {clones} times"),
        };
        let at = time(snapshot.time, style);
        lines.push(("snapshot", format!("{} of {at}{clones}", clean(&snapshot.name))));
    }
    lines.extend(disk.figures.as_ref().map(figures).unwrap_or_default());
    if let Some(problem) = &disk.problem {
        lines.push(("problem", paint(&clean(problem), RED, style)));
    }
    lines
        .iter()
        .map(|(name, value)| format!("{name:<16}{value}\n"))
        .collect()
}

fn figures(figures: &DiskFigures) -> Vec<(&'static str, String)> {
    let stored = figures
        .packs
        .map(|packs| format!("{} in {packs} packs", size(figures.stored_bytes)));
    let since = format!(
        "{} commits took {} from the disk's user, moved {}, and sent {}",
        figures.commits,
        ByteSize(figures.host_bytes),
        ByteSize(figures.moved_bytes),
        ByteSize(figures.sent_bytes)
    );
    let mut lines = vec![("data", size(figures.live_bytes))];
    lines.extend(stored.map(|stored| ("stored", stored)));
    lines.push(("since opened", since));
    lines.push(("memory", ByteSize(figures.memory_bytes).to_string()));
    lines
}

/// A disk can be used.
pub fn served_text(served: &DiskServed) -> String {
    let name = &served.name;
    let mut lines: Vec<String> = served.nbd.iter().map(|address| nbd_text(name, address)).collect();
    if let Some(file) = &served.file {
        lines.push(format!("the file {file}: `losetup --direct-io=on -f --show {file}`"));
    }
    format!(
        "Disk {name} ({}) is at {}; Ctrl-C to end",
        ByteSize(served.size),
        lines.join(" and ")
    )
}

/// An address as NBD clients have it (the NBD project's doc/uri.md).
fn nbd_text(name: &str, address: &str) -> String {
    match address.strip_prefix("unix:") {
        Some(path) => format!("nbd+unix:///{name}?socket={path}"),
        None => format!("nbd://{address}/{name}"),
    }
}
