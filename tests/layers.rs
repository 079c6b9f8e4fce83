//! The dependency picture of ARCHITECTURE.md, held against the manifests.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Each crate and the crates of ours that it may depend on.
pub const ARROWS: &[(&str, &[&str])] = &[
    ("base/durable", &[]),
    ("base/database", &["durable"]),
    ("base/watch", &[]),
    ("proto", &[]),
    ("upload-queue", &["durable", "database", "proto"]),
    ("backup", &["database", "proto", "upload-queue"]),
    ("disk", &["durable", "proto"]),
    ("s3", &[]),
    ("publish", &["s3", "watch"]),
    ("node/api", &["database", "proto"]),
    ("node/stores", &["durable", "proto", "upload-queue", "s3", "api"]),
    ("node/friendnet", &["durable", "proto", "upload-queue", "api", "stores"]),
    ("node/mount", &["database", "proto", "backup", "disk", "api"]),
    (
        "node/disks",
        &["durable", "database", "proto", "upload-queue", "backup", "disk"],
    ),
    (
        "node/engine",
        &[
            "durable",
            "database",
            "watch",
            "proto",
            "upload-queue",
            "backup",
            "s3",
            "publish",
            "api",
            "stores",
            "friendnet",
            "mount",
            "disk",
            "disks",
        ],
    ),
    (
        "node",
        &[
            "proto",
            "upload-queue",
            "backup",
            "s3",
            "publish",
            "api",
            "friendnet",
            "mount",
            "engine",
        ],
    ),
    (
        "fuzz",
        &[
            "database",
            "proto",
            "upload-queue",
            "backup",
            "s3",
            "publish",
            "api",
            "stores",
            "friendnet",
            "engine",
        ],
    ),
    ("tests", &["proto", "upload-queue", "backup", "s3", "stores"]),
];

/// Crates that `proto` must never see: it does no IO, draws no randomness, runs no tasks.
const NOT_IN_PROTO: &[&str] = &["tokio", "rusqlite", "rustix", "libp2p", "getrandom", "rand", "jiff"];

/// The top of the checkout.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("tests lies in the workspace")
        .to_owned()
}

fn dependencies(folder: &str) -> BTreeSet<String> {
    let text = std::fs::read_to_string(root().join(folder).join("Cargo.toml")).expect("every crate has a manifest");
    let manifest: toml_edit::DocumentMut = text.parse().expect("manifests parse");
    let table = manifest.get("dependencies").and_then(|item| item.as_table_like());
    table
        .map(|table| table.iter().map(|(name, _)| name.to_owned()).collect())
        .unwrap_or_default()
}

#[test]
fn crates_depend_only_downwards() {
    let arrows: BTreeMap<_, _> = ARROWS.iter().copied().collect();
    let names: BTreeSet<&str> = arrows.keys().filter_map(|folder| folder.rsplit('/').next()).collect();
    for (folder, allowed) in &arrows {
        let ours: Vec<_> = dependencies(folder)
            .into_iter()
            .filter(|name| names.contains(name.as_str()))
            .collect();
        let wrong: Vec<_> = ours.iter().filter(|name| !allowed.contains(&name.as_str())).collect();
        assert!(
            wrong.is_empty(),
            "{folder} must not depend on {wrong:?}; see ARCHITECTURE.md"
        );
    }
}

#[test]
fn every_crate_is_in_the_picture() {
    let text = std::fs::read_to_string(root().join("Cargo.toml")).expect("the workspace has a manifest");
    let manifest: toml_edit::DocumentMut = text.parse().expect("the manifest parses");
    let members = manifest["workspace"]["members"].as_array().expect("members are a list");
    let members: BTreeSet<_> = members.iter().filter_map(|member| member.as_str()).collect();
    assert_eq!(members, ARROWS.iter().map(|(folder, _)| *folder).collect());
}

#[test]
fn proto_does_no_io() {
    let found: Vec<_> = dependencies("proto")
        .into_iter()
        .filter(|name| NOT_IN_PROTO.contains(&name.as_str()))
        .collect();
    assert!(found.is_empty(), "proto must not depend on {found:?}");
}

