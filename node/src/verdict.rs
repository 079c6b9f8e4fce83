//! The verdict: is everything safe, and if not, why not. The one place that decides it, for `status`, `run`, `doctor`, the
//! daemon's events and whoever else says "safe".
//!
//! Pure: facts in, verdict out. docs/verdict.md has a row for each state, and the tests read that table. A new fact is a
//! field of `Facts`, a state, a line in `judge`, and a row there.

use jiff::Timestamp;

use crate::failure::Exit;
use crate::human::{ByteSize, Period};

/// Files and bytes, by how well they are protected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amount {
    /// Files.
    pub files: u64,
    /// Bytes.
    pub bytes: u64,
}

/// Some things by name, of so many.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Named {
    /// How many there are.
    pub count: u64,
    /// The first of them.
    pub names: Vec<String>,
}

/// A folder of the config that the last run could not back up, or that is not there now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failing {
    /// Its path.
    pub path: String,
    /// Why.
    pub reason: String,
    /// Since when.
    pub since: Option<Timestamp>,
}

/// How the newest run went.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum LastRun {
    /// There was none in this home.
    #[default]
    None,
    /// It is still at work.
    UnderWay,
    /// Its process died.
    CutOff(Timestamp),
    /// It failed as a whole.
    Failed {
        /// Why.
        error: String,
        /// The first that failed since the last good one.
        since: Timestamp,
    },
    /// It made a snapshot.
    Done(Timestamp),
}

/// The newest head, while it is on too few peers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadBehind {
    /// Failure domains that have it.
    pub on: u64,
    /// Failure domains that it takes.
    pub needed: u64,
}

/// All that is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// This node only stores for friends.
    pub store_only: bool,
    /// Folders in the config.
    pub folders: u64,
    /// Paths were named to runs of this home: backing up without folders in the config is meant.
    pub paths_named: bool,
    /// There is a snapshot that was not forgotten.
    pub has_snapshot: bool,
    /// Files as safe as the policy asks.
    pub protected: Amount,
    /// Files on too few peers.
    pub at_risk: Amount,
    /// Files not on the grid yet.
    pub waiting: Amount,
    /// Files of which too few shares are left.
    pub lost: Amount,
    /// The first of these.
    pub lost_names: Vec<String>,
    /// Packs of older snapshots that are on too few peers.
    pub older_at_risk: u64,
    /// Packs of older snapshots of which too few shares are left.
    pub older_lost: u64,
    /// Older versions of files that are not on the grid yet.
    pub older_waiting: u64,
    /// Peers that may be lost, by the policy.
    pub tolerate: u64,
    /// Peers that may be lost in truth.
    pub tolerates: u64,
    /// Peers: failure domains.
    pub peers: u64,
    /// Of these, who answer; none: nobody asked.
    pub peers_online: Option<u64>,
    /// Who is to get shares that wait here.
    pub waits_for: Vec<String>,
    /// The newest head, while it is on too few peers.
    pub head_behind: Option<HeadBehind>,
    /// Peers that refuse this home's heads because they know newer ones.
    pub heads_refused: Vec<String>,
    /// Folders that cannot be backed up.
    pub folders_failing: Vec<Failing>,
    /// Folders of the config that no snapshot has.
    pub folders_new: Vec<String>,
    /// Files and folders that the last look could not read.
    pub left_out: Named,
    /// Since when, the first of them.
    pub left_out_since: Option<Timestamp>,
    /// How the newest run went.
    pub last_run: LastRun,
    /// Time since the last good run, if it is longer than an alarm takes.
    pub overdue: Option<Period>,
}

impl Facts {
    /// Files that are counted.
    pub fn total(&self) -> Amount {
        let all = [self.protected, self.at_risk, self.waiting, self.lost];
        all.iter().fold(Amount::default(), |sum, part| Amount {
            files: sum.files + part.files,
            bytes: sum.bytes + part.bytes,
        })
    }
}

