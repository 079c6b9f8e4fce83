//! Messages as text. Everything that a file system or a friend named is cleaned of control characters first.

use api::human::ByteSize;
use api::message::{
    Deed, Device, Entry, EntryKind, Finding, Initialized, Job, Level, Message, Mounted, Peer, Problem, Removal,
    RemovalKind, RemovalState, Snapshot, Summary,
};

use super::table::Row;
use super::words::{GREEN, RED, YELLOW, age, capital, clean, count, paint, permissions, setting_value, short, time};
use super::{Style, disk, history, peer_removal, qr, status, summary};

/// Not what was asked for, only that it was done.
pub fn is_chatter(message: &Message) -> bool {
    match message {
        Message::Summary(summary) => !matches!(summary, Summary::Stats(_)),
        other => matches!(other, Message::Changed(_) | Message::Event(_) | Message::Joined(_)),
    }
}

/// The row of a message that belongs in a table.
pub fn row(message: &Message, style: &Style) -> Option<Row> {
    match message {
        Message::Peer(peer) => Some(peer_row(peer, style)),
        Message::Device(device) => Some(device_row(device, style)),
        Message::Disk(disk) if !style.long => Some(disk::row(disk, style)),
        Message::DiskVoter(voter) => Some(disk::voter_row(voter)),
        Message::Snapshot(snapshot) => Some(snapshot_row(snapshot, style)),
        Message::Job(job) => Some(job_row(job)),
        _ => None,
    }
}

/// A message in lines; empty if it is none for people.
pub fn text(message: &Message, style: &Style) -> String {
    let line = match message {
        Message::Initialized(initialized) => return initialized_text(initialized),
        Message::Status(status) => return status::text(status, style),
        // A table of numbers: its line breaks stay.
        Message::Summary(Summary::Simulate(simulate)) => return summary::simulate_text(simulate) + "\n",
        Message::Summary(Summary::Stats(stats)) => return history::stats_text(stats) + "\n",
        Message::Summary(summary @ (Summary::Recover(_) | Summary::Check(_))) => return summary::text(summary) + "\n",
        Message::Summary(Summary::Run(run)) => return summary::run_text(run, style),
        Message::Summary(summary) => summary::text(summary),
        Message::Ticket(ticket) if style.screen => {
            return qr::qr(&ticket.ticket, style.color) + &clean(&ticket.ticket) + "\n";
        }
        Message::Ticket(ticket) => ticket.ticket.clone(),
        Message::Ready(ready) => {
            format!(
                "Ready as {} on {}; API on {}",
                ready.peer_id,
                ready.addresses.join(" "),
                ready.api
            )
        }
        Message::Mounted(mounted) => mounted_text(mounted),
        Message::Disk(disk) => return disk::text(disk, style),
        Message::DiskServed(served) => disk::served_text(served),
        Message::Removal(removal) => removal_text(removal),
        Message::PeerRemoval(removal) => peer_removal::text(removal),
        Message::File(file) => return status::file_text(file),
        Message::Finding(finding) => return finding_text(finding, style),
        Message::Entry(entry) => entry_text(entry, style),
        Message::Group(group) => return history::group_text(group, style) + "\n",
        Message::Change(change) => return history::change_text(change, style) + "\n",
        Message::Folder(folder) => folder.path.display(),
        Message::Rule(rule) => rule.pattern.clone(),
        Message::Setting(setting) if style.bare_setting => setting_value(&setting.value),
        Message::Setting(setting) => format!("{} = {}", setting.key, setting.value),
        Message::Joined(joined) => {
            format!(
                "Joined the grid of {}; members: {}",
                joined.inviter,
                joined.members.join(", ")
            )
        }
        Message::Changed(changed) => match changed.action {
            Deed::Unchanged => format!("{} {} was so already", capital(changed.what.name()), changed.name),
            action => format!("{} {} {action}", capital(changed.what.name()), changed.name),
        },
        Message::Retention(retention) => {
            let reasons = names(&retention.reasons);
            format!(
                "{:<8} {}  {}  {reasons}",
                retention.action,
                short(&retention.id),
                time(retention.time, style)
            )
        }
        Message::Event(event) => format!("{}  {}", time(event.time, style), event.text),
        Message::Error(failure) => failure.to_string(),
        Message::Spool(spool) => spool.text(),
        Message::Problem(problem_met) => problem(problem_met),
        Message::Progress(_)
        | Message::Peer(_)
        | Message::Device(_)
        | Message::DiskVoter(_)
        | Message::Snapshot(_)
        | Message::Job(_) => return String::new(),
    };
    clean(&line) + "\n"
}

