//! The way of commits as a whole: what a process that died left of one behind is found.

use disk::running::Running;

use super::*;
use crate::commits::Way;

fn way(grid: &Grid) -> Way {
    let electorate = Electorate::of(grid.runtime.block_on(voters::choose(&grid.peers.all(), &[])));
    let rules = rules(&grid.writer, &electorate, Handover::Forced).unwrap();
    let end = CancellationToken::new();
    let _in_runtime = grid.runtime.enter();
    let claim = Claim::take_over(rules, None);
    let voting = Voting::start(claim, electorate, VOLUME, grid.writer.clone(), &end);
    Way {
        writer: grid.writer.clone(),
        volume: VOLUME,
        voting,
        is_without_voters: false,
        mend: Arc::new(|_| Box::pin(async {})),
        end: end.drop_guard(),
        now_ns: || 1,
        delivered: Delivered::default(),
        turn: std::sync::Mutex::default(),
    }
}

fn packs_of(grid: &Grid) -> (usize, usize) {
    let counted = grid.db.read::<_, database::DbError>(|conn| {
        let all = backup::catalog::disks::packs_of(conn, VOLUME)?.len();
        Ok((all, upload_queue::packs::dead(conn)?.len()))
    });
    counted.unwrap()
}

#[test]
fn packs_of_a_commit_that_was_never_offered_are_given_up_and_those_of_accepted_ones_are_not() {
    let grid = Grid::new(Reach::Local);
    let (way, stop) = (way(&grid), AtomicBool::new(false));
    grid.runtime.block_on(way.voting.found(SOON)).unwrap();
    way.voting.adopt(None);
    let all_voters = way.voting.electorate().all();
    way.create("disk".to_owned(), SIZE, &all_voters, &stop).unwrap();
    let is_here = grid.db.read(|conn| backup::catalog::disks::is_here(conn, VOLUME));
    assert_eq!(is_here.unwrap(), Some(true), "all packs of a new disk are known");

    let (head, local) = (grid.newest(), grid.dir.path().join("running"));
    let packs = Arc::new(IncomingPacks::new(grid.reader()));
    let runtime = grid.runtime.handle().clone();
    let running = Running::open(&local, VOLUME, head.commit, &head.root, packs, runtime, Some(512 << 20)).unwrap();
    for (number, offset) in [(1, 0), (2, 8 << 20)] {
        let data = noise(number, 1 << 20);
        running
            .device()
            .apply(&[Change::Write { offset, data: &data }])
            .unwrap();
        block_on(running.device().flush()).unwrap();
        assert!(way.commit(&running, &stop).unwrap());
    }
    let (all, _) = packs_of(&grid);
    assert!(all >= 3, "a commit has a pack at least");
    assert_eq!(way.give_up_unnamed(&running).unwrap(), 0);

    // As a process leaves it that is killed between the first pack of a commit and its offer.
    let shape = grid.writer.shapes()[0];
    grid.writer.seal_and_deliver(shape, b"never offered", VOLUME).unwrap();
    assert_eq!(packs_of(&grid), (all + 1, 0));
    assert_eq!(way.give_up_unnamed(&running).unwrap(), 1);
    assert_eq!(packs_of(&grid), (all + 1, 1));
    assert_eq!(way.give_up_unnamed(&running).unwrap(), 0);
    grid.runtime.block_on(grid.writer.discard_of_disks()).unwrap();
    assert_eq!(packs_of(&grid), (all, 0), "its number is another pack's from now on");

    // What is on its way is named by no table yet.
    let data = noise(3, 1 << 20);
    running
        .device()
        .apply(&[Change::Write { offset: 0, data: &data }])
        .unwrap();
    (0..FOLDERS).for_each(|number| grid.away(number));
    stop.store(true, std::sync::atomic::Ordering::SeqCst);
    assert!(way.commit(&running, &stop).is_err());
    assert!(packs_of(&grid).0 > all);
    assert_eq!(way.give_up_unnamed(&running).unwrap(), 0);
    (0..FOLDERS).for_each(|number| grid.back(number));
    stop.store(false, std::sync::atomic::Ordering::SeqCst);
    assert!(way.commit(&running, &stop).unwrap());
    assert_eq!(way.give_up_unnamed(&running).unwrap(), 0);
}