/// What a crate keeps out of the others: a library, and the only crates of ours that may name it.
const KEPT_IN: &[(&str, &[&str])] = &[
    ("libp2p", &["node/friendnet", "fuzz"]),
    ("libp2p-stream", &["node/friendnet"]),
    ("fuser", &["node/mount"]),
    ("axum", &["node/api", "node/mount"]),
    ("hyper", &["node/api", "s3"]),
    ("clap", &["node"]),
    ("lz4_flex", &["disk"]),
    ("ring", &["disk"]),
];

#[test]
fn libraries_stay_in_their_rooms() {
    for (library, rooms) in KEPT_IN {
        let named = |folder: &&str| dependencies(folder).contains(*library);
        let outside = ARROWS
            .iter()
            .map(|(folder, _)| folder)
            .filter(|folder| !rooms.contains(folder));
        let wrong: Vec<_> = outside.filter(|folder| named(folder)).collect();
        assert!(wrong.is_empty(), "{library} is named in {wrong:?}");
    }
}

#[test]
fn the_queue_names_no_network_library() {
    let wrong = ["libp2p", "axum", "hyper", "chacha20poly1305"];
    let found: Vec<_> = dependencies("upload-queue")
        .into_iter()
        .filter(|name| wrong.contains(&name.as_str()))
        .collect();
    assert!(found.is_empty(), "upload-queue must not depend on {found:?}");
}

/// Rooms of `backup`, and the rooms that each must not name.
const ROOMS_APART: &[(&str, &[&str])] = &[
    ("source", &["scan", "chunk", "writer", "prepare", "catalog"]),
    ("scan", &["chunk", "writer", "prepare"]),
    ("chunk", &["source", "scan", "writer", "prepare", "catalog"]),
    // Whoever has chunks may use it, also who never meets a file.
    ("writer", &["source", "scan", "prepare"]),
];

/// The files of `backup` that choose this machine's files as the source.
const WHO_CHOOSES_A_SOURCE: &[&str] = &["scan.rs", "scan/glance.rs", "prepare/conduct.rs", "prepare/lost.rs"];

#[test]
fn scan_and_prepare_meet_files_through_a_source_alone() {
    for (file, text) in ["scan", "prepare"]
        .into_iter()
        .flat_map(|room| files_of("backup/src", room))
    {
        let past_it = ["std::fs", "rustix::fs", "std::os::fd", "long_path", "LocalFiles"];
        let named: Vec<_> = past_it.iter().filter(|name| text.contains(**name)).collect();
        let chooses = WHO_CHOOSES_A_SOURCE.iter().any(|who| file.ends_with(who));
        let allowed: &[&&str] = if chooses { &[&"LocalFiles"] } else { &[] };
        assert_eq!(named, allowed, "{}", file.display());
    }
}

#[test]
fn rooms_of_backup_keep_apart() {
    for (room, others) in ROOMS_APART {
        for (file, text) in files_of("backup/src", room) {
            let named: Vec<_> = others
                .iter()
                .filter(|other| text.contains(&format!("crate::{other}")))
                .collect();
            assert!(named.is_empty(), "{} must not name {named:?}", file.display());
        }
    }
}

/// Rooms of `friendnet` that `net` may name: its protocols are handed to it.
const THE_TRANSPORT_NAMES: &[&str] = &["identity", "roster", "net"];

#[test]
fn the_transport_knows_no_protocol_by_name() {
    for (file, text) in files_of("node/friendnet/src", "net") {
        let named = text.split("crate::").skip(1);
        let named = named.map(|rest| {
            rest.split(|c: char| !c.is_alphanumeric() && c != '_')
                .next()
                .unwrap_or_default()
        });
        let above: Vec<_> = named.filter(|room| !THE_TRANSPORT_NAMES.contains(room)).collect();
        assert!(above.is_empty(), "{} must not name {above:?}", file.display());
    }
}

/// The files of a room and their texts, without its tests.
fn files_of(src: &str, room: &str) -> Vec<(PathBuf, String)> {
    let src = root().join(src);
    let inside = std::fs::read_dir(src.join(room)).into_iter().flatten().flatten();
    let files = inside
        .map(|entry| entry.path())
        .filter(|path| path.is_file() && !path.ends_with("tests.rs"))
        .chain([src.join(format!("{room}.rs"))]);
    files
        .map(|file| {
            let text = std::fs::read_to_string(&file).expect("source files are UTF-8");
            (file, text)
        })
        .collect()
}
