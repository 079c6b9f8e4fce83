use std::path::Path;

use durable::power_cut::Machine;

use super::lap::Cipher;
use super::*;

const FILE: u64 = 32 << 10;

fn key() -> JournalKey {
    JournalKey::new(&[7; 32], [9; 16])
}

fn options(folder: &Path, file_count: usize) -> JournalOptions {
    JournalOptions {
        folder: folder.to_owned(),
        file_bytes: FILE,
        file_count,
    }
}

fn open(folder: &Path, committed: u64) -> Result<(Journal, Vec<Entry>), JournalError> {
    Journal::open(options(folder, 8), key(), committed)
}

/// A record of some ranges whose blocks tell its number.
fn append(journal: &mut Journal, blocks: u32) -> Result<u64, JournalError> {
    let seq = journal.last_seq() + 1;
    let zero = BlockRange {
        start: 1_000,
        count: 3,
        kind: RangeKind::Zero,
    };
    let write = BlockRange {
        start: seq,
        count: blocks,
        kind: RangeKind::Write,
    };
    let payload = vec![seq as u8; blocks as usize * BLOCK_BYTES];
    journal.append(vec![zero, write], &payload).map(|entry| entry.head.seq)
}

fn flush(journal: &mut Journal) -> Result<u64, String> {
    let plan = journal.plan_flush().map_err(|error| error.to_string())?;
    plan.sync().map_err(|error| error.to_string())?;
    journal.flushed(&plan);
    Ok(plan.seq)
}

/// Asserts that the entries are the records after `committed`, whole; the last number.
fn assert_prefix(entries: &[Entry], committed: u64) -> u64 {
    for (entry, seq) in entries.iter().zip(committed + 1..) {
        assert_eq!(entry.head.seq, seq);
        let payload = entry.payload().unwrap().expect("its blocks open");
        assert!(payload.iter().all(|byte| *byte == seq as u8));
    }
    entries.last().map_or(committed, |entry| entry.head.seq)
}

#[test]
fn what_was_appended_is_found_again_over_many_openings() {
    let root = tempfile::tempdir().unwrap();
    for opening in 0..4 {
        let (mut journal, entries) = open(root.path(), 0).unwrap();
        assert_eq!(assert_prefix(&entries, 0), opening * 3);
        (0..3).for_each(|blocks| {
            append(&mut journal, blocks).unwrap();
        });
    }
}

#[test]
fn a_record_never_crosses_a_files_end_and_a_full_ring_says_so_until_something_is_released() {
    let root = tempfile::tempdir().unwrap();
    let (mut journal, _) = open(root.path(), 0).unwrap();
    let full = (0..100).find_map(|_| append(&mut journal, 3).err());
    assert!(matches!(full, Some(JournalError::Full)));
    // Two records of three blocks fit in a file.
    assert_eq!(journal.last_seq(), 16);
    assert!(!journal.release(5), "nothing is released that is not durable");
    flush(&mut journal).unwrap();
    assert!(journal.reclaim());
    append(&mut journal, 3).unwrap();
    drop(journal);
    let (journal, entries) = open(root.path(), 5).unwrap();
    assert_eq!(assert_prefix(&entries, 5), 17);
    assert!(matches!(
        Journal::open(options(root.path(), 8), key(), 1),
        Err(JournalError::Damaged { .. })
    ));
    drop(journal);
    let other = JournalKey::new(&[8; 32], [9; 16]);
    let opened = Journal::open(options(root.path(), 8), other, 5);
    assert!(matches!(opened, Err(JournalError::WrongKey(_))));
}

/// What an opening wrote anew filled two files, the first of which ended before the old one did: it was taken for the shorter
/// chain, and everything after it for lost.
#[test]
fn what_was_written_anew_over_several_files_is_found_again() {
    let root = tempfile::tempdir().unwrap();
    let (mut journal, _) = open(root.path(), 0).unwrap();
    [3, 1, 1].iter().for_each(|blocks| {
        append(&mut journal, *blocks).unwrap();
    });
    append(&mut journal, 3).unwrap();
    drop(journal);
    for opening in 0..3 {
        let (mut journal, entries) = open(root.path(), 0).unwrap();
        assert_eq!(assert_prefix(&entries, 0), 4 + opening * 2);
        append(&mut journal, 1).unwrap();
        flush(&mut journal).unwrap();
        append(&mut journal, 3).unwrap();
    }
}

/// The bytes were made by the script beside them, of a volume key of 0 to 31 and a cache id of 0x11s.
#[test]
fn golden_files_are_read_and_written_again() {
    assert_golden(
        include_bytes!("../../golden/journal/v1-chacha.bin"),
        Cipher::ChaCha20Poly1305,
    );
    assert_golden(include_bytes!("../../golden/journal/v1-aes.bin"), Cipher::Aes256Gcm);
}

