//! The last word of each command, as one line.

use api::human::ByteSize;
use api::message::{
    CheckSummary, DemoSummary, DiskSummary, ForgetSummary, MountSummary, PruneSummary, PublishRestoreSummary,
    PublishSummary, RecoverSummary, RepairSummary, RestoreSummary, RevokedSummary, RunSummary, SimulateSummary,
    Summary, UndeleteSummary,
};

use super::status::{percent, reasons};
use super::words::{clean, count, seconds, short};
use super::{Style, history};

/// A summary in one line.
pub fn text(summary: &Summary) -> String {
    match summary {
        Summary::Run(run) => run_line(run),
        Summary::Restore(restore) => restore_text(restore),
        Summary::Recover(recover) => recover_text(recover),
        Summary::Check(check) => check_text(check),
        Summary::Repair(repair) => repair_text(repair),
        Summary::Demo(demo) => demo_text(demo),
        Summary::Simulate(simulate) => simulate_text(simulate),
        Summary::Publish(publish) => publish_text(publish),
        Summary::PublishRestore(restore) => publish_restore_text(restore),
        Summary::Mount(mount) => mount_text(mount),
        Summary::Disk(disk) => disk_text(disk),
        Summary::Forget(forget) => forget_text(forget),
        Summary::Prune(prune) => prune_text(prune),
        Summary::Undelete(undelete) => undelete_text(undelete),
        Summary::Diff(diff) => history::diff_text(diff),
        Summary::Stats(stats) => history::stats_text(stats),
        Summary::Verify(verify) => history::verify_text(verify),
    }
}

/// A run's last line, and below it why not everything is safe.
pub(super) fn run_text(run: &RunSummary, style: &Style) -> String {
    let line = clean(&run_line(run));
    match run.reasons.first() {
        None => line + "\n",
        Some(first) => format!("{line}\n{}{}\n", clean(&first.text), reasons(&run.reasons, style)),
    }
}

fn run_line(run: &RunSummary) -> String {
    let snapshot = match &run.snapshot {
        Some(id) => format!("Snapshot {}", short(id)),
        None => "No snapshot".to_owned(),
    };
    let state = match run.files_waiting {
        _ if run.complete => "complete".to_owned(),
        0 => "not complete".to_owned(),
        waiting => format!("not complete, {} for peers", count(waiting, "file waits", "files wait")),
    };
    let failed = match run.files_failed {
        0 => String::new(),
        failed => format!(", {failed} unreadable"),
    };
    format!(
        "{snapshot} {state}: {} new, {} changed, {} unmodified, {} gone{failed}; read {}, added {}, sent {} in {}",
        run.files_new,
        run.files_changed,
        run.files_unmodified,
        run.files_gone,
        ByteSize(run.bytes_read),
        ByteSize(run.bytes_added),
        ByteSize(run.bytes_sent),
        seconds(run.seconds),
    )
}

fn publish_text(publish: &PublishSummary) -> String {
    let verb = if publish.dry_run { "Would publish" } else { "Published" };
    let part = |number: u64, what: &str| match number {
        0 => String::new(),
        number => format!(", {number} {what}"),
    };
    format!(
        "{verb} {} of {} ({}): {} uploaded, {} unchanged, {} deleted{}{}{}{}{}; sent {} in {}",
        count(publish.objects_uploaded + publish.headers_changed, "object", "objects"),
        count(publish.files, "file", "files"),
        ByteSize(publish.bytes),
        publish.objects_uploaded,
        publish.files_unchanged,
        publish.objects_deleted,
        part(publish.headers_changed, "given other headers"),
        part(publish.objects_kept, "left without a file"),
        part(publish.drifted, "changed by others"),
        part(publish.files_broken, "unreadable"),
        part(publish.objects_failed, "refused"),
        ByteSize(publish.bytes_sent),
        count(publish.requests, "request", "requests"),
    )
}

fn publish_restore_text(restore: &PublishRestoreSummary) -> String {
    let verb = if restore.dry_run { "Would restore" } else { "Restored" };
    let part = |number: u64, what: &str| match number {
        0 => String::new(),
        number => format!(", {number} {what}"),
    };
    format!(
        "{verb} {} of {}, {} unchanged{}{}{}{}{}; received {} in {}",
        restore.files_restored,
        count(restore.files, "file", "files"),
        restore.files_unchanged,
        part(restore.files_unverified, "checked by length alone"),
        part(restore.objects_skipped, "generated"),
        part(restore.files_removed, "removed"),
        part(restore.keys_refused, "refused"),
        part(restore.files_failed, "failed"),
        ByteSize(restore.bytes_received),
        count(restore.requests, "request", "requests"),
    )
}

