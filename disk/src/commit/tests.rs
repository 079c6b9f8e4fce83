use proptest::prelude::*;
use proto::cap_index::PackRecord;
use proto::head::RootRef;

use super::contents::{Filling, HEAD_BYTES, Slots, decode_updates, slots_bytes};
use super::lineage::{HELD_MAX, Origin, SnapshotEntry};
use super::pack_set::PackSet;
use super::pack_table::{Found, PackFigures, PackTable};
use super::root::{LeafPage, Root};
use super::*;
use crate::extents::{Place, Run, Update};
use crate::journal::record::BLOCK_BYTES;

fn record(number: u32) -> PackRecord {
    PackRecord {
        manifest: number.to_le_bytes().to_vec(),
        wrapped_key: [number as u8; 80],
    }
}

/// Pages that were written, by the pack that they are in and their offset there.
type Written = std::collections::BTreeMap<(Vec<u8>, u32), Vec<u8>>;

/// Finds a pack, giving the table the pages that it wants; how many these were.
fn find(table: &mut PackTable, number: u32, written: &Written) -> (Option<PackRecord>, usize) {
    let mut fetched = 0;
    loop {
        let wanted = match table.find(number) {
            Found::Pack(record) => return (Some(record.clone()), fetched),
            Found::Gone => return (None, fetched),
            Found::Own => panic!("pack {number} was never named"),
            Found::Fetch(wanted) => wanted,
        };
        let page = &written[&(wanted.pack.manifest.clone(), wanted.offset)];
        assert_eq!(page.len(), wanted.len as usize);
        table.give(&wanted, page).unwrap();
        fetched += 1;
    }
}

/// A commit of so many packs: all but the last are named at once, the last one carries the pages and the root.
fn commit(table: &mut PackTable, packs: u32, written: &mut Written) -> super::pack_table::TableRoot {
    for _ in 1..packs {
        let number = table.next();
        assert_eq!(table.push(Some(record(number)), PackFigures::default()), Some(number));
    }
    let own = table.push(None, PackFigures::default()).unwrap();
    let mut offset = 0;
    let mut pages = Vec::new();
    table.write(&mut |page| {
        let span = Span {
            pack: own,
            offset,
            len: page.len() as u32,
        };
        offset += span.len;
        pages.push((span.offset, page));
        span
    });
    let root = table.root();
    for (offset, page) in pages {
        written.insert((record(own).manifest, offset), page);
    }
    table.name_own(&record(own));
    root
}

#[test]
fn every_pack_is_found_after_any_opening_within_a_page_for_each_level() {
    let (mut table, mut written) = (PackTable::default(), Written::new());
    let mut last = None;
    for number in 0..700 {
        let packs = 1 + number % 5;
        let root = commit(&mut table, packs, &mut written);
        last = Some((root, table.next() - 1));
    }
    let (root, own) = last.unwrap();
    let bytes = proto::record::to_cbor(&root);
    for number in 0..table.next() {
        let root = minicbor::decode(&bytes).unwrap();
        let mut opened = PackTable::from_root(root, &record(own)).unwrap();
        let (found, fetched) = find(&mut opened, number, &written);
        assert_eq!(found, Some(record(number)), "pack {number}");
        assert!(fetched <= 2, "{fetched} pages for pack {number} of {}", table.next());
    }
    assert_eq!(table.find(table.next()), Found::Gone);
}

