use std::path::Path;

use proptest::prelude::*;

use super::*;
use crate::journal::record::BLOCK_BYTES;
use crate::journal::{Journal, JournalKey, JournalOptions};

fn journal(folder: &Path) -> Journal {
    let options = JournalOptions {
        folder: folder.to_owned(),
        file_bytes: 1 << 20,
        file_count: 64,
    };
    Journal::open(options, JournalKey::new(&[0; 32], [0; 16]), 0).unwrap().0
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn it_finds_what_a_table_of_all_blocks_finds(
        ranges in prop::collection::vec((0..60_u64, 0..20_u32, any::<bool>()), 1..40),
        released in 0..40_u64,
        (from, count) in (0..80_u64, 0..80_u64),
    ) {
        let root = tempfile::tempdir().unwrap();
        let mut journal = journal(root.path());
        let (mut map, mut table) = (Map::default(), vec![None; 200]);
        for (start, count, is_written) in ranges {
            let kind = if is_written { RangeKind::Write } else { RangeKind::Zero };
            let payload = vec![0; if is_written { count as usize * BLOCK_BYTES } else { 0 }];
            let entry = journal.append(vec![BlockRange { start, count, kind }], &payload).unwrap();
            map.apply(&entry);
            let (_, place) = entry.places().next().unwrap();
            for block in 0..u64::from(count) {
                let lies = is_written.then_some((entry.lap.header.lap, place + block * SEALED_BYTES));
                table[(start + block) as usize] = Some((entry.head.seq, lies));
            }
        }
        map.release(released);
        let expected: Vec<_> = (from..from + count)
            .filter_map(|block| Some((block, table[block as usize].filter(|(seq, _)| *seq > released)?)))
            .collect();
        let mut found = Vec::new();
        for piece in map.find(from, count) {
            prop_assert!(piece.count > 0);
            for block in 0..piece.count {
                let lies = |place: &Place| (place.lap.header.lap, place.offset + block * SEALED_BYTES);
                found.push((piece.start + block, (piece.seq, piece.place.as_ref().map(lies))));
            }
        }
        prop_assert_eq!(found, expected);
    }
}