fn assert_golden(golden: &[u8], cipher: Cipher) {
    let root = tempfile::tempdir().unwrap();
    let file_bytes = (golden.len() as u64).next_multiple_of(4096);
    let mut bytes = golden.to_vec();
    bytes.resize(file_bytes as usize, 0);
    std::fs::write(root.path().join("000000.journal"), &bytes).unwrap();
    let key = || JournalKey::new(&std::array::from_fn(|at| at as u8), [0x11; 16]);
    let options = JournalOptions {
        folder: root.path().to_owned(),
        file_bytes,
        file_count: 4,
    };
    let (journal, _) = Journal::open(options, key(), 40).unwrap();
    assert_eq!((journal.last_seq(), journal.flushed_seq()), (42, 42));
    let lap = &journal.laps[0];
    assert_eq!(lap.header.cipher, cipher);
    assert_eq!(lap.header.encode(&key()), golden[..512]);
    // As it lies in the file, not as the opening wrote it anew.
    let mut at = HEADER_BYTES as usize;
    for (seq, payload) in [
        (41, [vec![0x44; 4096], (0..4096).map(|at| at as u8).collect()].concat()),
        (42, vec![0x55; 4096]),
    ] {
        let fixed = golden[at..].first_chunk().unwrap();
        let head = &golden[at..at + Head::head_bytes(fixed).unwrap() as usize];
        let (head, mac) = Head::decode(head, lap.mac_key(), 3, at as u32).unwrap();
        assert_eq!(head.seq, seq);
        let mut record = Vec::new();
        head.encode(lap.mac_key(), &mut record);
        for block in payload.chunks_exact(BLOCK_BYTES) {
            lap.seal(block, (at + record.len()) as u64, &mut record);
        }
        record.resize(head.record_bytes() as usize, 0);
        assert!(record == golden[at..at + record.len()]);
        at += record.len();
        let lap = lap.clone();
        assert!(Entry { lap, head, mac }.payload().unwrap() == Some(payload));
    }
    let (end, _) = Head::decode(&golden[at..at + 80], lap.mac_key(), 3, at as u32).unwrap();
    assert_eq!((end.kind, end.seq, end.flushed), (HeadKind::End, 43, 42));
    let mut bytes = Vec::new();
    end.encode(lap.mac_key(), &mut bytes);
    bytes.resize(512, 0);
    assert!(bytes == golden[at..]);
}

#[test]
fn a_longer_record_than_a_file_is_refused() {
    let root = tempfile::tempdir().unwrap();
    let (mut journal, _) = open(root.path(), 0).unwrap();
    let blocks = ((journal.record_bytes_max() - record::head_bytes(2)) / SEALED_BYTES) as u32;
    append(&mut journal, blocks).unwrap();
    assert!(matches!(append(&mut journal, blocks + 1), Err(JournalError::TooLong)));
}

/// A record that failed to be written may lie there whole, and so would those that were given the places behind it.
#[test]
fn places_that_were_taken_back_leave_no_hole_and_no_other_history() {
    let root = tempfile::tempdir().unwrap();
    let (mut journal, _) = open(root.path(), 0).unwrap();
    append(&mut journal, 1).unwrap();
    let reserve = |journal: &mut Journal, count| {
        let (start, kind) = (7, RangeKind::Write);
        journal.reserve(vec![BlockRange { start, count, kind }]).unwrap()
    };
    // The one behind begins another file.
    let (failed, behind) = (reserve(&mut journal, 2), reserve(&mut journal, 5));
    assert_eq!(journal.laps.len(), 2);
    assert!(journal.is_next(&failed) && !journal.is_next(&behind));
    let mut record = Vec::new();
    failed.seal([&[9; BLOCK_BYTES][..]; 2].into_iter(), &mut record);
    failed.write(&record).unwrap();
    journal.withdraw();
    assert!(!journal.is_held(&failed) && !journal.is_held(&behind));
    // Sealed for a place that is somebody else's by now, it is not written.
    append(&mut journal, 1).unwrap();
    append(&mut journal, 3).unwrap();
    assert_eq!(flush(&mut journal), Ok(3));
    append(&mut journal, 1).unwrap();
    let mut walk = journal.walk();
    let walked: Vec<_> = std::iter::from_fn(|| walk.next_if(|_| true).unwrap()).collect();
    assert_eq!(assert_prefix(&walked, 0), 4);
    drop((walked, walk, journal));
    let (_, entries) = open(root.path(), 0).unwrap();
    assert_eq!(assert_prefix(&entries, 0), 4);
}