/// All pages that were ever read stayed until the next commit.
#[test]
fn a_table_keeps_a_bounded_number_of_pages_and_finds_all_packs() {
    let (mut table, mut written) = (PackTable::default(), Written::new());
    (0..120).for_each(|_| drop(commit(&mut table, 100, &mut written)));
    for number in (0..table.next()).step_by(7) {
        assert_eq!(find(&mut table, number, &written).0, Some(record(number)));
    }
    assert!(table.known_figures().len() <= 260 * 32);
    // Which pages there are is known without those of packs.
    assert_eq!(table.missing(), None);
    assert!(table.page_spans().count() >= 12_000 / 32);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    /// Packs are added and taken out in any order, with openings between.
    #[test]
    fn a_table_has_what_was_added_and_not_taken_out(steps in proptest::collection::vec((1_u32..60, 0_usize..40, any::<u32>(), any::<bool>()), 1..40)) {
        let (mut table, mut written) = (PackTable::default(), Written::new());
        let mut model = std::collections::BTreeSet::new();
        for (packs, removed, seed, is_opened) in steps {
            for number in 0..removed as u32 {
                let gone = seed.wrapping_mul(number.wrapping_mul(2_654_435_761) | 1) % table.next().max(1);
                while let Err(wanted) = table.remove(gone) {
                    let page = written[&(wanted.pack.manifest.clone(), wanted.offset)].clone();
                    table.give(&wanted, &page).unwrap();
                }
                model.remove(&gone);
            }
            let first = table.next();
            let root = commit(&mut table, packs, &mut written);
            model.extend(first..table.next());
            if is_opened {
                table = PackTable::from_root(root, &record(table.next() - 1)).unwrap();
            }
            let mut probe = table.clone();
            for number in (0..table.next()).step_by(7) {
                let (found, _) = find(&mut probe, number, &written);
                prop_assert_eq!(found.is_some(), model.contains(&number), "pack {}", number);
                prop_assert!(found.is_none_or(|found| found == record(number)));
            }
        }
    }

    /// What somebody else wrote is read or refused, whatever it is.
    #[test]
    fn damaged_bytes_are_refused_or_read(at in any::<prop::sample::Index>(), bit in 0_u8..8) {
        let mut filling = Filling::new(3, 9, 1 << 20);
        filling.push(5, &[7; 4 * BLOCK_BYTES]);
        filling.trim(50, 60);
        let mut closed = filling.close();
        let root = Root::first([1; 16], "disk".to_owned(), 1 << 30, Vec::new());
        let span = closed.put(&root.encode());
        let updates = closed.updates;
        let mut plain = closed.finish();
        let at = at.index(plain.len());
        plain[at] ^= 1 << bit;
        if let Ok(bytes) = slots_bytes(&plain[..HEAD_BYTES]) && let Ok(slots) = Slots::decode(plain.get(..bytes).unwrap_or(&plain)) {
            for slot in 0..2 {
                let stored = slots.range(slot).and_then(|range| plain.get(range.start as usize..range.end as usize));
                let _either = stored.map(|stored| slots.unpack(slot, stored));
            }
        }
        let part = |span: Span| &plain[span.offset as usize..(span.offset + span.len) as usize];
        let _either = decode_updates(part(updates));
        let _either = Root::decode(part(span));
    }
}

/// Blocks that do not compress, or do.
fn blocks(seed: u64, count: usize, is_random: bool) -> Vec<u8> {
    let mut bytes = vec![0; count * BLOCK_BYTES];
    match is_random {
        true => blake3::Hasher::new()
            .update(&seed.to_le_bytes())
            .finalize_xof()
            .fill(&mut bytes),
        false => bytes.fill(seed as u8 | 1),
    }
    bytes
}

#[test]
fn slots_come_back_and_runs_of_whole_slots_are_one() {
    let mut filling = Filling::new(4, 11, 1 << 22);
    let slots: Vec<(u64, Vec<u8>)> = vec![
        (160, blocks(1, 16, true)),
        (176, blocks(2, 16, false)),
        (192, blocks(3, 3, true)),
        (195, blocks(4, 1, false)),
        (7, blocks(5, 1, true)),
    ];
    for (start, blocks) in &slots {
        assert!(filling.push(*start, blocks));
    }
    assert!(filling.trim(1000, 5) && filling.trim(1005, 5));
    let updates = filling.updates().to_vec();
    let foretold = filling.len();
    let closed = filling.close();
    assert_eq!(closed.len(), foretold);
    let span = closed.updates;
    let plain = closed.finish();
    let list = slots_bytes(&plain[..HEAD_BYTES]).unwrap();
    let read = Slots::decode(&plain[..list]).unwrap();
    assert_eq!(read.commit, 11);
    for (number, (_, blocks)) in (0..).zip(&slots) {
        let range = read.range(number).unwrap();
        let stored = &plain[range.start as usize..range.end as usize];
        assert_eq!(&read.unpack(number, stored).unwrap(), blocks);
    }
    assert_eq!(read.range(5), None);
    let list = &plain[span.offset as usize..][..span.len as usize];
    assert_eq!(decode_updates(list).unwrap(), (11, updates.clone()));
    let runs: Vec<(u64, u64)> = updates
        .iter()
        .map(|update| match update {
            Update::Map(run) => (run.start, run.count),
            Update::Trim { start, count } => (*start, *count),
            Update::Move { .. } => panic!("nothing was moved"),
        })
        .collect();
    // The slot of three ends the run, for what comes behind it lies in another slot.
    assert_eq!(runs, [(160, 35), (195, 1), (7, 1), (1000, 10)]);
}

