//! Rosters of a grid: what members and strangers tell each other, merged in any order.
//!
//! An input is a program: honest accounts found, admit, remove, take back and speak for themselves on nodes of their own, which
//! merge now and then; a hostile one has what it signed heard wherever it likes.

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};

use friendnet::roster::{Roster, Vetted, deeds};
use proto::id::GridId;
use proto::wire::grid_limits::MEMBERS_MAX;
use proto::wire::removal::{REMOVALS_MAX, Removal};
use proto::wire::roster::{DEVICES_MAX, DeviceRecord, MemberRecord, RECORDS_MAX, RosterRecords, acceptance, grid_id};
use proto::wire::word::AccountWord;

use crate::engine::{Cost, Target};
use crate::heard::Heard;
use crate::keys::Who;

/// The target.
pub const TARGET: Target = Target {
    name: "roster",
    run,
    seeds,
    golden: &["wire/v1-roster.bin"],
    words: &[b"\x01\x00\x01", b"\x08", b"\x10"],
    cost: Cost {
        bytes: 8 << 20,
        time: std::time::Duration::from_secs(3),
    },
};

/// Nodes that hold a roster each.
const NODES: usize = 3;
/// Accounts, each with `DEVICES` devices; the last two are hostile.
const ACCOUNTS: u8 = 8;
const HOSTILE: u8 = 6;
const DEVICES: u8 = 2;
/// Steps of a program.
const STEPS_MAX: usize = 24;

fn seeds() -> Vec<Vec<u8>> {
    vec![
        vec![1, 0, 1, 1, 0, 2, 8, 0, 1, 16, 2, 1],
        vec![1, 0, 1, 1, 0, 2, 1, 1, 3, 8, 0, 1, 2, 1, 0, 3, 0, 2, 8, 1, 2],
        vec![1, 0, 1, 1, 0, 7, 8, 0, 1, 9, 7, 1, 10, 7, 0, 11, 7, 3],
        vec![1, 0, 1, 1, 1, 2, 2, 0, 1, 8, 0, 1, 4, 1, 0, 5, 2, 0, 8, 0, 1, 8, 1, 0],
    ]
}

fn run(input: &[u8], heard: &mut Heard) {
    bytes(input, heard);
    let people = People::get();
    let mut nodes = [people.founded(), people.founded(), people.founded()];
    for (number, step) in input.as_chunks::<3>().0.iter().take(STEPS_MAX).enumerate() {
        perform(*step, number, &people, &mut nodes, heard);
    }
    for node in &nodes {
        bounded(node);
        again(node);
    }
    meet(&mut nodes);
    heard.count("members", nodes[0].members().count());
    heard.count(
        "nodes",
        usize::from(nodes[0] == nodes[1]) + usize::from(nodes[1] == nodes[2]),
    );
    let is_hostile = input
        .as_chunks::<3>()
        .0
        .iter()
        .take(STEPS_MAX)
        .any(|step| is_hostile(*step));
    if !is_hostile {
        let all: Vec<RosterRecords> = nodes.iter().map(Roster::records).collect();
        assert_eq!(all[0], all[1], "who has heard all knows the same");
        assert_eq!(all[1], all[2], "who has heard all knows the same");
    }
}

/// Bytes that claim to be a roster.
fn bytes(input: &[u8], heard: &mut Heard) {
    if let Some(records) = heard.note("records", RosterRecords::decode(input)) {
        let roster = Roster::from_records(&records);
        bounded(&roster);
        again(&roster);
        heard.count("kept", roster.members().count());
    }
}

/// Whatever was heard, a roster fits where it has to.
fn bounded(roster: &Roster) {
    let records = roster.records();
    assert!(roster.members().count() <= MEMBERS_MAX && records.members.len() <= RECORDS_MAX);
    assert!(records.removals.len() <= REMOVALS_MAX && records.devices.len() <= MEMBERS_MAX * DEVICES_MAX);
    let encoded = records.encode();
    assert_eq!(
        RosterRecords::decode(&encoded),
        Ok(records),
        "what is kept can be read again"
    );
}

/// What is known already changes nothing, and what is written and read again says the same.
fn again(roster: &Roster) {
    let mut merged = roster.clone();
    assert!(!merged.merge(&roster.records()), "nothing in it is news");
    assert_eq!(merged.records(), roster.records());
    assert_eq!(Roster::from_records(&roster.records()).records(), roster.records());
}

/// Nodes tell each other all they know until nothing is news.
fn meet(nodes: &mut [Roster; NODES]) {
    for _ in 0..=NODES {
        for from in 0..NODES {
            let told = nodes[from].records();
            for to in (0..NODES).filter(|to| *to != from) {
                nodes[to].merge(&told);
            }
        }
    }
}

fn is_hostile([deed, who, _]: [u8; 3]) -> bool {
    deed % 16 >= 9 && who % ACCOUNTS >= HOSTILE
}