#[test]
fn a_bad_record_is_a_torn_tail_above_the_marks_and_damage_below() {
    let root = tempfile::tempdir().unwrap();
    let (mut journal, _) = open(root.path(), 0).unwrap();
    let mut places = vec![0];
    for _ in 0..3 {
        append(&mut journal, 1).unwrap();
        places.push(journal.offset);
    }
    drop(journal);
    let path = root.path().join("000000.journal");
    let whole = std::fs::read(&path).unwrap();
    for at in (HEADER_BYTES as usize..places[3] as usize).step_by(97) {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("000000.journal"), &bytes).unwrap();
        let (_, entries) = open(folder.path(), 0).unwrap();
        let bad = places.iter().position(|place| at < *place as usize).unwrap() as u64;
        let end = assert_prefix(&entries, 0);
        // What fills a sector is nobody's.
        assert!(end == bad - 1 || end == 3, "byte {at}: {end}");
    }
    // The same with a mark of the second record in the fourth.
    let (mut journal, _) = open(root.path(), 0).unwrap();
    flush(&mut journal).unwrap();
    append(&mut journal, 1).unwrap();
    drop(journal);
    let mut bytes = whole.clone();
    bytes[places[1] as usize] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    // The opening had written the records anew, as none was known to be durable.
    assert_eq!(assert_prefix(&open(root.path(), 0).unwrap().1, 0), 4);
    std::fs::remove_file(root.path().join("000001.journal")).unwrap();
    std::fs::remove_file(root.path().join("000002.journal")).ok();
    let opened = open(root.path(), 0).map(|(_, entries)| assert_prefix(&entries, 0));
    assert!(
        matches!(opened, Ok(1) | Err(JournalError::Damaged { .. })),
        "{opened:?}"
    );
}

#[test]
fn damage_below_a_mark_is_refused_and_named() {
    let root = tempfile::tempdir().unwrap();
    let (mut journal, _) = open(root.path(), 0).unwrap();
    append(&mut journal, 1).unwrap();
    append(&mut journal, 1).unwrap();
    flush(&mut journal).unwrap();
    append(&mut journal, 0).unwrap();
    drop(journal);
    let path = root.path().join("000000.journal");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[HEADER_BYTES as usize + 20] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    let opened = open(root.path(), 0).map(|_| ());
    assert!(
        matches!(opened, Err(JournalError::Damaged { seq: 1, flushed: 2 })),
        "{opened:?}"
    );
}

#[test]
fn rot_of_the_last_records_is_found_after_a_clean_end_alone() {
    for is_ended in [false, true] {
        let root = tempfile::tempdir().unwrap();
        let (mut journal, _) = open(root.path(), 0).unwrap();
        append(&mut journal, 1).unwrap();
        append(&mut journal, 1).unwrap();
        journal.end().unwrap();
        let place = journal.offset;
        assert!(place < FILE, "nothing is said while something is not durable");
        flush(&mut journal).unwrap();
        if is_ended {
            journal.end().unwrap();
        }
        drop(journal);
        let path = root.path().join("000000.journal");
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[place as usize / 2 + 300] ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        let opened = open(root.path(), 0).map(|(_, entries)| entries.len());
        match (is_ended, opened) {
            (false, Ok(1)) | (true, Err(JournalError::Damaged { seq: 2, flushed: 2 })) => {}
            (_, opened) => panic!("{is_ended}: {opened:?}"),
        }
    }
}

#[test]
fn what_comes_after_a_clean_end_is_found_too() {
    let root = tempfile::tempdir().unwrap();
    for opening in 0..3 {
        let (mut journal, entries) = open(root.path(), 0).unwrap();
        assert_eq!(assert_prefix(&entries, 0), opening * 2);
        append(&mut journal, 1).unwrap();
        flush(&mut journal).unwrap();
        journal.end().unwrap();
        append(&mut journal, 2).unwrap();
        flush(&mut journal).unwrap();
        journal.end().unwrap();
        journal.end().unwrap();
    }
    let (journal, entries) = open(root.path(), 0).unwrap();
    assert_eq!(assert_prefix(&entries, 0), 6);
    assert_eq!(
        journal.laps.len(),
        6,
        "nothing is written anew that was said to be durable"
    );
}