#[test]
fn a_pack_takes_no_more_than_it_has_room_for() {
    let mut filling = Filling::new(0, 1, 100_000);
    assert!(filling.push(0, &blocks(1, 16, true)));
    let before = filling.len();
    assert!(!filling.push(16, &blocks(2, 16, true)));
    assert_eq!(filling.len(), before);
    assert!(filling.push(16, &blocks(3, 16, false)));
    while filling.trim(filling.len() as u64 * 1000, 1) {}
    let closed = filling.close();
    assert!(closed.len() <= 100_000);
}

#[test]
fn a_root_that_no_disk_has_is_refused() {
    let right = Root::first([1; 16], "photos".to_owned(), 1 << 40, vec![[1; 32], [2; 32], [4; 32]]);
    assert_eq!(Root::decode(&right.encode()).unwrap(), right);
    let span = Span {
        pack: 0,
        offset: 0,
        len: 1,
    };
    let entry = |name: &str, commit| SnapshotEntry {
        name: name.to_owned(),
        commit,
        time_ns: -1,
        root: RootRef {
            pack: record(3),
            offset: 9,
            len: 99,
        },
        pinned: vec![span],
        held: vec![[7; 16]; usize::from(commit == 1)],
    };
    let wrong: [&dyn Fn(&mut Root); 29] = [
        &|root| root.leaving = vec![[2; 32], [3; 32]],
        &|root| (root.voters, root.leaving) = (Vec::new(), vec![[2; 32]]),
        &|root| root.voters = vec![[1; 32], [2; 32]],
        &|root| root.voters = vec![[2; 32], [1; 32], [3; 32]],
        &|root| root.voters = vec![[1; 32], [1; 32], [3; 32]],
        &|root| root.voters = (0..7).map(|voter| [voter; 32]).collect(),
        // A state that was never committed, or that is this one.
        &|root| root.snapshots = vec![entry("one", 1)],
        &|root| (root.snapshots, root.commit) = (vec![entry("one", 2), entry("two", 1)], 9),
        &|root| (root.snapshots, root.commit) = (vec![entry("one", 1), entry("one", 2)], 9),
        &|root| (root.snapshots, root.commit) = (vec![entry("", 1)], 9),
        &|root| (root.snapshots, root.commit) = ((0..65).map(|at| entry(&at.to_string(), at)).collect(), 99),
        &|root| {
            (root.snapshots, root.commit) = (vec![entry("one", 1)], 9);
            root.snapshots[0].held = vec![[3; 16], [3; 16]];
        },
        &|root| {
            (root.snapshots, root.commit) = (vec![entry("one", 1)], 9);
            root.snapshots[0].root.pack.manifest = vec![1; 200_000];
        },
        &|root| root.borrowed = 1,
        &|root| root.rolled_back = 1,
        &|root| root.name.clear(),
        &|root| root.name = "a\nb".to_owned(),
        &|root| root.name = "a".repeat(65),
        &|root| root.size = 0,
        &|root| root.size = 4097,
        // More than its pages of leaves reach.
        &|root| root.size = (1 << 46) + 4096,
        &|root| root.size = 1 << 63,
        &|root| root.pages = vec![(3, span), (2, span)],
        &|root| root.pages = vec![(512, span)],
        &|root| root.pending = vec![(5, span)],
        &|root| root.pending = vec![(1, span); 257],
        // Nothing could come behind these.
        &|root| root.floor = 1,
        &|root| root.commit = u64::MAX,
        &|root| root.journal = u64::MAX,
    ];
    for (number, change) in wrong.iter().enumerate() {
        let mut root = right.clone();
        change(&mut root);
        assert!(Root::decode(&root.encode()).is_err(), "change {number}");
    }
    let mut replaced = right.clone();
    replaced.leaving = vec![[1; 32], [2; 32], [3; 32]];
    assert_eq!(Root::decode(&replaced.encode()).unwrap(), replaced);
    assert!(
        replaced
            .of_clone([2; 16], "other".to_owned(), vec![[9; 32]], "one".to_owned())
            .leaving
            .is_empty()
    );
    let mut largest = right.clone();
    (largest.size, largest.commit) = (1 << 46, 1);
    largest.pages = (0..512).map(|number| (number, span)).collect();
    largest.pending = vec![(1, span); 256];
    let origin = Origin {
        volume: [6; 16],
        snapshot: "before".to_owned(),
        commit: 77,
        line: [5; 16],
    };
    (largest.origin, largest.commit) = (Some(origin), 99);
    largest.pending.iter_mut().for_each(|(commit, _)| *commit = 98);
    largest.snapshots = (0..64).map(|at| entry(&format!("snapshot {at:050}"), at)).collect();
    largest.snapshots.iter_mut().for_each(|entry| {
        entry.root.pack.manifest = vec![1; 400];
        entry.held = (0..HELD_MAX as u8).map(|held| [held; 16]).collect();
    });
    assert!(largest.encode().len() < 128 << 10);
    assert_eq!(Root::decode(&largest.encode()).unwrap(), largest);
    let page = LeafPage {
        leaves: vec![(512, 1, span)],
    };
    assert!(LeafPage::decode(&page.encode()).is_err());
}

