//! The verdict: is everything safe, and if not, why not. The one place that decides it, for `status`, `run`, `doctor`, the
//! daemon's events and whoever else says "safe".
//!
//! Pure: facts in, verdict out. docs/verdict.md has a row for each state, and the tests read that table. A new fact is a
//! field of `Facts`, a state, a line in `judge`, and a row there.

use jiff::Timestamp;

mod disks;
mod facts;
mod state;
mod votes;

use api::failure::Exit;
use api::human::ByteSize;
use api::message::State;
pub use facts::{Amount, Facts, Failing, HeadBehind, LastRun, Named};

/// Why it stands so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reason {
    /// What it makes of everything.
    pub state: State,
    /// One sentence, without a full stop.
    pub text: String,
    /// Since when, if that is known.
    pub since: Option<Timestamp>,
    /// What to do.
    pub remedy: Option<String>,
}

impl Reason {
    /// What `status` would exit with if there were no other.
    pub fn exit(&self) -> Exit {
        state::exit(self.state)
    }
}

/// How things stand, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The worst reason's.
    pub state: State,
    /// Worst first; at least one.
    pub reasons: Vec<Reason>,
}

impl Verdict {
    /// Nothing is missing.
    pub fn is_safe(&self) -> bool {
        self.state == State::Safe
    }

    /// What `status` exits with.
    pub fn exit(&self) -> Exit {
        state::exit(self.state)
    }

    /// The verdict in one line.
    pub fn headline(&self) -> String {
        let text = &self.reasons[0].text;
        match self.exit() {
            Exit::SourceUnreadable => format!("Safe, but {text}"),
            _ => text.clone(),
        }
    }

    /// What of it is a run's business, and what that run exits with.
    pub fn of_run(&self) -> (Exit, Vec<Reason>) {
        let mut reasons = self.reasons.clone();
        reasons.retain(|reason| state::exit_of_run(reason.state).is_some());
        let exit = reasons.first().and_then(|reason| state::exit_of_run(reason.state));
        (exit.unwrap_or(Exit::Done), reasons)
    }
}

/// Decides.
pub fn judge(facts: &Facts) -> Verdict {
    let mut reasons = Vec::new();
    if facts.is_revoked {
        let text = "Not safe: the account has revoked this machine, and friends take nothing from it";
        let remedy =
            "a machine that was found again takes the account over anew: `gridbackup recover`, into another --home";
        reasons.push(reason(State::Revoked, text).remedy(remedy));
    }
    if facts.has_left {
        let text = "Not safe: another machine of the account has left the grid with the words, and friends take nothing from it";
        let remedy =
            "a daemon that starts anew founds a grid of its own; `gridbackup join TICKET --phrase-file FILE` goes back";
        reasons.push(reason(State::Left, text).remedy(remedy));
    }
    reasons.extend(disks::reasons(facts));
    reasons.extend(votes::of_votes(facts));
    match facts.has_snapshot {
        _ if facts.store_only || has_only_disks(facts) => {}
        true => reasons.extend(of_content(facts)),
        false => reasons.push(reason(State::Nothing, "Nothing is backed up yet")),
    }
    if let Some(fault) = &facts.config_fault {
        let text = format!("Nothing is backed up until config.toml is corrected: {fault}");
        let remedy = "correct the file; until then what it said when it was last right is in force for everything else";
        reasons.push(reason(State::ConfigDamaged, text).remedy(remedy));
    }
    if !facts.store_only {
        reasons.extend(of_peers(facts));
        reasons.extend(of_runs(facts));
        reasons.extend(of_sources(facts));
    }
    if reasons.is_empty() {
        reasons.push(match facts.store_only {
            true => reason(
                State::StoreOnly,
                "This node keeps shares of friends; nothing of its own is backed up",
            ),
            false => {
                let what = match has_only_disks(facts) {
                    true => "disk",
                    false => "file",
                };
                let losses = count(facts.tolerates, "peer", "peers");
                reason(State::Safe, format!("Safe: every {what} survives the loss of {losses}"))
            }
        });
    }
    reasons.sort_by_key(|reason| reason.state);
    Verdict {
        state: reasons[0].state,
        reasons,
    }
}

