//! When packs are repacked, and that what is copied can be read with the old packs gone.

use super::*;
use crate::catalog::content::live;
use crate::catalog::content::live::Wanted;
use crate::writer::repack;
use crate::writer::repack::Plan;

/// A bench whose newest snapshot wants only the files that `stays` says, out of so many of 200 kB each.
fn thinned(files: usize, stays: impl Fn(usize) -> bool) -> Bench {
    let bench = Bench::new();
    for number in 0..files {
        bench.write(&format!("file {number}"), &noise(number as u64, 200_000));
    }
    bench.backup();
    for number in (0..files).filter(|number| !stays(*number)) {
        std::fs::remove_file(bench.path(&format!("file {number}"))).unwrap();
    }
    bench.backup();
    bench
}

fn plan(bench: &Bench) -> (Wanted, Plan) {
    let newest = bench.db.read(tree::snapshots).unwrap().pop().unwrap().record.seq;
    let wanted = bench.db.read(|conn| live::wanted(conn, &[newest])).unwrap();
    let plan = bench.db.read(|conn| repack::plan(conn, &wanted)).unwrap();
    (wanted, plan)
}

#[test]
fn a_pack_of_which_more_than_half_is_wanted_stays_as_it_is() {
    let bench = thinned(40, |number| number % 3 != 0);
    let (wanted, plan) = plan(&bench);
    assert_eq!(wanted.chunks.len(), 1, "one large pack");
    assert!(plan.packs.is_empty());
}

#[test]
fn a_repacking_that_frees_less_than_it_sends_is_not_done() {
    // One small pack: whatever is left of it takes another one.
    let bench = thinned(2, |number| number == 0);
    let (wanted, plan) = plan(&bench);
    assert_eq!(wanted.chunks.len(), 1);
    assert!(plan.packs.is_empty());
}

#[test]
fn what_is_copied_is_read_from_the_new_packs_and_the_old_ones_may_go() {
    let bench = thinned(60, |number| number % 4 == 0);
    let (before, plan) = plan(&bench);
    assert!(!plan.packs.is_empty() && 2 * plan.copied_bytes <= plan.freed_bytes);
    let writer = bench.writer();
    let repacked = writer
        .repack(&bench.reader(&bench.db), &plan, &AtomicBool::new(false), &|_| {})
        .unwrap();
    assert_eq!(repacked.copied_bytes, 15 * 200_000);
    let (after, nothing_more) = self::plan(&bench);
    assert!(nothing_more.packs.is_empty());
    for pack in plan.packs.keys() {
        assert!(before.chunks.contains_key(pack) && after.dying.contains(pack));
    }
}

#[test]
fn a_repacking_whose_packs_no_peer_takes_changes_nothing_and_is_finished_later() {
    let bench = thinned(60, |number| number % 4 == 0);
    let (before, plan) = plan(&bench);
    for store in &bench.stores[..2] {
        store.set(|faults| faults.fail_puts = u32::MAX);
    }
    let writer = bench.writer();
    let reader = bench.reader(&bench.db);
    let repacked = writer.repack(&reader, &plan, &AtomicBool::new(false), &|_| {}).unwrap();
    assert_eq!(repacked.packs_safe, 0);
    let (still, not_again) = self::plan(&bench);
    assert_eq!(still.chunks, before.chunks, "chunks are where they were");
    assert!(still.dying.is_empty() && not_again.packs.is_empty());
}