#[test]
fn the_next_file_is_made_before_it_is_needed_or_when_it_is() {
    let root = tempfile::tempdir().unwrap();
    let (mut journal, _) = open(root.path(), 0).unwrap();
    append(&mut journal, 1).unwrap();
    assert!(!journal.wants_file());
    append(&mut journal, 3).unwrap();
    assert!(journal.wants_file());
    let plan = journal.plan_file();
    let write = |count| {
        let (start, kind) = (0, RangeKind::Write);
        [BlockRange { start, count, kind }]
    };
    assert!(!journal.wants_file() && !journal.waits_for_file(&write(1)) && journal.waits_for_file(&write(5)));
    journal.made(plan.make());
    assert!(!journal.waits_for_file(&write(5)));
    append(&mut journal, 5).unwrap();
    assert_eq!((journal.laps.len(), journal.next_file), (2, 2));
    // A disk that is full: nobody tries again before the file is needed.
    let plan = journal.plan_file();
    journal.made(Err(io::ErrorKind::StorageFull.into()));
    assert!(!journal.wants_file() && !journal.waits_for_file(&write(5)));
    append(&mut journal, 5).unwrap();
    assert!(journal.wants_file());
    drop((plan, journal));
    assert_eq!(assert_prefix(&open(root.path(), 0).unwrap().1, 0), 4);
}

/// Appends and flushes with releases in between, until the power goes. The last number that was flushed, that was appended, and
/// that was committed.
fn work(folder: &Path, committed: &mut u64) -> (u64, u64) {
    let Ok((mut journal, entries)) = open(folder, *committed) else {
        return (*committed, *committed);
    };
    drop(entries);
    let mut flushed = journal.flushed_seq();
    for blocks in [1, 0, 3, 2, 3, 1, 0, 2] {
        if append(&mut journal, blocks).is_err() {
            break;
        }
        if blocks == 2 {
            match flush(&mut journal) {
                Ok(seq) => flushed = seq,
                Err(_) => break,
            }
            *committed = flushed - 1;
            journal.release(*committed);
        }
    }
    // What failed may be there all the same.
    (flushed, journal.last_seq() + 1)
}

#[test]
fn after_a_cut_at_every_step_what_was_flushed_is_there_and_the_rest_is_a_prefix() {
    let root = tempfile::tempdir().unwrap();
    let mut images_tried = 0;
    for cut in 0.. {
        durable::power_cut::Image::default().lay(root.path());
        let mut committed = 0;
        let before = work(root.path(), &mut committed);
        let machine = Machine::start(root.path());
        machine.cut_after(Some(cut));
        let now = work(root.path(), &mut committed);
        let (flushed, appended) = (before.0.max(now.0), before.1.max(now.1));
        let is_over = machine.steps().len() < cut;
        let images = machine.outcomes();
        drop(machine);
        for image in images {
            image.lay(root.path());
            let (mut journal, entries) = open(root.path(), committed)
                .unwrap_or_else(|error| panic!("cut {cut}, flushed {flushed}: {error}: {image:?}"));
            let end = assert_prefix(&entries, committed);
            assert!(
                (flushed..=appended).contains(&end),
                "cut {cut}: {flushed} {end} {appended}"
            );
            // It goes on from there.
            append(&mut journal, 1).unwrap();
            drop(journal);
            assert_eq!(
                assert_prefix(&open(root.path(), committed).unwrap().1, committed),
                end + 1
            );
            images_tried += 1;
        }
        if is_over {
            break;
        }
    }
    assert!(images_tried > 100, "{images_tried}");
}

#[test]
fn what_failed_to_sync_is_written_to_another_file_or_the_journal_is_broken() {
    let root = tempfile::tempdir().unwrap();
    let machine = Machine::start(root.path());
    let (mut journal, _) = open(root.path(), 0).unwrap();
    append(&mut journal, 1).unwrap();
    flush(&mut journal).unwrap();
    append(&mut journal, 2).unwrap();
    append(&mut journal, 1).unwrap();
    machine.fail_sync_of("000000.journal");
    assert!(flush(&mut journal).is_err());
    let entries = journal.rewrite().unwrap();
    assert_eq!(assert_prefix(&entries, 1), 3);
    assert!(entries.iter().all(|entry| entry.lap.header.lap == 2));
    drop(entries);
    assert_eq!(flush(&mut journal), Ok(3));
    for image in machine.outcomes() {
        let folder = tempfile::tempdir().unwrap();
        image.lay(folder.path());
        assert_eq!(assert_prefix(&open(folder.path(), 0).unwrap().1, 0), 3, "{image:?}");
    }
    append(&mut journal, 1).unwrap();
    machine.cut_after(Some(0));
    assert!(flush(&mut journal).is_err() && journal.rewrite().is_err());
    assert!(journal.is_broken() && append(&mut journal, 1).is_err());
}

