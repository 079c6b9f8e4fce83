//! The tree that a mount shows.

use std::time::Duration;

use super::*;
use crate::restore::file::Files;
use crate::view::{Inodes, Node, Place, View, ViewOptions};

fn view_of(reader: Reader) -> View {
    let options = ViewOptions {
        snapshots_kept: Duration::ZERO,
        date_name: Box::new(|ns| format!("at-{}", ns / 2)),
    };
    View::new(Files::new(reader, 1 << 20), options)
}

fn view(grid: &Grid) -> View {
    let mut backup = one_of_everything(grid);
    backup.entry(
        b"to the pipe",
        EntryKind::Symlink,
        6,
        Content::Inline(b"./pipe".to_vec()),
    );
    backup.entry(
        b"to small",
        EntryKind::Symlink,
        12,
        Content::Inline(b"/src/dir/../small \xff".to_vec()),
    );
    backup.entry(
        b"to itself",
        EntryKind::Symlink,
        9,
        Content::Inline(b"to itself".to_vec()),
    );
    backup.entry(
        b"out",
        EntryKind::Symlink,
        9,
        Content::Inline(b"../../../../dates".to_vec()),
    );
    grid.post(&backup, 1);
    view_of(grid.recovered())
}

fn path(text: &str) -> Vec<Vec<u8>> {
    text.split('/')
        .filter(|name| !name.is_empty())
        .map(|name| name.as_bytes().to_vec())
        .collect()
}

fn names(nodes: &[Node]) -> Vec<String> {
    let name = |node: &Node| String::from_utf8_lossy(&node.entry.name).into_owned();
    nodes.iter().map(name).collect()
}

fn found(view: &View, at: &str) -> Node {
    view.find(&path(at)).unwrap().unwrap_or_else(|| panic!("no {at}"))
}

#[test]
fn snapshots_are_there_by_id_by_date_and_as_the_latest() {
    let grid = Grid::new();
    let view = view(&grid);
    let list = |place: &Place| names(&view.list(place, b"", 100).unwrap());
    assert_eq!(list(&Place::Top), ["dates", "ids", "latest"]);
    assert_eq!(list(&Place::Ids), ["010101010101"]);
    assert_eq!(list(&Place::Dates), ["at-0"]);
    let latest = view.child(&Place::Top, b"latest").unwrap().unwrap();
    assert_eq!(latest.entry.content, Content::Inline(b"ids/010101010101".to_vec()));
    let date = view.child(&Place::Dates, b"at-0").unwrap().unwrap();
    assert_eq!(date.entry.content, Content::Inline(b"../ids/010101010101".to_vec()));
    for place in [
        Place::Top,
        Place::Ids,
        Place::Dates,
        Place::Latest,
        Place::Date(1),
        Place::Snapshot(1),
    ] {
        assert_eq!(view.node(&place).unwrap().unwrap().place, place);
    }
    assert_eq!(names(&view.list(&Place::Snapshot(1), b"", 100).unwrap()), ["src"]);
    assert_eq!(view.child(&Place::Snapshot(1), b"etc").unwrap(), None);
}

#[test]
fn a_new_snapshot_appears_and_a_forgotten_one_goes() {
    let grid = Grid::new();
    let view = view(&grid);
    let inside = found(&view, "ids/010101010101/src/tiny");
    let db = &view.files().reader().db;
    let second = tree::Snapshot {
        record: SnapshotRecord {
            id: SnapshotId([1, 1, 1, 1, 1, 1, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9]),
            ..Backup::default().snapshot(2)
        },
        device: grid.device_id(),
    };
    db.write(|tx| {
        tree::insert_snapshot(tx, &second)?;
        tx.execute("UPDATE snapshot SET time_ns = 1", [])
            .map_err(DbError::from)?;
        Ok::<_, DbError>(())
    })
    .unwrap();
    // Ids that begin alike, and times that are named alike.
    let ids = names(&view.list(&Place::Ids, b"", 100).unwrap());
    assert_eq!(ids, ["010101010101", "01010101010109090909090909090909"]);
    assert_eq!(names(&view.list(&Place::Dates, b"", 100).unwrap()), ["at-0", "at-0-2"]);
    assert_eq!(
        names(&view.list(&Place::Ids, ids[0].as_bytes(), 100).unwrap()),
        ids[1..]
    );
    assert_eq!(found(&view, "latest").place, Place::Snapshot(2));
    db.write(|tx| tree::forget(tx, &[1], 5)).unwrap();
    assert_eq!(view.node(&inside.place).unwrap(), None);
    assert_eq!(
        view.find(&path("ids/010101010101")).unwrap().map(|node| node.place),
        Some(Place::Snapshot(2))
    );
}

