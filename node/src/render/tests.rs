use api::failure::Exit;
use api::message::*;

use super::*;

fn style() -> Style {
    Style {
        screen: false,
        color: false,
        now: at(1_000_000 + 7_260),
        zone: TimeZone::UTC,
        bare_setting: false,
        long: false,
        brief: false,
    }
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn rendered(messages: &[Message], options: RenderOptions) -> String {
    let mut renderer = Renderer::new(options, style(), Vec::new(), None);
    for message in messages {
        renderer.show(&Output::Message(message.clone())).unwrap();
    }
    renderer.finish().unwrap();
    String::from_utf8(renderer.out).unwrap()
}

fn path(bytes: &[u8]) -> PathName {
    PathName(bytes.to_vec())
}

/// One of each message.
fn every_message() -> Vec<Message> {
    vec![
        Initialized {
            account: "aa".into(),
            device: "dd".into(),
            peer_id: "12D3".into(),
            phrase: Some(["abandon"; 24].join(" ")),
            phrase_file: None,
        }
        .into(),
        Ticket {
            ticket: "gb1abc".into(),
            expires: at(0),
        }
        .into(),
        Ready {
            peer_id: "12D3".into(),
            addresses: vec!["/ip4/1.2.3.4/tcp/1".into()],
            api: "unix:/x".into(),
        }
        .into(),
        Mounted {
            at: Some("/mnt".into()),
            webdav: Some("http://127.0.0.1:1/".into()),
            password: Some("secret".into()),
        }
        .into(),
        Disk {
            name: "vm".into(),
            id: "00".into(),
            waiting_secs: Some(3),
            ..Default::default()
        }
        .into(),
        DiskServed {
            name: "vm".into(),
            size: 1 << 30,
            nbd: vec!["unix:/x".into()],
            file: None,
        }
        .into(),
        DiskVoter::default().into(),
        Summary::Disk(DiskSummary::default()).into(),
        Summary::Mount(MountSummary::default()).into(),
        Summary::Run(RunSummary {
            snapshot: Some("abcdef0123456789".into()),
            complete: true,
            ..Default::default()
        })
        .into(),
        Summary::Restore(RestoreSummary {
            files_restored: 1,
            peers_bad: vec!["eve".into()],
            ..Default::default()
        })
        .into(),
        Removal {
            path: path(b"/out/\xff"),
            kind: RemovalKind::Folder,
            state: RemovalState::Left,
            reason: Some("the rules of the backup leave it out".into()),
            dry_run: true,
        }
        .into(),
        Summary::Recover(Box::default()).into(),
        Summary::Check(CheckSummary::default()).into(),
        Summary::Demo(DemoSummary::default()).into(),
        Summary::Publish(PublishSummary::default()).into(),
        Summary::PublishRestore(PublishRestoreSummary::default()).into(),
        Summary::Simulate(SimulateSummary::default()).into(),
        Status {
            files_total: 2,
            safe: true,
            tolerates: 2,
            ..Default::default()
        }
        .into(),
        FileStatus {
            path: path(b"/x"),
            state: FileState::AtRisk,
            domains: 3,
            tolerates: 1,
            reason: None,
        }
        .into(),
        Job {
            path: path(b"/x/\xff"),
            bytes: 1 << 20,
            score: 12.34,
            recency: 5.0,
            size: 7.34,
            class: 0.0,
            class_name: "document".into(),
            ageing: 0.0,
            state: JobState::Waiting,
        }
        .into(),
        Snapshot {
            id: "abcdef0123456789".into(),
            device: "0123abcd".into(),
            device_name: "laptop".into(),
            time: at(1_000_000),
            complete: true,
            files: 10,
            bytes: 5 << 30,
            parent: None,
            paths: vec!["/home".into()],
            tags: vec!["trip".into()],
            pinned: true,
            broken: false,
        }
        .into(),
        Entry {
            path: path(b"/bin/\x1b[31mred"),
            kind: EntryKind::File,
            bytes: 5,
            mode: 0o4755,
            uid: 0,
            gid: 0,
            mtime: at(0),
            snapshot: "ab".into(),
            link_target: None,
            first_snapshot: None,
            snapshots: None,
        }
        .into(),
        Peer {
            name: "anna".into(),
            kind: PeerKind::Friend,
            peer_id: Some("12D3".into()),
            online: false,
            reach: Reach::None,
            bytes_for_me: 1 << 30,
            bytes_for_them: 0,
            quota: None,
            uptime: Some(0.5),
            last_seen: Some(at(1_000_000)),
            audits: Some((3, 4)),
            standing: Standing::Good,
            is_steward: true,
        }
        .into(),
        Folder { path: path(b"/home") }.into(),
        Rule {
            pattern: "*.tmp".into(),
        }
        .into(),
        Setting {
            key: "tolerate".into(),
            value: 2.into(),
        }
        .into(),
        Joined {
            inviter: "anna".into(),
            members: vec!["bert".into()],
        }
        .into(),
        Changed::new(Deed::Added, Thing::Folder, "/home").into(),
        Progress {
            phase: Phase::Scan,
            ..Default::default()
        }
        .into(),
        Problem {
            path: Some(path(b"/y")),
            peer: None,
            error: "Permission denied".into(),
        }
        .into(),
        Event {
            time: at(0),
            event: "peer_online".into(),
            text: "anna is online".into(),
        }
        .into(),
        Failure::new(Exit::Failed, "It failed").into(),
    ]
}

#[test]
fn every_message_survives_json_with_its_tag() {
    for message in every_message() {
        let json = serde_json::to_string(&message).unwrap();
        assert!(json.starts_with(r#"{"message_type":""#), "{json}");
        assert_eq!(serde_json::from_str::<Message>(&json).unwrap(), message, "{json}");
    }
}

#[test]
fn every_message_but_progress_has_text_for_people_and_none_moves_the_cursor() {
    for message in every_message() {
        let text = rendered(std::slice::from_ref(&message), RenderOptions::default());
        let silent = matches!(message, Message::Progress(_) | Message::Problem(_));
        assert_eq!(text.is_empty(), silent, "{message:?}");
        assert!(!text.contains('\x1b'), "{text:?}");
    }
}

#[test]
fn json_is_one_object_a_line_and_without_progress() {
    let text = rendered(
        &every_message(),
        RenderOptions {
            json: true,
            ..Default::default()
        },
    );
    assert_eq!(text.lines().count(), every_message().len() - 1);
    for line in text.lines() {
        serde_json::from_str::<Message>(line).unwrap();
    }
}

#[test]
fn the_fields_that_scripts_read_are_there() {
    let expected: &[(&str, &[&str])] = &[
        ("initialized", &["account", "device", "peer_id", "phrase"]),
        ("ticket", &["ticket", "expires"]),
        ("ready", &["peer_id", "addresses", "api"]),
        ("mounted", &["at", "webdav", "password"]),
        (
            "status",
            &[
                "safe",
                "tolerates",
                "files_total",
                "files_protected",
                "files_waiting",
                "files_at_risk",
                "bytes_total",
                "bytes_protected",
                "bytes_waiting",
                "peers_online",
                "peers_total",
                "newest_complete_snapshot",
            ],
        ),
        ("file", &["path", "state", "domains", "tolerates"]),
        (
            "job",
            &[
                "path",
                "path_bytes",
                "bytes",
                "score",
                "recency",
                "size",
                "class",
                "state",
            ],
        ),
        (
            "snapshot",
            &["id", "device", "time", "complete", "files", "bytes", "parent"],
        ),
        (
            "entry",
            &["path", "kind", "bytes", "mode", "uid", "gid", "mtime", "snapshot"],
        ),
        (
            "peer",
            &[
                "name",
                "kind",
                "peer_id",
                "online",
                "reach",
                "bytes_for_me",
                "bytes_for_them",
                "quota",
                "uptime",
                "last_seen",
            ],
        ),
        ("error", &["code", "error", "hint"]),
    ];
    let all: Vec<serde_json::Value> = every_message()
        .iter()
        .map(|message| serde_json::to_value(message).unwrap())
        .collect();
    for (tag, fields) in expected {
        let message = all
            .iter()
            .find(|message| message["message_type"] == *tag)
            .unwrap_or_else(|| panic!("{tag}"));
        for field in *fields {
            assert!(message.get(field).is_some(), "{tag} has no {field}: {message}");
        }
    }
    let snapshot = all
        .iter()
        .find(|message| message["message_type"] == "snapshot")
        .unwrap();
    assert_eq!(snapshot["time"], "1970-01-12T13:46:40Z");
}

#[test]
fn a_table_has_one_head_and_columns_that_line_up() {
    let peer = every_message()
        .into_iter()
        .find(|message| matches!(message, Message::Peer(_)))
        .unwrap();
    let text = rendered(&[peer.clone(), peer], RenderOptions::default());
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 3, "{text}");
    let column = lines[0].find("KIND").unwrap();
    assert!(lines[1][column..].starts_with("friend"), "{text}");
    assert!(lines[1].contains("2h1m ago"), "{text}");
}

#[test]
fn status_says_in_one_look_whether_all_is_safe() {
    let status = |status: Status| rendered(&[status.into()], RenderOptions::default());
    let none = status(Status::default());
    let reason = |state: State, since: Option<Timestamp>| Reason {
        state,
        text: format!("It is {state}"),
        since,
        remedy: Some(format!("mend {state}")),
    };
    let waiting = status(Status {
        headline: "It is away".into(),
        reasons: vec![reason(State::Away, None), reason(State::Waiting, Some(at(1_000_000)))],
        devices: vec!["laptop has backups of its own".into()],
        ..Default::default()
    });
    let expected =
        "It is away\n  next: mend away\n  also: It is waiting (since 1970-01-12 13:46)\n    do: mend waiting\n\n";
    assert!(waiting.starts_with(expected), "{waiting}");
    let other = "\nAnother machine of this account: laptop has backups of its own\n";
    assert!(
        waiting.contains(other) && !none.contains("Another machine"),
        "{waiting}"
    );
    let spooling = status(Status {
        spool: Spool {
            bytes: 3 << 20,
            bytes_max: 12 << 20,
            parts: vec![SpoolPart {
                peer: Some("anna".into()),
                shares: 3,
                bytes: 3 << 20,
            }],
        },
        ..Default::default()
    });
    let line = "The spool holds 3.0 MiB of 12.0 MiB: 3.0 MiB for anna\n";
    assert!(spooling.contains(line) && !none.contains("spool"), "{spooling}");
    let forecast = status(Status {
        p_restorable_now: Some(0.8125),
        p_restorable_48h: Some(0.999_999),
        p_loss_year: Some(1e-7),
        uptimes_measured: true,
        advice: Some(Advice::AlwaysOnPeer),
        ..Default::default()
    });
    let line = "Restorable at once: 81.25 %, within 48 hours: > 99.99 % (by measured uptimes)";
    assert!(
        forecast.contains(line) && forecast.contains("within a year: < 0.01 %"),
        "{forecast}"
    );
    assert!(
        forecast.contains("a peer that is always on") && !none.contains("Restorable"),
        "{forecast}"
    );
}

#[test]
fn quiet_keeps_what_was_asked_for() {
    let text = rendered(
        &every_message(),
        RenderOptions {
            quiet: true,
            ..Default::default()
        },
    );
    assert!(
        text.contains("gb1abc") && text.contains("abandon") && !text.contains("Restored"),
        "{text}"
    );
}

#[test]
fn a_failure_is_one_line_and_its_causes_come_with_verbose() {
    let mut example = Failure::new(Exit::Failed, "Share 3 is\nlost").hint("wait");
    example.causes.push("the dog ate it".into());
    let brief = failure(&example, RenderOptions::default());
    assert_eq!(brief, "gridbackup: Share 3 is\\nlost; wait");
    let long = failure(
        &example,
        RenderOptions {
            verbose: true,
            ..Default::default()
        },
    );
    assert!(long.ends_with("\n  because: the dog ate it"));
    let json = failure(
        &example,
        RenderOptions {
            json: true,
            ..Default::default()
        },
    );
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&json["message_type"], &json["code"]), (&"error".into(), &1.into()));
}

