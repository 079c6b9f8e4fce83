use proptest::prelude::*;

use super::*;
use crate::collect::simulation::dense::DenseMap;

const BLOCKS: usize = 64;

fn place(pack: u32, slot: u32) -> Place {
    let pack = PackId(pack);
    Place { pack, slot }
}

fn run(start: u64, count: u32, place: Place) -> Run {
    Run { start, count, place }
}

/// Blocks 10 to 19 lie in pack 1 and are to go to pack 2.
fn collected() -> (DenseMap, Move) {
    let mut map = DenseMap::new(BLOCKS);
    let from = run(10, 10, place(1, 100));
    map.set(from);
    (map, Move { from, to: place(2, 7) })
}

#[test]
fn a_block_that_was_overwritten_meanwhile_stays_overwritten() {
    let (mut map, planned) = collected();
    map.set(run(13, 2, place(3, 0)));
    let held = apply(&mut map, &[planned]);
    let parts: Vec<_> = held
        .iter()
        .map(|part| (part.from.start, part.from.count, part.to))
        .collect();
    assert_eq!(parts, [(10, 3, place(2, 7)), (15, 5, place(2, 12))]);
    assert_eq!(
        map.find(10, 10),
        [
            run(10, 3, place(2, 7)),
            run(13, 2, place(3, 0)),
            run(15, 5, place(2, 12))
        ]
    );
}

#[test]
fn a_move_that_comes_twice_holds_once() {
    let (mut map, planned) = collected();
    assert_eq!(apply(&mut map, &[planned]), [planned]);
    assert_eq!(apply(&mut map, &[planned]), []);
}

#[test]
fn the_same_pack_at_another_place_is_not_the_same_place() {
    let (mut map, planned) = collected();
    map.set(run(10, 10, place(1, 101)));
    assert_eq!(apply(&mut map, &[planned]), []);
}

fn runs() -> impl Strategy<Value = Vec<(u64, u32, u32, u32)>> {
    prop::collection::vec((0..BLOCKS as u64 - 8, 1..8_u32, 0..3_u32, 0..4_u32), 0..12)
}

proptest! {
    #[test]
    fn blocks_move_as_a_table_of_single_blocks_says(before in runs(), planned in runs(), meanwhile in runs()) {
        let mut map = DenseMap::new(BLOCKS);
        // Slots follow blocks, so that neighbours often are one run.
        let there = |(start, count, pack, shift): (u64, u32, u32, u32)| run(start, count, place(pack, start as u32 + shift / 3));
        before.iter().for_each(|drawn| map.set(there(*drawn)));
        let mut named = [false; BLOCKS];
        let mut moves = Vec::new();
        for (number, drawn) in planned.into_iter().enumerate() {
            let from = there(drawn);
            let blocks = from.start as usize..from.start as usize + from.count as usize;
            if !named[blocks.clone()].contains(&true) {
                named[blocks].fill(true);
                moves.push(Move { from, to: place(100 + number as u32, 0) });
            }
        }
        meanwhile.iter().for_each(|drawn| map.set(there(*drawn)));
        let lies = |map: &DenseMap| (0..BLOCKS as u64).map(|block| map.get(block)).collect::<Vec<_>>();
        let mut expected = lies(&map);
        let mut held_count = 0;
        for planned in &moves {
            for skipped in 0..planned.from.count {
                let lies = &mut expected[planned.from.start as usize + skipped as usize];
                if *lies == Some(planned.from.place.skip(skipped)) {
                    *lies = Some(planned.to.skip(skipped));
                    held_count += 1;
                }
            }
        }
        let held = apply(&mut map, &moves);
        prop_assert_eq!(lies(&map), expected);
        prop_assert_eq!(held.iter().map(|part| part.from.count).sum::<u32>(), held_count);
    }
}
