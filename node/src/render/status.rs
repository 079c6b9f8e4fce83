//! The answer to "is my data safe", in lines: the verdict first, why and what to do, then the numbers.

use api::human::ByteSize;
use api::message::{Advice, FileState, FileStatus, Reason, State, Status};

use super::words::{GREEN, RED, YELLOW, age, clean, paint, short, time};
use super::{Style, disk};

/// Everything, in one look.
pub fn text(status: &Status, style: &Style) -> String {
    let color = match status.state {
        State::Safe | State::StoreOnly => GREEN,
        // These ask for hands at once.
        State::Lost | State::AtRisk | State::HeadRefused | State::NoPeer | State::ConfigDamaged | State::RunFailed => {
            RED
        }
        _ => YELLOW,
    };
    let mut text = paint(&clean(&status.headline), color, style);
    text.push_str(&reasons(&status.reasons, style));
    if style.brief {
        return text + "\n`gridbackup status` has the numbers, `gridbackup --help` all commands\n";
    }
    text.push_str("\n\n");
    for (name, files, bytes) in [
        ("protected", status.files_protected, status.bytes_protected),
        ("waiting", status.files_waiting, status.bytes_waiting),
        ("at risk", status.files_at_risk, status.bytes_at_risk),
        ("lost", status.files_lost, status.bytes_lost),
        ("in all", status.files_total, status.bytes_total),
    ] {
        if name != "lost" || files > 0 {
            text.push_str(&format!("  {name:<10} {files:>10} files {:>12}\n", ByteSize(bytes)));
        }
    }
    if status.files_unread > 0 {
        let count = status.files_unread;
        text.push_str(&format!(
            "  {:<10} {count:>10} files or folders, in their newest state\n",
            "not read"
        ));
    }
    text.push_str(&match status.only_catalog {
        true => format!(
            "\nPeers: {}; who of them answers was not asked, another process works here\n",
            status.peers_total
        ),
        false => format!("\nPeers online: {} of {}\n", status.peers_online, status.peers_total),
    });
    if status.spool.bytes > 0 {
        text.push_str(&format!("{}\n", clean(&status.spool.text())));
    }
    text.push_str(&runs(status, style));
    for device in &status.devices {
        text.push_str(&format!("Another machine of this account: {}\n", clean(device)));
    }
    text.extend(status.disks.iter().map(|disk| disk::line(disk, style) + "\n"));
    text.push_str(&outlook(status));
    for cost in &status.costs {
        let to_read = cost
            .dollars_to_read
            .map(|dollars| format!(", about ${dollars:.2} to read it all once"));
        text.push_str(&format!(
            "{}: {} cost about ${:.2} a month{}\n",
            clean(&cost.peer),
            ByteSize(cost.bytes),
            cost.dollars_a_month,
            to_read.unwrap_or_default()
        ));
    }
    for alarm in &status.alarms {
        text.push_str(&paint(&clean(&alarm.text), YELLOW, style));
        text.push('\n');
    }
    text
}

/// The first reason is the headline: what is left of it, the others, and what to do about each.
pub fn reasons(reasons: &[Reason], style: &Style) -> String {
    let mut text = String::new();
    for (number, reason) in reasons.iter().enumerate() {
        if number > 0 {
            text.push_str(&format!("\n  also: {}", clean(&reason.text)));
        }
        if let Some(since) = reason.since {
            text.push_str(&format!(" (since {})", time(since, style)));
        }
        if let Some(remedy) = &reason.remedy {
            text.push_str(&format!(
                "\n  {}: {}",
                if number == 0 { "next" } else { "  do" },
                clean(remedy)
            ));
        }
    }
    text
}

fn runs(status: &Status, style: &Style) -> String {
    let newest = match (&status.newest_complete_snapshot, status.newest_complete_time) {
        (None, _) => "none".to_owned(),
        (Some(id), None) => short(id),
        (Some(id), Some(at)) => format!("{} of {} ({})", short(id), time(at, style), age(at, style)),
    };
    let mut text = format!("Newest complete snapshot: {newest}\n");
    if let Some(run) = &status.last_run {
        let how = match (run.ended, run.exit) {
            (None, _) => "has not ended".to_owned(),
            (Some(_), Some(0)) => "all done".to_owned(),
            (Some(_), exit) => format!("exit code {}", exit.unwrap_or_default()),
        };
        text.push_str(&format!(
            "Last run: {} ({}), {how}\n",
            time(run.began, style),
            age(run.began, style)
        ));
    }
    text
}

/// A probability in percent: never rounded to certainty.
pub fn percent(probability: f64) -> String {
    match probability * 100.0 {
        of if of > 99.99 && of < 100.0 => "> 99.99 %".to_owned(),
        of if of > 0.0 && of < 0.01 => "< 0.01 %".to_owned(),
        of if of.fract() == 0.0 => format!("{of:.0} %"),
        of => format!("{of:.2} %"),
    }
}

fn outlook(status: &Status) -> String {
    let (Some(now), Some(soon), Some(loss)) = (status.p_restorable_now, status.p_restorable_48h, status.p_loss_year)
    else {
        return String::new();
    };
    let by = match status.uptimes_measured {
        true => "by measured uptimes",
        false => "by who answers now; uptimes are not measured yet",
    };
    let advice = match status.advice {
        None => "",
        Some(Advice::AnotherFriend) => {
            "Most would be won by another friend, in another household: `gridbackup invite`\n"
        }
        Some(Advice::AlwaysOnPeer) => {
            "Most would be won by a peer that is always on: a home server, or `gridbackup peer add`\n"
        }
    };
    format!(
        "Restorable at once: {}, within 48 hours: {} ({by})\nLost to all peers within a year: {}\n{advice}",
        percent(now),
        percent(soon),
        percent(loss),
    )
}

/// One file or folder.
pub fn file_text(file: &FileStatus) -> String {
    let (state, is_kept) = match file.state {
        FileState::Protected => ("protected", true),
        FileState::Waiting => ("waiting", true),
        FileState::AtRisk => ("at risk", true),
        FileState::Lost => ("lost", true),
        FileState::Changed => ("changed", true),
        FileState::Deleted => ("deleted", true),
        FileState::Unreadable => ("unreadable", file.domains > 0),
        FileState::Excluded => ("excluded", file.domains > 0),
        FileState::Unknown => ("unknown", false),
        FileState::Missing => ("missing", false),
    };
    let of_what = match file.state {
        FileState::Changed | FileState::Deleted | FileState::Unreadable | FileState::Excluded => "its last backup is ",
        _ => "",
    };
    let kept = match is_kept {
        true => format!(
            "{of_what}on {} peers, survives the loss of {}  ",
            file.domains, file.tolerates
        ),
        false => String::new(),
    };
    let reason = file
        .reason
        .as_deref()
        .map(|reason| format!("\n           {}", clean(reason)));
    format!(
        "{state:<10} {kept}{}{}\n",
        clean(&file.path.display()),
        reason.unwrap_or_default()
    )
}