fn names(members: &[impl ToString]) -> String {
    let names: Vec<String> = members.iter().map(ToString::to_string).collect();
    names.join(", ")
}

fn mounted_text(mounted: &Mounted) -> String {
    let mut places: Vec<String> = mounted.at.iter().cloned().collect();
    if let (Some(url), Some(password)) = (&mounted.webdav, &mounted.password) {
        places.push(format!("{url} (WebDAV, any user name, password {password})"));
    }
    let after = mounted.at.as_ref().map(|at| {
        format!(" (if it is killed instead, `fusermount3 -u {at}` or `umount -l {at}` takes the dead mount away)")
    });
    format!(
        "Snapshots are at {}; Ctrl-C to end{}",
        places.join(" and "),
        after.unwrap_or_default()
    )
}

fn finding_text(finding: &Finding, style: &Style) -> String {
    let (mark, color) = match finding.level {
        Level::Ok => ("ok     ", GREEN),
        Level::Notice => ("notice ", YELLOW),
        Level::Problem => ("problem", RED),
    };
    let text = format!("{}  {}\n", paint(mark, color, style), clean(&finding.text));
    match &finding.remedy {
        Some(remedy) => text + &format!("         {}\n", clean(remedy)),
        None => text,
    }
}

/// What happened to one file or peer.
pub fn problem(problem: &Problem) -> String {
    let path = problem.path.as_ref().map(|path| path.display());
    let on = path
        .as_deref()
        .or(problem.peer.as_deref())
        .map(|on| format!("{on}: "))
        .unwrap_or_default();
    clean(&format!("gridbackup: {on}{}", problem.error))
}

fn removal_text(removal: &Removal) -> String {
    let verb = match removal.state {
        RemovalState::Removed => "Removed",
        RemovalState::WouldRemove => "Would remove",
        RemovalState::Left => "Left",
    };
    let slash = match removal.kind {
        RemovalKind::Folder => "/",
        RemovalKind::File => "",
    };
    let reason = removal.reason.as_deref().map(|reason| format!(": {reason}"));
    format!("{verb} {}{slash}{}", removal.path.display(), reason.unwrap_or_default())
}

fn initialized_text(initialized: &Initialized) -> String {
    let mut text = format!("Account  {}\nDevice   {}\n", initialized.account, initialized.peer_id);
    if let Some(phrase) = &initialized.phrase {
        text.push_str("\nYour recovery phrase. It is shown only now; whoever has it can read your backups,\n");
        text.push_str("and without it nobody can when this machine is lost. Write it on paper.\n\n");
        let words: Vec<&str> = phrase.split(' ').collect();
        for (row, four) in words.chunks(4).enumerate() {
            let cells = four
                .iter()
                .enumerate()
                .map(|(column, word)| format!("{:>2}. {word:<9}", row * 4 + column + 1));
            text.push_str(&format!("   {}\n", cells.collect::<Vec<_>>().join(" ").trim_end()));
        }
        text.push('\n');
    } else if let Some(file) = &initialized.phrase_file {
        let file = clean(&file.display());
        text.push_str(&format!(
            "\nThe recovery phrase is in {file}: print it, then remove the file.\n\n"
        ));
    }
    text + "Next: `gridbackup folder add PATH`, and `gridbackup peer add` or `gridbackup join TICKET`.\n"
}

fn device_row(device: &Device, style: &Style) -> Row {
    let state = match (device.is_revoked, device.is_this, device.is_online) {
        (true, ..) => "revoked",
        (_, true, _) => "this one",
        (_, _, true) => "online",
        _ => "offline",
    };
    Row {
        head: &["NAME", "ID", "CERTIFIED", "STATE", "MAY"],
        cells: vec![
            clean(&device.name),
            device.id.chars().take(16).collect(),
            device.certified.map_or_else(|| "-".to_owned(), |at| age(at, style)),
            state.to_owned(),
            names(&device.powers),
        ],
    }
}

