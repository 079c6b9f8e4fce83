//! Bytes that were made by the script beside them (disk/golden/map/v1.py), from the documents alone.

use super::table::{TableFile, TableKind};
use super::*;

fn runs(commit: u64) -> Leaf {
    let (volume, region) = (std::array::from_fn(|at| at as u8), 0x1234);
    let piece = |start, end, pack, slot, block| Piece {
        start,
        end,
        place: Place::new(pack, slot, block),
    };
    let pieces = [
        piece(0, 1, 0, 0, 0),
        piece(7, 47, 5, 2, 3),
        piece(47, 48, 6, (1 << 28) - 1, 15),
        piece(65_000, 65_536, 1_000_000, 99, 0),
    ];
    Leaf::build(&LeafId { volume, region }, commit, &pieces).unwrap()
}

#[test]
fn a_leaf_of_runs_is_read_and_written_as_ever() {
    let golden = include_bytes!("../../../golden/map/v1-runs.leaf");
    let leaf = runs(77);
    assert!(leaf.bytes() == golden);
    let (volume, region) = (std::array::from_fn(|at| at as u8), 0x1234);
    let read = Leaf::read(golden.to_vec(), &LeafId { volume, region }).unwrap();
    assert_eq!((read.commit(), read.pieces()), (77, leaf.pieces()));
}

/// Half a megabyte: its head and its checksum alone are kept.
#[test]
fn a_dense_leaf_is_written_as_ever() {
    let golden = include_bytes!("../../../golden/map/v1-dense.ends");
    let (volume, region) = ([0x22; 16], 1);
    let id = LeafId { volume, region };
    let mapped = (0..REGION_BLOCKS).filter(|block| block % 5 != 0);
    let pieces: Vec<_> = mapped
        .map(|block| Piece {
            start: block,
            end: block + 1,
            place: Some(Place::from_index(block * 7 + 1, block * 3)),
        })
        .collect();
    let leaf = Leaf::build(&id, 1 << 40, &pieces).unwrap();
    let bytes = leaf.bytes();
    assert_eq!(bytes.len(), LEAF_BYTES_MAX);
    assert!([&bytes[..56], &bytes[LEAF_BYTES_MAX - 16..]].concat() == golden);
    assert_eq!(Leaf::read(bytes.to_vec(), &id).unwrap().pieces(), pieces);
}

#[test]
fn tables_are_read_and_written_as_ever() {
    let volume = std::array::from_fn(|at| at as u8);
    let record = |file, commit, sum| {
        let sum = [sum; 16];
        Some(LeafRecord { file, commit, sum })
    };
    let whole = TableFile {
        kind: TableKind::Whole,
        number: 9,
        floor: 1_000,
        leaves: vec![(0, record(Some(3), 1_001, 0x41)), (1 << 34, record(None, 900, 0))],
        counts: vec![(0, 1), (70_000, 65_536)],
    };
    let changes = TableFile {
        kind: TableKind::Changes,
        number: 10,
        floor: 1_005,
        leaves: vec![(0, None), (2, record(Some(4), 1_006, 0x42))],
        counts: vec![(0, 0)],
    };
    let goldens: [(&TableFile, &[u8]); 2] = [
        (&whole, include_bytes!("../../../golden/map/v1-whole.table")),
        (&changes, include_bytes!("../../../golden/map/v1-changes.table")),
    ];
    for (table, golden) in goldens {
        assert!(table.encode(&volume) == golden);
        assert_eq!(TableFile::decode(golden, &volume).as_ref(), Some(table));
    }
}
