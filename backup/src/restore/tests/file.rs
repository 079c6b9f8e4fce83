//! Reading anywhere in files, with what it costs.

use super::*;
use crate::restore::file::{Files, OpenFile};

const CACHE: usize = 4 << 20;

fn read(grid: &Grid, file: &OpenFile, offset: u64, len: usize) -> Vec<u8> {
    grid.runtime.block_on(file.read_at(offset, len)).unwrap().to_vec()
}

fn files(grid: &Grid) -> Files {
    grid.post(&one_of_everything(grid), 1);
    Files::new(grid.recovered(), CACHE)
}

#[test]
fn every_part_of_every_file_is_what_was_backed_up() {
    let grid = Grid::new();
    let files = files(&grid);
    let big = files.open(1, b"/src/big").unwrap();
    let content = big_content();
    // Within a chunk, across chunk and hole on both sides, only hole, the end and beyond.
    for (offset, len) in [
        (0, 1),
        (70_000, 200_000),
        (BIG - 5, 10),
        (BIG + 9, 1000),
        (BIG - 1, (1 << 20) + 2),
        (0, content.len()),
        (content.len() - 3, 100),
    ] {
        let end = content.len().min(offset + len);
        assert!(
            read(&grid, &big, offset as u64, len) == content[offset..end],
            "{offset} {len}"
        );
    }
    assert_eq!(read(&grid, &big, content.len() as u64, 10), b"");
    assert_eq!(read(&grid, &big, u64::MAX, 10), b"");
    let hole = files.open(1, b"/src/hole").unwrap();
    assert_eq!(read(&grid, &hole, (1 << 30) - 2, 100), [0, 0]);
    let small = files.open(1, b"/src/small \xff").unwrap();
    assert_eq!(read(&grid, &small, 290, 100), [b's'; 10]);
    let tiny = files.open(1, b"/src/tiny").unwrap();
    assert_eq!(read(&grid, &tiny, 1, 100), b"i");
}

#[test]
fn holes_are_found_without_reading() {
    let grid = Grid::new();
    let files = files(&grid);
    let big = files.open(1, b"/src/big").unwrap();
    let (hole, end) = (BIG as u64, (BIG + (1 << 20)) as u64);
    let len = big_content().len() as u64;
    assert_eq!(big.bytes_outside_holes(), Some(BIG as u64 + 70_000));
    assert_eq!(
        [big.next_hole(5, len), big.next_hole(end, len)],
        [Some(hole), Some(len)]
    );
    assert_eq!(
        [big.next_outside_hole(hole, len), big.next_outside_hole(len, len)],
        [Some(end), None]
    );
    let tiny = files.open(1, b"/src/tiny").unwrap();
    assert_eq!([tiny.next_hole(0, 2), tiny.next_hole(2, 2)], [Some(2), None]);
    let before = files.stats().ranges_fetched;
    assert_eq!(before, 0);
}

#[test]
fn a_small_file_costs_one_range_of_one_peer_and_its_neighbours_nothing_more() {
    let grid = Grid::new();
    let mut backup = Backup::default();
    for number in 0..60u64 {
        let content = noise(8_000, number);
        let extents = vec![backup.chunk(&grid, &content)];
        let name = format!("file{number:02}");
        backup.file(name.as_bytes(), 8_000, Cap::Extents(extents));
    }
    grid.post(&backup, 1);
    let files = Files::new(grid.recovered(), CACHE);
    // Eight to a segment, so that none of the first seven lies across two.
    for number in 0..7 {
        let file = files.open(1, format!("/src/file0{number}").as_bytes()).unwrap();
        assert!(read(&grid, &file, 0, 128 << 10) == noise(8_000, number));
        let stats = files.stats();
        assert_eq!((stats.ranges_fetched, stats.peers_used.len()), (1, 1), "file {number}");
        assert_eq!(stats.bytes_fetched, 64 << 10);
    }
    let far = files.open(1, b"/src/file40").unwrap();
    assert!(read(&grid, &far, 0, 128 << 10) == noise(8_000, 40));
    assert_eq!(files.stats().ranges_fetched, 2);
}

#[test]
fn readers_of_one_file_at_once_fetch_it_once() {
    let grid = Grid::new();
    let files = files(&grid);
    let content = big_content();
    std::thread::scope(|scope| {
        for reader in 0..8 {
            let (files, content, handle) = (&files, &content, grid.runtime.handle());
            scope.spawn(move || {
                let file = files.open(1, b"/src/big").unwrap();
                for step in 0..40usize {
                    let offset = (step * 7_919 + reader * 104_729) % content.len();
                    let got = handle.block_on(file.read_at(offset as u64, 30_000)).unwrap();
                    let end = content.len().min(offset + 30_000);
                    assert!(got == content[offset..end], "{offset}");
                }
            });
        }
    });
    let stats = files.stats();
    // The pack is three shares of four segments; nothing of it is asked for twice.
    assert!(stats.bytes_fetched <= 12 * (64 << 10), "{}", stats.bytes_fetched);
}

#[test]
fn a_damaged_share_is_made_up_for_and_too_few_are_an_error_that_a_later_read_outlives() {
    let grid = Grid::new();
    let shares = grid.post(&one_of_everything(&grid), 1);
    assert!(grid.stores[0].inner().damage(shares[0], 70_000));
    let files = Files::new(grid.recovered(), CACHE);
    let big = files.open(1, b"/src/big").unwrap();
    for store in &grid.stores[1..4] {
        store.set(|faults| faults.unreachable = true);
    }
    let error = grid.runtime.block_on(big.read_at(0, 1000)).unwrap_err();
    assert!(matches!(*error, RestoreError::TooFewShares { .. }), "{error}");
    for store in &grid.stores {
        store.set(|faults| faults.unreachable = false);
    }
    assert!(read(&grid, &big, 0, 1 << 22) == big_content());
    assert!(files.stats().peers_bad.contains_key("friend0"));
}

#[test]
fn what_cannot_be_opened_says_why() {
    let grid = Grid::new();
    let mut backup = one_of_everything(&grid);
    backup.entry(b"waiting", EntryKind::File, 9, Content::Version(VersionId(99)));
    grid.post(&backup, 1);
    let files = Files::new(grid.recovered(), CACHE);
    let error = |path: &[u8]| files.open(1, path).err().unwrap();
    assert!(matches!(error(b"/src/gone"), RestoreError::NoSuchPath { .. }));
    assert!(matches!(error(b"/src/pipe"), RestoreError::NoContent { .. }));
    assert!(matches!(error(b"/src/waiting"), RestoreError::Waiting { .. }));
}