fn of_content(facts: &Facts) -> Vec<Reason> {
    let mut reasons = Vec::new();
    if facts.lost.files > 0 {
        let text = format!(
            "Not safe: {} ({}) cannot be restored, too few shares are left: {}",
            count(facts.lost.files, "file", "files"),
            ByteSize(facts.lost.bytes),
            listed(facts.lost.files, &facts.lost_names)
        );
        let remedy = "`gridbackup run --once` sends again what is still on this disk; until then do not lose it";
        reasons.push(reason(State::Lost, text).remedy(remedy));
    }
    if facts.at_risk.files > 0 {
        reasons.push(at_risk(facts));
    }
    if facts.waiting.files > 0 {
        let (files, bytes) = (facts.waiting.files, ByteSize(facts.waiting.bytes));
        let text = match files {
            1 => format!("Not yet safe: 1 file ({bytes}) waits to go up"),
            files => format!("Not yet safe: {files} files ({bytes}) wait to go up"),
        };
        reasons.push(reason(State::Waiting, text));
    } else if facts.older_waiting > 0 {
        let text = format!(
            "Not yet safe: {} to go up",
            count(
                facts.older_waiting,
                "older version of a file waits",
                "older versions of files wait"
            )
        );
        reasons.push(reason(State::Waiting, text));
    }
    reasons.extend(of_heads(facts));
    reasons.extend(of_older(facts));
    reasons
}

/// This home is there for virtual disks: no folder was ever named.
fn has_only_disks(facts: &Facts) -> bool {
    facts.disks > 0 && facts.folders == 0 && !facts.has_snapshot && !facts.paths_named
}

fn of_heads(facts: &Facts) -> Vec<Reason> {
    let mut reasons = Vec::new();
    if let Some(head) = facts.head_behind {
        let text = format!(
            "Not yet safe: the newest list of files is on {}, {} are needed",
            count(head.on, "peer", "peers"),
            head.needed
        );
        reasons.push(reason(State::HeadBehind, text).remedy("`gridbackup run --once` offers it again"));
    }
    if !facts.heads_refused.is_empty() {
        let text = format!(
            "Not safe: {} newer backups of this device than this home does",
            count_verb(&facts.heads_refused, "knows", "know")
        );
        reasons.push(
            reason(State::HeadRefused, text)
                .remedy("`gridbackup run --once` catches up; a daemon does when it is started again"),
        );
    }
    if facts.heads_unread > 0 {
        let text = format!(
            "{} could not be read when this home was recovered",
            count(facts.heads_unread, "backup", "backups")
        );
        let remedy = "`gridbackup run --once` takes in what can be read by then (a daemon does when it is started again); what a copy \
                      of this home made can be had in another home with `recover --before`; `gridbackup forget --unread` gives it up";
        reasons.push(reason(State::HeadUnread, text).remedy(remedy));
    }
    reasons
}

fn of_older(facts: &Facts) -> Vec<Reason> {
    let mut reasons = Vec::new();
    // Lists of files above all: no file of the newest snapshot is concerned.
    if facts.older_at_risk + facts.at_risk.files == 0 && facts.tolerates < facts.tolerate {
        let text = format!(
            "Not yet safe: what is backed up survives the loss of {} only, {} are asked for",
            count(facts.tolerates, "peer", "peers"),
            facts.tolerate
        );
        let text = match facts.waits_for.len() {
            0 => text,
            waiting => format!("{text}; waiting for {}", listed(waiting as u64, &facts.waits_for)),
        };
        reasons.push(
            reason(State::OlderAtRisk, text).remedy("`gridbackup repair` builds shares anew where there is room"),
        );
    }
    for (number, state, what) in [
        (facts.older_lost, State::OlderLost, "cannot be restored whole"),
        (facts.older_at_risk, State::OlderAtRisk, "are on too few peers"),
    ] {
        if number > 0 {
            let text = format!(
                "Older snapshots {what}: {}",
                count(number, "pack is concerned", "packs are concerned")
            );
            reasons.push(
                reason(state, text)
                    .remedy("`gridbackup snapshots` names them, `gridbackup repair` builds anew what it can"),
            );
        }
    }
    reasons
}

fn at_risk(facts: &Facts) -> Reason {
    let files = count(facts.at_risk.files, "file", "files");
    let asked = facts.tolerate;
    if facts.waits_for.is_empty() {
        let text = format!(
            "Not safe: {} on fewer peers than the loss of {asked} asks for",
            count(facts.at_risk.files, "file is", "files are")
        );
        return reason(State::AtRisk, text).remedy("`gridbackup repair` builds shares anew where there is room");
    }
    let text = format!(
        "Not yet safe: {files} survive the loss of {} only, {asked} are asked for; waiting for {}",
        count(facts.tolerates, "peer", "peers"),
        listed(facts.waits_for.len() as u64, &facts.waits_for)
    );
    reason(State::UnderProtected, text)
}

