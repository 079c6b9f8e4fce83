//! The table in docs/verdict.md, read row by row.

use std::collections::BTreeSet;
use std::time::Duration;

use api::human::Period;

use super::*;

const DOC: &str = include_str!("../../../../docs/verdict.md");
/// Bytes of a file in the table.
const FILE_BYTES: u64 = 1024;

/// A home where all is well.
fn well() -> Facts {
    Facts {
        folders: 1,
        has_snapshot: true,
        protected: amount(10),
        tolerate: 2,
        tolerates: 2,
        peers: 5,
        peers_online: Some(5),
        last_run: LastRun::Done(Timestamp::UNIX_EPOCH),
        ..Facts::default()
    }
}

fn amount(files: u64) -> Amount {
    Amount {
        files,
        bytes: files * FILE_BYTES,
    }
}

/// Facts as a row of the table writes them.
fn parse(text: &str) -> Facts {
    let mut facts = well();
    for word in text.split_whitespace() {
        let (key, value) = word.split_once('=').unwrap_or_else(|| panic!("`{word}` is no fact"));
        set(&mut facts, key, value);
    }
    facts
}

fn set(facts: &mut Facts, key: &str, value: &str) {
    let number = || value.parse::<u64>().unwrap_or_else(|_| panic!("`{key}={value}`"));
    let yes = || value == "yes";
    match key {
        "store_only" => facts.store_only = yes(),
        "left" => facts.has_left = yes(),
        "revoked" => facts.is_revoked = yes(),
        "config" => facts.config_fault = Some(value.replace('_', " ")),
        "folders" => facts.folders = number(),
        "named" => facts.paths_named = yes(),
        "snapshot" => facts.has_snapshot = yes(),
        "protected" => facts.protected = amount(number()),
        "at_risk" => facts.at_risk = amount(number()),
        "waiting" => facts.waiting = amount(number()),
        "lost" => facts.lost = amount(number()),
        "lost_name" => facts.lost_names.push(value.to_owned()),
        "older_at_risk" => facts.older_at_risk = number(),
        "older_waiting" => facts.older_waiting = number(),
        "older_lost" => facts.older_lost = number(),
        "disks" => facts.disks = number(),
        "ahead" => {
            facts.disks_ahead.count += 1;
            facts.disks_ahead.names.push(value.to_owned());
        }
        "shut" => {
            facts.disks_shut.count += 1;
            facts.disks_shut.names.push(value.to_owned());
        }
        "voter_gone" => {
            facts.disks_voter_gone.count += 1;
            facts.disks_voter_gone.names.push(value.to_owned());
        }
        "disks_at_risk" => facts.disks_at_risk = number(),
        "disks_unknown" => facts.disks_unknown = number(),
        "disks_lost" => facts.disks_lost = number(),
        "unread" => facts.heads_unread = number(),
        "tolerate" => facts.tolerate = number(),
        "tolerates" => facts.tolerates = number(),
        "peers" => facts.peers = number(),
        "online" => facts.peers_online = value.parse().ok(),
        "waits_for" => facts.waits_for.push(value.to_owned()),
        "behind" => {
            let needed = facts.tolerate + 1;
            facts.head_behind = Some(HeadBehind { on: number(), needed });
        }
        "refused" => facts.heads_refused.push(value.to_owned()),
        "failing" => facts.folders_failing.push(Failing {
            path: value.to_owned(),
            reason: "No such file or directory".to_owned(),
            since: None,
        }),
        "new" => facts.folders_new.push(value.to_owned()),
        "left_out" => facts.left_out.count = number(),
        "left_out_name" => facts.left_out.names.push(value.to_owned()),
        "run" => facts.last_run = run(value),
        "overdue" => facts.overdue = Some(value.parse().unwrap()),
        _ => panic!("`{key}` is no fact"),
    }
}