#[test]
fn the_phrase_as_shown_is_numbered_in_rows_of_four() {
    let text = rendered(&every_message()[..1], RenderOptions::default());
    assert!(
        text.contains("   21. abandon   22. abandon   23. abandon   24. abandon\n"),
        "{text}"
    );
}

#[test]
fn the_table_of_a_simulation_keeps_its_lines() {
    let said = text::text(&Summary::Simulate(SimulateSummary::default()).into(), &style());
    assert!(said.lines().count() > 6 && !said.contains("\\n"), "{said}");
}

#[test]
fn removals_are_named_when_asked_for_and_always_counted() {
    let removal = |state, dry_run| {
        Message::from(Removal {
            path: path(b"/out/x"),
            kind: RemovalKind::File,
            state,
            reason: (state == RemovalState::Left).then(|| "why".to_owned()),
            dry_run,
        })
    };
    let verbose = RenderOptions {
        verbose: true,
        ..RenderOptions::default()
    };
    let removed = [removal(RemovalState::Removed, false)];
    assert_eq!(rendered(&removed, RenderOptions::default()), "");
    assert_eq!(rendered(&removed, verbose), "Removed /out/x\n");
    let dry = [
        removal(RemovalState::WouldRemove, true),
        removal(RemovalState::Left, true),
    ];
    let said = rendered(&dry, RenderOptions::default());
    assert_eq!(said, "Would remove /out/x\nLeft /out/x: why\n");
    let summary = RestoreSummary {
        files_deleted: 3,
        extras_left: 2,
        ..Default::default()
    };
    let said = rendered(&[Summary::Restore(summary).into()], RenderOptions::default());
    assert!(said.contains("3 removed, 2 left that the backup leaves out"), "{said}");
}