#[test]
fn an_opening_relies_on_nothing_whose_sync_failed_before_the_process_died() {
    let root = tempfile::tempdir().unwrap();
    let machine = Machine::start(root.path());
    let (mut journal, _) = open(root.path(), 0).unwrap();
    append(&mut journal, 2).unwrap();
    machine.fail_sync_of("000000.journal");
    assert!(flush(&mut journal).is_err());
    drop(journal);
    let (mut journal, entries) = open(root.path(), 0).unwrap();
    drop(entries);
    append(&mut journal, 1).unwrap();
    assert_eq!(flush(&mut journal), Ok(2));
    for image in machine.outcomes() {
        let folder = tempfile::tempdir().unwrap();
        image.lay(folder.path());
        assert_eq!(assert_prefix(&open(folder.path(), 0).unwrap().1, 0), 2, "{image:?}");
    }
}

#[test]
fn one_sync_answers_all_who_wait() {
    use std::sync::atomic::{AtomicUsize, Ordering};
    let syncs = Arc::new(AtomicUsize::new(0));
    let (begin, begun) = std::sync::mpsc::channel();
    let counted = syncs.clone();
    let flusher = Flusher::start(move || {
        begun.recv().ok();
        match counted.fetch_add(1, Ordering::SeqCst) {
            0 => Ok(()),
            _ => Err(FlushError("The disk failed".to_owned())),
        }
    })
    .unwrap();
    let first = flusher.flush();
    begin.send(()).unwrap();
    futures::executor::block_on(first).unwrap();
    let rest: Vec<_> = (0..10).map(|_| flusher.flush()).collect();
    drop(begin);
    let done = futures::executor::block_on(futures::future::join_all(rest));
    assert!(done.iter().all(Result::is_err));
    assert!(syncs.load(Ordering::SeqCst) <= 11);
}

/// A power cut took one file of two that were not synced; the other one, which came later, is whole, and was never in any chain.
#[test]
fn what_a_power_cut_left_of_another_history_is_never_taken_for_a_start() {
    let root = tempfile::tempdir().unwrap();
    let (mut journal, _) = open(root.path(), 0).unwrap();
    let several = |journal: &mut Journal, count, blocks| {
        for _ in 0..count {
            append(journal, blocks).unwrap();
        }
    };
    several(&mut journal, 2, 3);
    flush(&mut journal).unwrap();
    several(&mut journal, 4, 3);
    drop(journal);
    // Records 3 and 4 are in the second file, 5 and 6 in the third.
    std::fs::write(root.path().join("000001.journal"), vec![0; FILE as usize]).unwrap();
    let (mut journal, entries) = open(root.path(), 0).unwrap();
    assert_eq!(assert_prefix(&entries, 0), 2);
    several(&mut journal, 3, 1);
    flush(&mut journal).unwrap();
    journal.release(4);
    drop(journal);
    let (_, entries) = open(root.path(), 4).unwrap();
    let found: Vec<_> = entries
        .iter()
        .map(|entry| (entry.head.seq, entry.head.blocks()))
        .collect();
    assert_eq!(found, [(5, 1)], "the flushed record 5 has one block");
}

/// A power cut took a block of the first record that was not synced; those behind it, in the same file, are whole. They were more than
/// were appended afterwards, and were taken for the longer chain once a mark covered the torn one.
#[test]
fn a_torn_tail_is_never_taken_for_the_longer_chain() {
    let root = tempfile::tempdir().unwrap();
    let (mut journal, _) = open(root.path(), 0).unwrap();
    append(&mut journal, 1).unwrap();
    flush(&mut journal).unwrap();
    let torn = (1..5).map(|_| {
        let seq = append(&mut journal, 1).unwrap();
        let entry = journal.unflushed.iter().find(|entry| entry.head.seq == seq).unwrap();
        u64::from(entry.head.offset) + entry.head.payload_offset()
    });
    let torn = torn.collect::<Vec<_>>()[0];
    drop(journal);
    let file = std::fs::File::options()
        .write(true)
        .open(root.path().join("000000.journal"))
        .unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &[0; 512], torn + 1_024).unwrap();
    let (mut journal, entries) = open(root.path(), 0).unwrap();
    assert_eq!(assert_prefix(&entries, 0), 1);
    for _ in 1..3 {
        append(&mut journal, 2).unwrap();
        flush(&mut journal).unwrap();
    }
    drop(journal);
    let (_, entries) = open(root.path(), 0).unwrap();
    let found: Vec<_> = entries
        .iter()
        .map(|entry| (entry.head.seq, entry.head.blocks()))
        .collect();
    assert_eq!(found, [(1, 1), (2, 2), (3, 2)], "flushed records have two blocks");
}