fn of_peers(facts: &Facts) -> Vec<Reason> {
    let mut reasons = Vec::new();
    let needed = facts.tolerate + 1;
    if facts.peers == 0 {
        let text = "Not safe: there is no peer to keep anything";
        let remedy =
            "add a folder with `gridbackup peer add NAME dir:PATH`, or join friends with `gridbackup join TICKET`";
        reasons.push(reason(State::NoPeer, text).remedy(remedy));
    } else if facts.peers < needed {
        let text = format!(
            "{} few to survive the loss of {}: {needed} are needed",
            count(facts.peers, "peer is too", "peers are too"),
            facts.tolerate
        );
        let remedy =
            "invite a friend with `gridbackup invite`, or add a folder with `gridbackup peer add NAME dir:PATH`";
        reasons.push(reason(State::FewPeers, text).remedy(remedy));
    }
    if facts.peers > 0 && facts.peers_online == Some(0) {
        let text = match facts.peers {
            1 => "The only peer does not answer: nothing can be sent or restored now".to_owned(),
            peers => format!("None of the {peers} peers answers: nothing can be sent or restored now"),
        };
        reasons.push(reason(State::Away, text).remedy("`gridbackup doctor` says why"));
    }
    reasons
}

fn of_runs(facts: &Facts) -> Vec<Reason> {
    let mut reasons = Vec::new();
    match &facts.last_run {
        LastRun::Failed { error, since } => reasons.push(
            reason(State::RunFailed, format!("The last backup failed: {error}"))
                .since(Some(*since))
                .remedy("`gridbackup run --once` tries again"),
        ),
        LastRun::CutOff(at) => reasons.push(
            reason(State::RunCutOff, "The last backup was cut off")
                .since(Some(*at))
                .remedy("`gridbackup run --once` goes on with it"),
        ),
        LastRun::None | LastRun::UnderWay | LastRun::Done(_) => {}
    }
    if let Some(age) = facts.overdue {
        let text = format!("The last good backup was made {age} ago");
        reasons.push(reason(State::RunLate, text).remedy("start the daemon with `gridbackup run`"));
    }
    reasons
}

fn of_sources(facts: &Facts) -> Vec<Reason> {
    let mut reasons = Vec::new();
    if facts.folders == 0 && !facts.paths_named && !has_only_disks(facts) {
        let text = "No folder is backed up: nothing new will be";
        reasons.push(reason(State::NoFolder, text).remedy("name one with `gridbackup folder add PATH`"));
    }
    for Failing {
        path,
        reason: why,
        since,
    } in &facts.folders_failing
    {
        let remedy = format!("mount or mend it, or say that it is gone with `gridbackup folder rm {path}`");
        reasons.push(
            reason(State::FolderFailing, format!("{path} is not backed up now: {why}"))
                .since(*since)
                .remedy(remedy),
        );
    }
    if facts.has_snapshot {
        for path in &facts.folders_new {
            let text = format!("{path} is not backed up yet");
            reasons.push(reason(State::FolderNew, text).remedy("`gridbackup run --once` does it now"));
        }
    } else if facts.folders > 0 && facts.peers > 0 && facts.last_run == LastRun::None {
        // The state is said already: only what to do is not.
        let text = format!(
            "{} to be backed up",
            count(facts.folders, "folder waits", "folders wait")
        );
        reasons.push(reason(State::FolderNew, text).remedy("start with `gridbackup run`, or `gridbackup run --once`"));
    }
    if facts.left_out.count > 0 {
        let text = format!(
            "{} could not be read: {}",
            count(facts.left_out.count, "file or folder", "files or folders"),
            listed(facts.left_out.count, &facts.left_out.names)
        );
        let remedy =
            "`gridbackup status PATH` says why; leave it out with `gridbackup exclude add`, or make it readable";
        reasons.push(reason(State::LeftOut, text).since(facts.left_out_since).remedy(remedy));
    }
    reasons
}

fn reason(state: State, text: impl Into<String>) -> Reason {
    Reason {
        state,
        text: text.into(),
        since: None,
        remedy: None,
    }
}

impl Reason {
    fn since(self, since: Option<Timestamp>) -> Self {
        Self { since, ..self }
    }

    fn remedy(self, remedy: impl Into<String>) -> Self {
        Self {
            remedy: Some(remedy.into()),
            ..self
        }
    }
}

/// The first names, and how many more there are.
fn listed(count: u64, names: &[String]) -> String {
    let names_max = 3;
    let shown = &names[..names.len().min(names_max)];
    match count.saturating_sub(shown.len() as u64) {
        0 => shown.join(", "),
        more if shown.is_empty() => format!("{more} in all"),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

fn count(number: u64, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

fn count_verb(names: &[String], one: &str, many: &str) -> String {
    let verb = if names.len() == 1 { one } else { many };
    format!("{} {verb}", listed(names.len() as u64, names))
}

#[cfg(test)]
mod tests;