#[test]
fn status_has_a_line_for_each_disk_and_recovery_says_how_to_go_on_with_them() {
    let disk = Disk {
        name: "vm".into(),
        size: Some(100 << 30),
        state: DiskState::Served,
        committed: Some(at(1_000_000)),
        held_bytes: Some(3 << 20),
        ..Default::default()
    };
    let elsewhere = Disk {
        name: "db".into(),
        state: DiskState::Elsewhere,
        machine: Some("laptop".into()),
        waiting_secs: Some(70),
        ..Default::default()
    };
    let status = Status {
        disks: vec![disk, elsewhere],
        ..Default::default()
    };
    let text = rendered(&[status.into()], RenderOptions::default());
    assert!(text.contains("\nDisk vm: 100.0 GiB, served, last commit "), "{text}");
    assert!(text.contains(" ago, 3.0 MiB at peers\n"), "{text}");
    assert!(
        text.contains("\nDisk db: -, elsewhere, written by machine laptop, not committed for 1m10s\n"),
        "{text}"
    );

    let recovered = |snapshots: u64| {
        let summary = RecoverSummary {
            recovered_device: "laptop".into(),
            snapshots,
            disks: vec!["vm".into()],
            ..Default::default()
        };
        rendered(&[Summary::Recover(Box::new(summary)).into()], RenderOptions::default())
    };
    assert!(recovered(0).contains("now: `gridbackup disk serve"), "{}", recovered(0));
    let both = recovered(1);
    assert!(
        both.contains("`gridbackup restore latest") && both.contains("Virtual disks: vm"),
        "{both}"
    );
}