fn restore_text(restore: &RestoreSummary) -> String {
    let verb = if restore.dry_run { "Would restore" } else { "Restored" };
    let part = |number: u64, what: &str| match number {
        0 => String::new(),
        number => format!(", {number} {what}"),
    };
    let removed = if restore.dry_run { "to be removed" } else { "removed" };
    let extra = [
        part(restore.files_failed, "failed"),
        part(restore.files_deleted + restore.folders_deleted, removed),
        part(restore.extras_left, "left that the backup leaves out"),
        part(restore.removals_withheld, "not removed since some failed"),
    ]
    .concat();
    let bad = match restore.peers_bad.is_empty() {
        true => String::new(),
        false => format!("; damaged shares came from {}", restore.peers_bad.join(", ")),
    };
    format!(
        "{verb} {} ({}), {} unchanged{extra}; fetched {} from {} in {}{bad}",
        count(restore.files_restored, "file", "files"),
        ByteSize(restore.bytes_restored),
        restore.files_unchanged,
        ByteSize(restore.bytes_fetched),
        count(restore.peers_used.len() as u64, "peer", "peers"),
        seconds(restore.seconds),
    )
}

fn recover_text(recover: &RecoverSummary) -> String {
    let bad = match recover.peers_bad.is_empty() {
        true => String::new(),
        false => format!(" (not believed: {})", recover.peers_bad.join(", ")),
    };
    let serve = "`gridbackup disk serve NAME --nbd unix:PATH --take-over wait`";
    let next = match (recover.snapshots, recover.snapshots_forgotten, &recover.disks[..]) {
        (0, 1.., _) => "now: `gridbackup undelete`, which brings back what was forgotten".to_owned(),
        (0, 0, [_, ..]) => format!("now: {serve}"),
        _ => "now: `gridbackup restore latest --target DIR`".to_owned(),
    };
    if recover.recovered_device.is_empty() {
        return format!(
            "No backup of this account is at {}: this home begins anew",
            count(recover.peers_answered, "peer", "peers")
        );
    }
    let mut lines = vec![format!(
        "Recovered {} with {} of {} from {}{bad} in {}; {next}",
        count(recover.snapshots, "snapshot", "snapshots"),
        count(recover.files, "file", "files"),
        recover.recovered_device,
        count(recover.peers_answered, "peer", "peers"),
        seconds(recover.seconds),
    )];
    if !recover.disks.is_empty() {
        let names = recover.disks.join(", ");
        lines.push(format!("Virtual disks: {names}; {serve} serves one here from now on"));
    }
    if recover.devices.len() > 1 {
        lines.extend(recover.devices.iter().map(|device| {
            format!(
                "  {}: {}, the newest of {} with {}",
                device.name,
                count(device.snapshots, "snapshot", "snapshots"),
                device.newest,
                count(device.files, "file", "files"),
            )
        }));
        lines.push("`gridbackup snapshots --device NAME` lists those of one machine".to_owned());
    }
    lines.extend(recover.unread.iter().map(|unread| {
        let made = unread.time.map_or_else(String::new, |time| format!(" of {time}"));
        format!(
            "NOT recovered: the backup number {}{made} of {}: {}; run `gridbackup recover` again when more peers are up",
            unread.number, unread.device, unread.error
        )
    }));
    lines.extend(recover.revoked.iter().map(revoked_text));
    lines.extend(settings_text(recover));
    clean_lines(&lines)
}

/// What a revoked machine left, and how to go round what is not its owner's.
fn revoked_text(revoked: &RevokedSummary) -> String {
    let Some((last, before)) = revoked.states.split_last() else {
        return format!("{} is revoked, and has no snapshots at peers", revoked.device);
    };
    let days = match before {
        [] => "peers have no older state of it".to_owned(),
        before => {
            let before: Vec<String> = before.iter().map(ToString::to_string).collect();
            format!("what it had before is here, too: states of {}", before.join(", "))
        }
    };
    format!(
        "{} is revoked: its last state says that it was made at {last}; {days}. If a thief made snapshots: \
         `gridbackup recover --before TIME` leaves them out",
        revoked.device
    )
}