/// One step: somebody does something on a node.
fn perform([deed, who, whom]: [u8; 3], number: usize, people: &People, nodes: &mut [Roster; NODES], heard: &mut Heard) {
    let at = usize::from(deed / 16) % NODES;
    let device = (whom / ACCOUNTS) % DEVICES;
    let (author, other) = (people.who(who % HOSTILE, device), people.who(whom % ACCOUNTS, 0));
    let node = &mut nodes[at];
    // An honest account is on one node only: it knows what it said.
    let is_at_home = usize::from(who % HOSTILE) % NODES == at;
    match deed % 16 {
        1 if is_at_home && node.has_room(author.account()) => {
            let done = node.add_member(people.admission(author, other));
            heard.count("admitted", done.into());
        }
        2 if is_at_home => {
            let said = node.remove_member(author.speaker(), other.account());
            heard.note("removed", said.map(drop));
        }
        3 if is_at_home => heard.count("taken back", node.take_back(author.speaker(), other.account()).into()),
        4 if is_at_home => {
            let mut word = node.next_word(author.account());
            deeds::leave(&mut word, people.grid, whom & 0x80 == 0);
            heard.count("left", node.add_word(word.signed(&author.words)).into());
        }
        5 if is_at_home => {
            let mut word = node.next_word(author.account());
            let revoked = people.who(who % HOSTILE, 1 - device);
            if deeds::revoke(&mut word, revoked.cert.device) {
                node.stand_by(&mut word, &BTreeSet::new());
                let word = word.signed(&author.words);
                node.say_again(author.speaker(), &word, &BTreeSet::new());
                heard.count("revoked", node.add_word(word).into());
            }
        }
        6 if is_at_home => {
            let record = people.device(author, number as u64);
            heard.count("device", node.add_device(record).into());
        }
        0 | 7 | 8 => {
            let told = nodes[usize::from(who) % NODES].records();
            let is_news = nodes[usize::from(whom) % NODES].merge(&told);
            heard.count("told", is_news.into());
        }
        kind => {
            let weapon = people.weapon(kind, HOSTILE + who % (ACCOUNTS - HOSTILE), whom);
            heard.count("heard", node.take(&weapon).into());
        }
    }
}

/// Everybody, and all that was signed so far: signatures are checked once.
struct People {
    grid: GridId,
    all: Vec<Who>,
}

thread_local! {
    static WEAPONS: RefCell<HashMap<(u8, u8, u8), Vetted>> = RefCell::default();
}

impl People {
    fn get() -> std::rc::Rc<Self> {
        thread_local! {
            static PEOPLE: std::rc::Rc<People> = std::rc::Rc::new(People::make());
        }
        PEOPLE.with(std::rc::Rc::clone)
    }

    fn make() -> Self {
        let all: Vec<Who> = (0..ACCOUNTS)
            .flat_map(|who| (0..DEVICES).map(move |device| Who::new(who, device)))
            .collect();
        Self {
            grid: grid_id(all[0].account(), 100),
            all,
        }
    }

    fn who(&self, who: u8, device: u8) -> &Who {
        &self.all[usize::from(who * DEVICES + device)]
    }

    fn founded(&self) -> Roster {
        let mut roster = Roster::empty(self.grid);
        assert!(roster.add_member(MemberRecord::found(self.who(0, 0).speaker(), "Ada", 100)));
        roster
    }

    fn admission(&self, admitter: &Who, member: &Who) -> MemberRecord {
        let accepted = acceptance(member.speaker(), self.grid, "Bob", admitter.cert.device);
        MemberRecord::admit(admitter.speaker(), self.grid, member.account(), "Bob", accepted)
    }

    fn device(&self, who: &Who, seq: u64) -> DeviceRecord {
        DeviceRecord::sign(
            &who.device,
            self.grid,
            &who.cert,
            seq,
            &[vec![4, 127, 0, 0, 1, 6, 0, 80]],
        )
    }

    /// A record that a hostile account signs, checked.
    fn weapon(&self, kind: u8, hostile: u8, whom: u8) -> Vetted {
        WEAPONS.with_borrow_mut(|weapons| {
            let made = weapons.entry((kind, hostile, whom));
            made.or_insert_with(|| self.make_weapon(kind, hostile, whom)).clone()
        })
    }

    fn make_weapon(&self, kind: u8, hostile: u8, whom: u8) -> Vetted {
        let author = self.who(hostile, (whom / ACCOUNTS) % DEVICES);
        let victim = self.who(whom % ACCOUNTS, 0);
        let mut records = RosterRecords {
            version: proto::wire::VERSION,
            grid: self.grid,
            members: Vec::new(),
            devices: Vec::new(),
            removals: Vec::new(),
            words: Vec::new(),
        };
        let seq = [0, 1, 2, u64::MAX][usize::from(whom / 64)];
        match kind {
            9 | 10 => records.members.push(self.admission(author, victim)),
            11 | 12 => {
                let removal = Removal {
                    heard: u64::from(whom / 16),
                    ..Removal::of(victim.account(), seq, kind == 11)
                };
                records
                    .removals
                    .push(removal.signed(author.speaker(), self.grid).encode());
            }
            13 => records.devices.push(self.device(author, seq)),
            _ => {
                let mut word = AccountWord::first(author.account());
                word.seq = seq;
                deeds::leave(&mut word, self.grid, kind == 14);
                records.words.push(word.signed(&author.words).encode());
            }
        }
        Roster::empty(self.grid).vet(&records)
    }
}