/// How things stand, worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    /// There is no snapshot.
    Nothing,
    /// Content is gone from the grid.
    Lost,
    /// Peers know newer heads of this device.
    HeadRefused,
    /// Nobody keeps anything.
    NoPeer,
    /// Files are on too few peers, and nothing is on its way.
    AtRisk,
    /// Nobody said what is to be backed up.
    NoFolder,
    /// The newest run failed as a whole.
    RunFailed,
    /// The newest run was cut off.
    RunCutOff,
    /// The newest good run was long ago.
    RunLate,
    /// Content of older snapshots is gone.
    OlderLost,
    /// Files are on too few peers, and the rest is on its way.
    UnderProtected,
    /// Files are not on the grid yet.
    Waiting,
    /// A phrase would not find the newest snapshot.
    HeadBehind,
    /// Content of older snapshots is on too few peers.
    OlderAtRisk,
    /// A folder was never backed up.
    FolderNew,
    /// There are fewer peers than the policy takes.
    FewPeers,
    /// No peer answers.
    Away,
    /// A folder is not there, or cannot be read.
    FolderFailing,
    /// Files could not be read.
    LeftOut,
    /// Only friends' shares are kept here.
    StoreOnly,
    /// Everything is as the policy asks.
    Safe,
}

/// What follows from a state.
struct Consequence {
    name: &'static str,
    exit: Exit,
    /// The exit code of a run that leaves it so; none: it is none of a run's business.
    run: Option<Exit>,
}

impl State {
    fn consequence(self) -> Consequence {
        use Exit::{Done, SourceUnreadable, UnderProtected};
        let (name, exit, run) = match self {
            Self::Nothing => ("nothing", UnderProtected, None),
            Self::Lost => ("lost", UnderProtected, Some(UnderProtected)),
            Self::HeadRefused => ("head_refused", UnderProtected, Some(UnderProtected)),
            Self::NoPeer => ("no_peer", UnderProtected, Some(UnderProtected)),
            Self::AtRisk => ("at_risk", UnderProtected, Some(UnderProtected)),
            Self::NoFolder => ("no_folder", UnderProtected, None),
            Self::RunFailed => ("run_failed", UnderProtected, None),
            Self::RunCutOff => ("run_cut_off", UnderProtected, None),
            Self::RunLate => ("run_late", UnderProtected, None),
            Self::OlderLost => ("older_lost", UnderProtected, Some(UnderProtected)),
            Self::UnderProtected => ("under_protected", UnderProtected, Some(UnderProtected)),
            Self::Waiting => ("waiting", UnderProtected, Some(UnderProtected)),
            Self::HeadBehind => ("head_behind", UnderProtected, Some(UnderProtected)),
            Self::OlderAtRisk => ("older_at_risk", UnderProtected, Some(UnderProtected)),
            Self::FolderNew => ("folder_new", UnderProtected, None),
            Self::FewPeers => ("few_peers", UnderProtected, Some(UnderProtected)),
            Self::Away => ("away", UnderProtected, Some(UnderProtected)),
            Self::FolderFailing => ("folder_failing", SourceUnreadable, Some(SourceUnreadable)),
            Self::LeftOut => ("left_out", SourceUnreadable, Some(SourceUnreadable)),
            Self::StoreOnly => ("store_only", Done, Some(Done)),
            Self::Safe => ("safe", Done, Some(Done)),
        };
        Consequence { name, exit, run }
    }

    /// Its name for scripts.
    pub fn name(self) -> &'static str {
        self.consequence().name
    }

    /// What `status` exits with.
    pub fn exit(self) -> Exit {
        self.consequence().exit
    }

    /// What `run` exits with; none: it is none of a run's business.
    pub fn exit_of_run(self) -> Option<Exit> {
        self.consequence().run
    }
}

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
        self.state.exit()
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
        reasons.retain(|reason| reason.state.exit_of_run().is_some());
        let exit = reasons.first().and_then(|reason| reason.state.exit_of_run());
        (exit.unwrap_or(Exit::Done), reasons)
    }
}

/// Decides.
pub fn judge(facts: &Facts) -> Verdict {
    let mut reasons = Vec::new();
    match facts.has_snapshot {
        _ if facts.store_only => {}
        true => reasons.extend(of_content(facts)),
        false => reasons.push(reason(State::Nothing, "Nothing is backed up yet")),
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
            false => reason(
                State::Safe,
                format!(
                    "Safe: every file survives the loss of {}",
                    count(facts.tolerates, "peer", "peers")
                ),
            ),
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
        let text = format!(
            "Not yet safe: {} ({}) to go up",
            count(facts.waiting.files, "file waits", "files wait"),
            ByteSize(facts.waiting.bytes)
        );
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
        reasons.push(reason(State::HeadRefused, text).remedy("`gridbackup run --once` catches up; a daemon does when it is started again"));
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
    if facts.folders == 0 && !facts.paths_named {
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