/// The bytes come from a script that shares no code with this crate.
#[test]
fn golden_bytes_are_read_and_written_again() {
    let golden = include_bytes!("../../golden/commit/v1-one-pack.bin");
    let list = slots_bytes(&golden[..HEAD_BYTES]).unwrap();
    let slots = Slots::decode(&golden[..list]).unwrap();
    let read = |slot| {
        let range = slots.range(slot).unwrap();
        slots
            .unpack(slot, &golden[range.start as usize..range.end as usize])
            .unwrap()
    };
    let plain: Vec<u8> = (0..1024_u32)
        .flat_map(|at| at.wrapping_mul(2_654_435_761).to_le_bytes())
        .collect();
    let sevens = vec![7; 2 * BLOCK_BYTES];
    assert!(read(0) == plain && read(1) == sevens);

    let mut filling = Filling::new(33, 7, 1 << 20);
    assert!(filling.push(19, &plain) && filling.push(32, &sevens) && filling.trim(1000, 5000));
    let (to, from) = (Place::new(33, 2, 0).unwrap(), Place::new(12, 3, 2).unwrap());
    let to = Run {
        start: 48,
        count: 3,
        place: to,
    };
    assert!(filling.update(Update::Move { to, from }));
    let updates = filling.updates().to_vec();
    let mut closed = filling.close();
    let changes = closed.updates;
    // How LZ4 packs is its own affair; all else is written as it is read.
    let stored = slots.range(0).unwrap();
    assert_eq!(closed.updates.len, 16 + 4 * 32);
    let root = {
        let end = golden.len();
        let at = (list..end)
            .rev()
            .find(|at| Root::decode(&golden[*at..]).is_ok())
            .unwrap();
        Root::decode(&golden[at..]).unwrap()
    };
    let encoded = root.encode();
    let tail = &golden[golden.len() - encoded.len()..];
    assert_eq!(tail, encoded);
    assert_eq!(
        (root.name.as_str(), root.commit, root.floor, root.time_ns, root.journal),
        ("photos", 7, 6, -5, 88)
    );
    assert_eq!(root.pending[0].0, 7);
    let part = |span: Span| &golden[span.offset as usize..(span.offset + span.len) as usize];
    assert_eq!(decode_updates(part(root.pending[0].1)).unwrap(), (7, updates));
    let leaves = LeafPage::decode(part(root.pages[0].1)).unwrap();
    assert_eq!(part(root.pages[0].1), leaves.encode());
    let mut packs = root.packs(&record(9)).unwrap();
    assert_eq!(
        (packs.next(), find(&mut packs.clone(), 33, &Written::new()).0),
        (34, Some(record(9)))
    );
    let Found::Fetch(wanted) = packs.find(31) else {
        panic!("the first page is not in the root")
    };
    assert_eq!(wanted.pack, record(9));
    let page = &golden[wanted.offset as usize..(wanted.offset + wanted.len) as usize];
    packs.give(&wanted, page).unwrap();
    let figures = |room, commit| PackFigures {
        room,
        blocks: 700,
        slot_bytes: 650_000,
        commit,
    };
    assert_eq!(packs.figures(31), Ok(Some(figures(1 << 20, 4))));
    assert_eq!(
        packs.figures(33).map(|own| own.map(|own| (own.room, own.blocks))),
        Ok(Some((1 << 16, 3)))
    );
    assert_eq!((root.voters.len(), root.borrowed, root.rolled_back), (3, 2, 5));
    assert_eq!((root.line(), root.snapshots.len()), ([8; 16], 2));
    assert_eq!(
        (root.snapshots[1].name.as_str(), &root.snapshots[1].held[..]),
        ("later", &[[1; 16], [2; 16]][..])
    );
    let mut pinned = PackSet::default();
    let section = part(root.snapshots[0].pinned[0]);
    pinned.take(section, 34).unwrap();
    assert_eq!(pinned, PackSet::from_iter([3, 4, 5, 6, 7, 31]));
    assert_eq!(
        [2, 3, 7, 8, 30, 31, 32].map(|pack| pinned.contains(pack)),
        [false, true, true, false, false, true, false]
    );
    assert_eq!(pinned.encode(), [section]);
    assert!(PackSet::default().take(section, 31).is_err());
    let Found::Pack(second) = packs.find(31) else {
        panic!("the first page has no pack 31")
    };
    assert_eq!(
        (second.manifest.as_slice(), second.wrapped_key),
        ([2; 3].as_slice(), [2; 80])
    );

    let again = closed.put(part(root.pending[0].1));
    let plain = closed.finish();
    assert_eq!(plain[..HEAD_BYTES], golden[..HEAD_BYTES]);
    assert_eq!(
        plain[stored.start as usize..stored.end as usize],
        golden[stored.start as usize..stored.end as usize]
    );
    let part = |span: Span| &plain[span.offset as usize..(span.offset + span.len) as usize];
    assert_eq!(part(changes), part(again));
}

