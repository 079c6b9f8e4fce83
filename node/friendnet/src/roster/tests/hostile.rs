//! A hostile author: signs anything with his own keys and those of a stolen device, replays all that is public, and feeds it to any node
//! in any order. What must hold then, whatever he does.
//!
//! Seeded cases. `GRIDBACKUP_HOSTILE_CASES` says up to which, `GRIDBACKUP_HOSTILE_FROM` from which, `GRIDBACKUP_HOSTILE_SECS` for how long; 100,000 take about a minute, since
//! signatures are checked once.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use super::*;

/// Honest accounts: 1 founded, admitted 2 and 3; 2 admitted 4; 3 admitted 5.
const HONEST: [(u8, u8); 4] = [(1, 2), (1, 3), (2, 4), (3, 5)];
/// The hostile one, whom 1 admitted, and inventions of his.
const MALLORY: u8 = 9;
const INVENTIONS: std::ops::Range<u8> = 20..32;
const CASES: u64 = 100_000;
const NODES: usize = 3;

/// A small generator (xorshift64*): cases have to be the same everywhere.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % sides
    }
}

/// The grid before he begins.
fn honest() -> Roster {
    let mut roster = with(&HONEST);
    assert!(roster.add_member(admit(1, MALLORY)));
    roster
}

/// Everything that he can have others hear, one record each: his own, and what is public.
fn arsenal() -> &'static [Vetted] {
    static ARSENAL: OnceLock<Vec<Vetted>> = OnceLock::new();
    ARSENAL.get_or_init(|| {
        let his: Vec<Who> = std::iter::once(MALLORY).chain(INVENTIONS).map(who).collect();
        let victims: Vec<u8> = (1..=5).collect();
        let mut all = Vec::new();
        for author in &his {
            for victim in &victims {
                // Their acceptances are public: anybody can admit them again.
                all.push(member(admission(author, &who(*victim))));
                for (seq, is_removed) in [(1, true), (2, false), (u64::MAX, true)] {
                    let removal = Removal {
                        heard: if seq == 1 { 0 } else { u64::MAX },
                        ..Removal::of(who(*victim).account(), seq, is_removed)
                    };
                    all.push(removed(removal.signed(author.speaker(), grid())));
                }
                // A word on somebody else, and one in his name.
                let mut word = AccountWord::first(who(*victim).account());
                word.seq = u64::MAX;
                deeds::leave(&mut word, grid(), true);
                all.push(Vetted {
                    words: vec![word.signed(&author.words)],
                    ..Vetted::default()
                });
            }
            for other in &his {
                all.push(member(admission(author, other)));
            }
            let mut word = AccountWord::first(author.account());
            for has_left in [true, false] {
                word.seq += 1;
                deeds::leave(&mut word, grid(), has_left);
                all.push(Vetted {
                    words: vec![word.clone().signed(&author.words)],
                    ..Vetted::default()
                });
            }
        }
        for (by, whom) in HONEST.iter().chain([(1, MALLORY)].iter()) {
            all.push(member(admit(*by, *whom)));
        }
        all
    })
}

fn member(record: MemberRecord) -> Vetted {
    Vetted {
        members: vet_member(record, grid()).into_iter().collect(),
        ..Vetted::default()
    }
}

fn removed(removal: Removal) -> Vetted {
    Vetted {
        removals: vet_removal(removal, grid()).into_iter().collect(),
        ..Vetted::default()
    }
}

/// All that a roster knows, checked: nobody checks twice what an honest node has checked.
fn all_of(roster: &Roster) -> Vetted {
    Vetted {
        members: roster.members.values().cloned().collect(),
        devices: Vec::new(),
        removals: roster.removals.values().cloned().collect(),
        words: roster.words.values().cloned().collect(),
    }
}

/// Honest nodes tell each other all they know until nothing is news.
fn meet(nodes: &mut [Roster; NODES]) {
    for _ in 0..NODES + 1 {
        for from in 0..NODES {
            let told = all_of(&nodes[from]);
            for (to, node) in nodes.iter_mut().enumerate() {
                if to != from {
                    node.take(&told);
                }
            }
        }
    }
}

/// The numbers of cases: a part of those that are asked for, or as many as fit into the seconds that are.
fn cases(part: u64) -> impl Iterator<Item = u64> {
    let asked = |variable: &str| std::env::var(variable).ok()?.parse::<u64>().ok();
    let from = asked("GRIDBACKUP_HOSTILE_FROM").unwrap_or(1);
    let until = asked("GRIDBACKUP_HOSTILE_SECS").map(|secs| Instant::now() + Duration::from_secs(secs));
    let count = match until {
        Some(_) => u64::MAX,
        None => asked("GRIDBACKUP_HOSTILE_CASES").unwrap_or(CASES) / part,
    };
    (from..=count).take_while(move |_| until.is_none_or(|until| Instant::now() < until))
}