#[test]
fn folders_are_listed_in_batches_of_any_length_with_names_of_any_bytes() {
    let grid = Grid::new();
    let mut backup = Backup::default();
    for number in 0..700u32 {
        let name = [b"\xff".as_slice(), &number.to_be_bytes().map(|byte| byte | 1 << 7)].concat();
        let name = [name, number.to_string().into_bytes()].concat();
        backup.entry(&name, EntryKind::File, 0, Content::Inline(vec![]));
    }
    let mut expected: Vec<Vec<u8>> = backup.entries.iter().map(|entry| entry.name.clone()).collect();
    expected.sort();
    grid.post(&backup, 1);
    let view = view_of(grid.recovered());
    let folder = found(&view, "latest/src").place;
    for limit in [1, 255, 256, 257, 700, 1000] {
        let (mut listed, mut after) = (Vec::new(), Vec::new());
        loop {
            let batch = view.list(&folder, &after, limit).unwrap();
            assert!(batch.len() <= limit);
            let Some(last) = batch.last() else { break };
            after.clone_from(&last.entry.name);
            listed.extend(batch.into_iter().map(|node| node.entry.name));
        }
        assert!(listed == expected, "in batches of {limit}");
    }
}

#[test]
fn links_are_followed_within_their_snapshot_only() {
    let grid = Grid::new();
    let view = view(&grid);
    assert_eq!(found(&view, "latest/src/to small").entry.name, b"small \xff");
    assert_eq!(found(&view, "dates/at-0/src/to the pipe").entry.kind, EntryKind::Fifo);
    assert_eq!(view.find(&path("latest/src/to itself")).unwrap(), None);
    assert_eq!(view.find(&path("latest/src/out")).unwrap(), None);
    assert_eq!(view.find(&path("latest/src/tiny/x")).unwrap(), None);
    let folder = path("latest/src");
    let link = view
        .child(&found(&view, "latest/src").place, b"to small")
        .unwrap()
        .unwrap();
    assert_eq!(view.resolve(&folder, link).unwrap().unwrap().entry.name, b"small \xff");
}

#[test]
fn inode_numbers_are_stable_and_names_of_one_file_share_theirs() {
    let grid = Grid::new();
    let view = view(&grid);
    let number = |at: &str| found(&view, at).number();
    let big = number("latest/src/big");
    assert_eq!(big, number("latest/src/other name"));
    assert_eq!(big, found(&view_of(grid.recovered()), "dates/at-0/src/big").number());
    assert_ne!(number("latest/src/tiny"), number("latest/src/empty"));
    assert_eq!(view.top().unwrap().number(), 1);

    let mut inodes = Inodes::default();
    let (one, other) = (found(&view, "latest/src/big"), found(&view, "latest/src/other name"));
    assert_eq!(inodes.note(&one), inodes.note(&other));
    assert_eq!(inodes.place(big), Some(one.place));
    inodes.forget(big, 1);
    assert_eq!(inodes.len(), 1);
    inodes.forget(big, 1);
    assert!(inodes.is_empty() && inodes.place(big).is_none());
    assert_eq!(inodes.place(1), Some(Place::Top));
}

#[test]
fn metadata_is_what_was_recorded() {
    let grid = Grid::new();
    let view = view(&grid);
    let src = found(&view, "latest/src");
    assert_eq!(
        (src.entry.meta.mode, src.entry.meta.mtime_ns),
        (0o750, 1_600_000_000_123_456_789)
    );
    let small = found(&view, "latest/src/to small");
    assert_eq!(small.entry.meta.xattrs[0].value, b"\x00red");
    let file = view.open(&small).unwrap();
    assert_eq!(&grid.runtime.block_on(file.read_at(0, 1000)).unwrap()[..], [b's'; 300]);
}