/// A few bytes mapped or trimmed more regions than there is memory for, before anybody looked whether that can be.
#[test]
fn a_list_that_changes_more_than_a_disk_has_is_refused() {
    let place = Place::new(4, 0, 0).unwrap();
    let map = |start, count| Update::Map(Run { start, count, place });
    let trim = |start, count| Update::Trim { start, count };
    let lists = [
        (vec![map(0, 1 << 31), map(1 << 31, 1 << 31)], true),
        (vec![trim(0, 1 << 34)], true),
        (vec![trim(1, 1 << 34)], false),
        (vec![map(0, (1 << 32) + 1)], false),
        (vec![map(0, 1 << 40)], false),
        (vec![trim(0, 1 << 34), trim(0, 1 << 33), trim(0, 1 << 33)], true),
        (vec![trim(0, 1 << 34), trim(0, 1 << 34), trim(0, 1)], false),
    ];
    for (number, (updates, is_possible)) in lists.into_iter().enumerate() {
        let mut filling = Filling::new(4, 11, 1 << 20);
        updates.iter().for_each(|update| assert!(filling.update(*update)));
        let closed = filling.close();
        let span = closed.updates;
        let plain = closed.finish();
        let read = decode_updates(&plain[span.offset as usize..(span.offset + span.len) as usize]);
        assert_eq!(read.is_ok(), is_possible, "list {number}");
    }
}