fn peer_row(peer: &Peer, style: &Style) -> Row {
    let seen = match (peer.online, peer.last_seen) {
        (true, _) => "now".to_owned(),
        (false, Some(at)) => age(at, style),
        (false, None) => "never".to_owned(),
    };
    let dash = || "-".to_owned();
    Row {
        head: &[
            "NAME",
            "KIND",
            "ONLINE",
            "REACH",
            "SEEN",
            ">UPTIME",
            ">FOR ME",
            ">FOR THEM",
            ">QUOTA",
            ">AUDITS",
            "STANDING",
        ],
        cells: vec![
            clean(&peer.name),
            peer.kind.name().to_owned(),
            if peer.online { "yes" } else { "no" }.to_owned(),
            peer.reach.to_string(),
            seen,
            peer.uptime
                .map_or_else(dash, |uptime| format!("{:.0} %", uptime * 100.0)),
            ByteSize(peer.bytes_for_me).to_string(),
            ByteSize(peer.bytes_for_them).to_string(),
            peer.quota.map_or_else(dash, |quota| ByteSize(quota).to_string()),
            peer.audits
                .map_or_else(dash, |(passed, done)| format!("{passed}/{done}")),
            match peer.is_steward {
                true => format!("{}, steward", peer.standing),
                false => peer.standing.to_string(),
            },
        ],
    }
}

fn snapshot_row(snapshot: &Snapshot, style: &Style) -> Row {
    Row {
        head: &["ID", "TIME", "DEVICE", ">FILES", ">SIZE", "COMPLETE", "MARKS"],
        cells: vec![
            short(&snapshot.id),
            time(snapshot.time, style),
            match snapshot.device_name.is_empty() {
                true => clean(&snapshot.device),
                false => clean(&snapshot.device_name),
            },
            snapshot.files.to_string(),
            ByteSize(snapshot.bytes).to_string(),
            match (snapshot.broken, snapshot.complete) {
                (true, _) => "content lost",
                (false, true) => "yes",
                (false, false) => "no",
            }
            .to_owned(),
            history::marks_text(snapshot),
        ],
    }
}

fn job_row(job: &Job) -> Row {
    let class = if job.class_name.is_empty() {
        "other"
    } else {
        &job.class_name
    };
    Row {
        head: &[
            ">SCORE", ">RECENT", ">SMALL", ">CLASS", ">WAITED", "CLASS", "STATE", ">SIZE", "PATH",
        ],
        cells: vec![
            format!("{:.1}", job.score),
            format!("{:.1}", job.recency),
            format!("{:.1}", job.size),
            format!("{:.1}", job.class),
            format!("{:.1}", job.ageing),
            clean(class),
            job.state.to_string(),
            ByteSize(job.bytes).to_string(),
            clean(&job.path.display()),
        ],
    }
}

fn entry_text(entry: &Entry, style: &Style) -> String {
    let kind = match entry.kind {
        EntryKind::File | EntryKind::Object => '-',
        EntryKind::Directory => 'd',
        EntryKind::Symlink => 'l',
        EntryKind::Fifo => 'p',
        EntryKind::Socket => 's',
        EntryKind::CharDevice => 'c',
        EntryKind::BlockDevice => 'b',
    };
    let target = entry
        .link_target
        .as_deref()
        .map(|target| format!(" -> {target}"))
        .unwrap_or_default();
    let shown = entry.snapshots.map_or_else(String::new, |snapshots| {
        let number = count(snapshots, "snapshot", "snapshots");
        format!("  (in {number}, up to {})", short(&entry.snapshot))
    });
    format!(
        "{kind}{} {:>5} {:>5} {:>11} {} {}{target}{shown}",
        permissions(entry.mode),
        entry.uid,
        entry.gid,
        ByteSize(entry.bytes),
        time(entry.mtime, style),
        entry.path.display(),
    )
}