fn run(value: &str) -> LastRun {
    match value {
        "none" => LastRun::None,
        "under_way" => LastRun::UnderWay,
        "cut_off" => LastRun::CutOff(Timestamp::UNIX_EPOCH),
        "failed" => LastRun::Failed {
            error: "the disk is full".to_owned(),
            since: Timestamp::UNIX_EPOCH,
        },
        _ => panic!("`run={value}`"),
    }
}

/// The rows of the first table: state, facts, headline, exit codes of `status` and `run`.
fn rows() -> Vec<[String; 5]> {
    let lines = DOC.lines().skip_while(|line| !line.starts_with("| state | facts"));
    let rows = lines.skip(2).take_while(|line| line.starts_with('|'));
    rows.map(|line| {
        let cells: Vec<String> = line
            .trim_matches('|')
            .split('|')
            .map(|cell| cell.trim().trim_matches('`').to_owned())
            .collect();
        cells.try_into().unwrap_or_else(|_| panic!("{line}"))
    })
    .collect()
}

#[test]
fn each_row_of_the_table_is_what_is_decided() {
    let rows = rows();
    assert!(rows.len() > 30, "the table is found");
    let mut order = Vec::new();
    for [state, facts, headline, status, run] in &rows {
        let parsed = parse(facts);
        let verdict = judge(&parsed);
        assert_eq!(verdict.headline(), *headline, "{facts}");
        assert_eq!(verdict.exit().code().to_string(), *status, "{facts}");
        let (exit, of_run) = verdict.of_run();
        if run == "-" {
            assert!(of_run.is_empty() && exit == Exit::Done, "{facts}: {of_run:?}");
        } else {
            assert_eq!(exit.code().to_string(), *run, "{facts}");
        }
        // A row may show that something worse goes before the state that it is about.
        if verdict.state.name() == state {
            order.push(verdict.state);
        }
        assert_eq!(verdict.is_safe(), verdict.state.name() == "safe", "{facts}");
        assert_eq!(
            verdict.is_safe() || verdict.state == State::StoreOnly,
            verdict.exit() == Exit::Done,
            "{facts}"
        );
    }
    assert!(order.is_sorted(), "worst first: {order:?}");
    let told: BTreeSet<State> = order.into_iter().collect();
    assert_eq!(told.len(), State::Safe as usize + 1, "each state has a row: {told:?}");
}

#[test]
fn whatever_is_not_safe_says_why_and_no_reason_is_said_twice() {
    for [_, facts, ..] in rows() {
        let verdict = judge(&parse(&facts));
        let texts: BTreeSet<&str> = verdict.reasons.iter().map(|reason| reason.text.as_str()).collect();
        assert_eq!(texts.len(), verdict.reasons.len(), "{facts}");
        assert!(verdict.reasons.is_sorted_by_key(|reason| reason.state), "{facts}");
        let says_safe = verdict.headline().starts_with("Safe");
        assert_eq!(
            says_safe,
            matches!(verdict.exit(), Exit::Done | Exit::SourceUnreadable) && verdict.state != State::StoreOnly
        );
    }
}

/// Whatever is wrong besides, what was wrong before stays wrong: facts are combined in pairs.
#[test]
fn a_further_trouble_never_makes_anything_safe() {
    let rows = rows();
    for [_, first, ..] in &rows {
        for [_, second, ..] in &rows {
            let (one, both) = (judge(&parse(first)), judge(&parse(&format!("{first} {second}"))));
            let is_mended = [
                "tolerates",
                "online",
                "run=",
                "named",
                "protected",
                "store_only",
                "peers",
                "folders=",
                "disks=",
            ]
            .iter()
            .any(|fact| second.contains(fact));
            assert!(is_mended || both.state <= one.state, "{first} + {second}");
        }
    }
}

#[test]
fn a_run_is_late_in_the_words_that_people_use() {
    let facts = Facts {
        overdue: Some(Period(Duration::from_secs(5 * 86_400 + 3_600))),
        ..well()
    };
    assert!(
        judge(&facts).headline().contains("5d1h ago"),
        "{}",
        judge(&facts).headline()
    );
}