#[test]
fn whatever_a_member_signs_replays_and_feeds_all_others_stay_and_it_can_be_removed() {
    let (arsenal, honest, founded, founder) = (arsenal(), honest(), founded(), who(1));
    let mut done = 0;
    for case in cases(1) {
        done = case;
        let mut dice = Dice(case.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let mut nodes = [honest.clone(), honest.clone(), honest.clone()];
        // One of them may be a fresh one that hears everything from him first.
        if dice.roll(3) == 0 {
            nodes[2] = founded.clone();
        }
        let removed_at = dice.roll(40);
        for step in 0..30 {
            if step == removed_at {
                let said = nodes[0].remove_member(founder.speaker(), who_account(MALLORY));
                assert_eq!(said, Ok(Removed::Out), "case {case}");
            }
            match dice.roll(8) {
                0 => {
                    let (from, to) = (dice.roll(NODES), dice.roll(NODES));
                    let told = all_of(&nodes[from]);
                    nodes[to].take(&told);
                }
                _ => {
                    let weapon = &arsenal[dice.roll(arsenal.len())];
                    nodes[dice.roll(NODES)].take(weapon);
                }
            }
        }
        meet(&mut nodes);
        for (number, node) in nodes.iter().enumerate() {
            for one in 1..=5 {
                assert!(
                    node.member(who_account(one)).is_some(),
                    "case {case}: {one} is out at node {number}"
                );
            }
            assert!(
                node.members.len() <= RECORDS_MAX && node.removals.len() <= 12 * VOTES_MAX,
                "case {case}"
            );
            let inventions = INVENTIONS
                .filter(|number| node.member(who_account(*number)).is_some())
                .count();
            // His own place is one of theirs once he is removed.
            let his = usize::from(!node.is_removed(who_account(MALLORY)));
            assert!(inventions + his <= BRANCH_MAX, "case {case}: {inventions} inventions");
            assert!(node.has_room(who_account(1)), "case {case}");
            assert!(is_readable(node), "case {case}");
            if removed_at < 30 {
                assert!(
                    node.member(who_account(MALLORY)).is_none(),
                    "case {case}: he is back at node {number}"
                );
            }
        }
    }
    println!("{done} cases");
}

/// One of so many cases: signatures are made in each.
const STOLEN_SHARE: u64 = 100;

#[test]
fn whatever_a_thief_of_the_founder_s_machine_signs_the_words_end_it() {
    let (stolen, kept) = (who(1), who(1).again(90));
    let mut arsenal = arsenal().to_vec();
    for whom in INVENTIONS.chain([MALLORY]) {
        arsenal.push(member(admission(&stolen, &who(whom))));
    }
    for whom in (2..=5).chain(INVENTIONS) {
        for (seq, is_removed) in [(0, true), (7, true), (8, false), (u64::MAX, true)] {
            let said = Removal::of(who_account(whom), seq, is_removed);
            arsenal.push(removed(said.signed(stolen.speaker(), grid())));
        }
    }
    let back: Vec<Vetted> = (2..=5).map(|whom| member(admission(&kept, &who(whom)))).collect();
    for case in cases(STOLEN_SHARE) {
        let mut dice = Dice(case.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let mut nodes = [honest(), honest(), honest()];
        for _ in 0..40 {
            nodes[dice.roll(NODES)].take(&arsenal[dice.roll(arsenal.len())]);
        }
        if dice.roll(2) == 0 {
            meet(&mut nodes);
        }
        assert!(
            nodes.iter().all(|node| node.member(who_account(1)).is_some()),
            "case {case}: the founder is out"
        );
        // The owner hears of what the thief did from one of the others, and says his words there.
        let here = &mut nodes[0];
        let mut word = here.next_word(who_account(1));
        assert!(deeds::revoke(&mut word, stolen.device()));
        let mut admitted = here.admitted_by_revoked(who_account(1), &word);
        admitted.retain(|account| (2..=5).all(|honest| who_account(honest) != *account));
        let taken_back = here.removed_by_revoked(who_account(1), &word);
        admitted.extend(&taken_back);
        here.stand_by(&mut word, &admitted);
        here.say_again(kept.speaker(), &word, &taken_back);
        assert!(here.add_word(word.signed(&stolen.words)), "case {case}");
        meet(&mut nodes);
        // Whom he had thrown out is invited anew.
        for node in &mut nodes {
            back.iter().for_each(|friend| {
                node.take(friend);
            });
        }
        meet(&mut nodes);
        for (number, node) in nodes.iter().enumerate() {
            for one in 1..=3 {
                assert!(
                    node.member(who_account(one)).is_some(),
                    "case {case}: {one} is out at node {number}"
                );
            }
            let of_the_founder = node.members().filter(|record| record.admitted_by == who_account(1));
            let strange = of_the_founder.filter(|record| (2..=5).all(|one| who_account(one) != record.account));
            assert_eq!(strange.count(), 1, "case {case}: only itself, at node {number}");
            assert!(is_readable(node), "case {case}");
            assert_eq!(node.digest(), nodes[0].digest(), "case {case}");
        }
    }
}

/// What a node holds others can read, and the node itself when it starts anew.
fn is_readable(node: &Roster) -> bool {
    RosterRecords::decode(&node.records().encode()).is_ok()
}

fn who_account(number: u8) -> AccountId {
    static ACCOUNTS: OnceLock<Vec<AccountId>> = OnceLock::new();
    let accounts = ACCOUNTS.get_or_init(|| (0..40).map(|number| who(number).account()).collect());
    accounts[usize::from(number)]
}