/// Lines one below the other; what is in them makes no further ones.
fn clean_lines(lines: &[String]) -> String {
    let lines: Vec<String> = lines.iter().map(|line| clean(line)).collect();
    lines.join("\n")
}

/// What is backed up from now on, or what to set.
fn settings_text(recover: &RecoverSummary) -> Vec<String> {
    let mut lines = Vec::new();
    if !recover.settings.is_empty() {
        lines.push("Settings that came back (`gridbackup config get` shows all):".to_owned());
        lines.extend(recover.settings.iter().map(|setting| format!("  {setting}")));
    }
    let is_below = |path: &str, folder: &str| {
        path.strip_prefix(folder)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    let lacking = recover
        .roots
        .iter()
        .filter(|root| !recover.folders.iter().any(|folder| is_below(root, folder)));
    let roots: Vec<String> = lacking.map(|root| shell_word(root)).collect();
    if !roots.is_empty() {
        lines.push(match recover.folders.is_empty() {
            true => "No folder is backed up from now on; those of the newest snapshots are added with:".to_owned(),
            false => "Not backed up from now on, though snapshots have it; it is added with:".to_owned(),
        });
        lines.push(format!("  gridbackup folder add {}", roots.join(" ")));
    }
    lines
}

/// A word as a shell takes it.
fn shell_word(word: &str) -> String {
    let is_plain = |c: char| c.is_alphanumeric() || "/._-+,:@%".contains(c);
    match !word.is_empty() && word.chars().all(is_plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', "'\\''")),
    }
}

fn check_text(check: &CheckSummary) -> String {
    let unchecked = match check.shares_unchecked {
        0 => String::new(),
        shares => format!(", {shares} not checked"),
    };
    let lost = match check.files_lost {
        0 => String::new(),
        files => format!("; the content of {} is lost", count(files, "file", "files")),
    };
    let heads = match check.heads_expected {
        0 => String::new(),
        expected => format!(", {} of {expected} heads", check.heads_found),
    };
    let rosters = match check.rosters_expected {
        0 => String::new(),
        expected => format!(", {} of {expected} rosters in buckets", check.rosters_found),
    };
    let first = format!(
        "{}: {} of {} shares of {} found, {} damaged{unchecked}{heads}{rosters}; read back {}{lost}",
        if check.ok {
            "All accounted for"
        } else {
            "Not all accounted for"
        },
        check.shares_found,
        check.shares_expected,
        count(check.packs, "pack", "packs"),
        check.shares_bad,
        ByteSize(check.bytes_read),
    );
    let others = check
        .devices
        .iter()
        .map(|device| format!("Another machine of this account: {device}"));
    clean_lines(&std::iter::once(first).chain(others).collect::<Vec<_>>())
}

/// A small table: the only summary of more than one line.
pub(super) fn simulate_text(simulate: &SimulateSummary) -> String {
    let in_loss = |rate: f64| match rate {
        0.0 => "none".to_owned(),
        rate if rate >= 1.0 => format!("{rate:.1} a year"),
        rate => format!("one in {:.0} years", 1.0 / rate),
    };
    let broken = match simulate.violations {
        0 => String::new(),
        count => format!("\n{count} rules were broken: please report this line with the seed"),
    };
    format!(
        "{} with {} each, on {} of the time; any {} of {} shares restore; each friend is lost {} times a year\n\n  \
         {:<24} {:>22} {:>18}\n  {:<24} {:>22} {:>18}\n  {:<24} {:>22} {:>18}\n  {:<24} {:>22} {:>18}\n\n\
         {} (95 %: {} to {} a year), {} friends; repair took {:.1} days and {} a year; {}\n\
         Replay: --seed {}{broken}",
        count(simulate.runs, "grid", "grids"),
        count(u64::from(simulate.friends), "friend", "friends"),
        percent(simulate.uptime),
        simulate.k,
        simulate.n,
        simulate.friend_losses_per_year,
        "",
        "simulated",
        "formula",
        "restorable at once",
        percent(simulate.p_restorable_now),
        percent(simulate.p_restorable_now_formula),
        "within 48 hours",
        percent(simulate.p_restorable_48h),
        percent(simulate.p_restorable_48h_formula),
        "losses",
        in_loss(simulate.losses_per_year),
        in_loss(simulate.losses_per_year_formula),
        count(simulate.losses, "loss", "losses"),
        format_args!("{:.1e}", simulate.losses_per_year_low),
        format_args!("{:.1e}", simulate.losses_per_year_high),
        simulate.friends_lost,
        simulate.repair_days,
        ByteSize(simulate.repair_bytes_per_year),
        seconds(simulate.seconds),
        simulate.seed,
    )
}

fn repair_text(repair: &RepairSummary) -> String {
    let state = match repair.packs_unsafe {
        0 => "All as safe as asked for".to_owned(),
        left => format!("{} not as safe as asked for", count(left, "pack is", "packs are")),
    };
    let mut lost = match repair.peers_lost.is_empty() {
        true => String::new(),
        false => format!("; counted on no longer: {}", repair.peers_lost.join(", ")),
    };
    if repair.files_lost > 0 {
        lost += &format!(
            "; the content of {} cannot be built anew",
            count(repair.files_lost, "file", "files")
        );
    }
    let waiting = match repair.shares_waiting {
        0 => String::new(),
        shares => format!(", {shares} wait to be taken"),
    };
    format!(
        "{state}: {} missing, {} found elsewhere, {} built anew{waiting}; fetched {}, sent {} in {}{lost}",
        count(repair.shares_missing, "share", "shares"),
        repair.shares_found,
        repair.shares_rebuilt,
        ByteSize(repair.bytes_fetched),
        ByteSize(repair.bytes_sent),
        seconds(repair.seconds),
    )
}

fn demo_text(demo: &DemoSummary) -> String {
    format!(
        "{}: {} ({}) on {} peers, {} of them killed; backup {}, recovery and restore {}",
        if demo.identical { "Identical" } else { "NOT identical" },
        count(demo.files, "file", "files"),
        ByteSize(demo.bytes),
        demo.peers,
        demo.peers_stopped,
        seconds(demo.seconds_backup),
        seconds(demo.seconds_restore),
    )
}

fn forget_text(forget: &ForgetSummary) -> String {
    let verb = if forget.dry_run { "Would forget" } else { "Forgot" };
    let unread = match forget.unread_forgotten {
        0 => String::new(),
        unread => format!(" and {} that could not be read", count(unread, "backup", "backups")),
    };
    format!(
        "{verb} {}{unread}, {} stay",
        count(forget.snapshots_forgotten, "snapshot", "snapshots"),
        forget.snapshots_kept
    )
}

fn disk_text(disk: &DiskSummary) -> String {
    let failed = match disk.bytes_failed {
        0 => String::new(),
        bytes => format!(", {} could not be read", ByteSize(bytes)),
    };
    format!(
        "Disk {}: {} of {} are data{failed}, in {}",
        disk.name,
        ByteSize(disk.bytes_done),
        ByteSize(disk.size),
        seconds(disk.seconds)
    )
}

fn mount_text(mount: &MountSummary) -> String {
    let peers = count(mount.peers_used.len() as u64, "peer", "peers");
    let ranges = count(mount.ranges_fetched, "range", "ranges");
    format!(
        "Unmounted after {}: {} fetched from {peers} in {ranges}",
        seconds(mount.seconds),
        ByteSize(mount.bytes_fetched)
    )
}

fn prune_text(prune: &PruneSummary) -> String {
    let dropped = count(prune.packs_dropped, "pack", "packs");
    let repacked = match prune.packs_repacked {
        0 => String::new(),
        packs => format!(
            " and copy {} out of {} mostly unwanted",
            ByteSize(prune.bytes_repacked),
            count(packs, "pack", "packs")
        ),
    };
    if prune.dry_run {
        return format!("Would give up {dropped}{repacked}, {} are wanted", prune.packs_wanted);
    }
    format!(
        "Gave up {dropped}{}, {} are wanted; {} ({}) went to the trash of peers, for 30 days, in {}",
        repacked.replacen("copy", "copied", 1),
        prune.packs_wanted,
        count(prune.shares_discarded, "share", "shares"),
        ByteSize(prune.bytes_discarded),
        seconds(prune.seconds),
    )
}

fn undelete_text(undelete: &UndeleteSummary) -> String {
    format!(
        "Brought back {}: {} ({}) came out of the trash of peers",
        count(undelete.snapshots, "snapshot", "snapshots"),
        count(undelete.shares_recalled, "share", "shares"),
        ByteSize(undelete.bytes_recalled),
    )
}
