//! The heads that peers hold, as lines to be followed: of each device the newest first, and who served an older or another one.
//!
//! What a revoked device signed may be a thief's. Its heads come last, the oldest first, each a line of its own: whatever it says
//! later hides nothing that it said before.

use std::collections::{BTreeMap, BTreeSet};

use proto::head::Head;
use proto::id::{DeviceId, HeadHash};
use proto::wire::word::AccountWord;

use super::old::OldHead;
use crate::heads::{Looked, OpenHead};

/// What the peers' heads amount to.
pub(super) struct Heads {
    /// The lines, that with the newest snapshot first. Their order decides which one the catalog goes on from.
    pub(super) lines: Vec<Line>,
    pub(super) peers_answered: usize,
    /// Names of peers whose answer was not believed or is not the newest, with what was wrong.
    pub(super) peers_bad: Vec<(String, String)>,
}

/// Heads of one device, of which the first that can be read counts: the newest first.
pub(super) struct Line {
    pub(super) device: DeviceId,
    pub(super) candidates: Vec<OpenHead>,
    /// For how many days at least, if it is a head that a device signed before it was revoked, and replaced since.
    pub(super) age_days: Option<u16>,
}

/// Sorts what peers answered. `known` are heads that are known without them.
pub(super) fn sort(looked: &[Looked], known: &[OpenHead]) -> Heads {
    let mut peers_bad = Vec::new();
    let mut served: BTreeMap<DeviceId, Vec<OpenHead>> = BTreeMap::new();
    for answered in looked {
        match &answered.heads {
            Ok(heads) => {
                let wrong = heads.iter().filter_map(|head| head.as_ref().err());
                peers_bad.extend(wrong.map(|reason| (answered.name.clone(), reason.clone())));
            }
            Err(error) => tracing::warn!("{} was asked for the newest backup: {error}", answered.name),
        }
        for open in answered.sound() {
            served.entry(open.head.device()).or_default().push(open.clone());
        }
    }
    let mut lines: Vec<Line> = served.into_values().flat_map(lines_of).collect();
    for answered in looked {
        peers_bad.extend(answered.sound().filter_map(|open| {
            let best = lines.iter().find(|line| line.device == open.head.device())?;
            Some((
                answered.name.clone(),
                what_is_wrong(&open.head, &best.candidates.first()?.head)?,
            ))
        }));
    }
    // Of two that know the same newest snapshot, the one of the newer device: it went on from the other.
    lines.sort_by_key(|line| {
        let newest = line.candidates.first();
        std::cmp::Reverse(newest.map(|open| (open.made_ns(), open.head.cert.issued_secs)))
    });
    let is_served = |open: &&OpenHead| !lines.iter().any(|line| line.candidates.contains(open));
    let unserved: Vec<Line> = known.iter().filter(is_served).map(line_of_one).collect();
    lines.extend(unserved);
    Heads {
        lines,
        peers_answered: looked.iter().filter(|looked| looked.heads.is_ok()).count(),
        peers_bad,
    }
}

/// One line, and one for each further head with the number of the newest: two writers have signed it.
fn lines_of(mut heads: Vec<OpenHead>) -> Vec<Line> {
    let newest_first = |open: &OpenHead| std::cmp::Reverse((open.head.seq, open.made_ns(), open.hash));
    heads.sort_by_key(newest_first);
    heads.dedup_by_key(|open| open.hash);
    let Some(newest) = heads.first().map(|open| open.head.seq) else {
        return Vec::new();
    };
    let is_fork = |number: usize, open: &OpenHead| number > 0 && open.head.seq == newest;
    let forks: Vec<Line> = heads
        .iter()
        .enumerate()
        .filter(|(number, open)| is_fork(*number, open))
        .map(|(_, open)| line_of_one(open))
        .collect();
    let candidates = heads
        .into_iter()
        .enumerate()
        .filter(|(number, open)| !is_fork(*number, open));
    let candidates: Vec<OpenHead> = candidates.map(|(_, open)| open).collect();
    let main = candidates.first().map(|open| open.head.device()).map(|device| Line {
        device,
        candidates,
        age_days: None,
    });
    main.into_iter().chain(forks).collect()
}

fn line_of_one(open: &OpenHead) -> Line {
    Line {
        device: open.head.device(),
        candidates: vec![open.clone()],
        age_days: None,
    }
}

/// Takes the lines of devices out that their account revoked.
pub(super) fn take_revoked(lines: &mut Vec<Line>, word: Option<&AccountWord>, own: Option<DeviceId>) -> Vec<Line> {
    let Some(word) = word else { return Vec::new() };
    let is_revoked = |line: &Line| {
        let newest = line.candidates.first();
        newest.is_some_and(|open| !word.trusts(&open.head.cert)) && own != Some(line.device)
    };
    let (revoked, others) = std::mem::take(lines).into_iter().partition(is_revoked);
    *lines = others;
    revoked
}

/// All that is reachable of revoked devices, as lines to be merged one after the other: of each device and day the first head, from
/// the oldest on, then those that it signed last. Days are those of holders: no date that the device wrote itself orders anything.
pub(super) fn all_of(revoked: Vec<Line>, old: &[OldHead]) -> Vec<Line> {
    let devices: BTreeSet<DeviceId> = revoked.iter().map(|line| line.device).collect();
    let mut days: BTreeMap<(std::cmp::Reverse<u16>, DeviceId), &OpenHead> = BTreeMap::new();
    for OldHead { open, age_days } in old.iter().filter(|old| devices.contains(&old.open.head.device())) {
        let day = (std::cmp::Reverse(*age_days), open.head.device());
        // Peers' days begin at different hours. Stores refuse lower numbers than they know: the lowest is the device's earliest.
        let first = days.entry(day).or_insert(open);
        if (open.head.seq, open.hash) < (first.head.seq, first.hash) {
            *first = open;
        }
    }
    let is_newest = |open: &OpenHead| revoked.iter().any(|line| line.candidates.first() == Some(open));
    let days = days.into_iter().filter(|(_, open)| !is_newest(open));
    let days = days.map(|((age_days, _), open)| Line {
        age_days: Some(age_days.0),
        ..line_of_one(open)
    });
    let mut lines: Vec<Line> = days.collect();
    lines.extend(revoked);
    lines
}

/// Of revoked devices' lines, and of the heads in them, only what says that it was made before `before_ns`.
pub(super) fn all_before(mut lines: Vec<Line>, before_ns: i64) -> Vec<Line> {
    let is_before = |open: &OpenHead| open.made_ns().is_some_and(|made_ns| made_ns < before_ns);
    for line in &mut lines {
        line.candidates.retain(is_before);
    }
    lines.retain(|line| !line.candidates.is_empty());
    lines
}

fn what_is_wrong(head: &Head, best: &Head) -> Option<String> {
    if head.seq < best.seq {
        return Some(format!(
            "Its newest head is {}, others have {}: it was away, or went back",
            head.seq, best.seq
        ));
    }
    (head != best).then(|| format!("It has another head {} than others: two writers, or forged", head.seq))
}

/// Of lines, and of the heads that peers replaced, only what was made before `before_ns`: the way round a head that a thief
/// has posted.
pub(super) fn before<'a>(lines: Vec<Line>, old: impl Iterator<Item = &'a OldHead>, before_ns: i64) -> Vec<Line> {
    let mut all: BTreeMap<DeviceId, Vec<OpenHead>> = BTreeMap::new();
    let old = old.map(|old| old.open.clone());
    for open in lines.into_iter().flat_map(|line| line.candidates).chain(old) {
        if open.made_ns().is_some_and(|made_ns| made_ns < before_ns) {
            all.entry(open.head.device()).or_default().push(open);
        }
    }
    let mut lines: Vec<Line> = all
        .into_iter()
        .map(|(device, mut candidates)| {
            candidates.sort_by_key(|open| std::cmp::Reverse((open.made_ns(), open.head.seq)));
            candidates.dedup_by_key(|open| open.hash);
            Line {
                device,
                candidates,
                age_days: None,
            }
        })
        .collect();
    lines.sort_by_key(|line| std::cmp::Reverse(line.candidates.first().map(|open| (open.made_ns(), open.head.seq))));
    lines
}

/// The candidates of `device` among `old` that are older than `than`, newest first.
pub(super) fn older(old: &[OldHead], device: DeviceId, than: u64, tried: &[HeadHash]) -> Vec<OpenHead> {
    let mut older: Vec<OpenHead> = old
        .iter()
        .map(|old| &old.open)
        .filter(|open| open.head.device() == device && open.head.seq <= than && !tried.contains(&open.hash))
        .cloned()
        .collect();
    older.sort_by_key(|open| std::cmp::Reverse(open.head.seq));
    older.dedup_by_key(|open| open.hash);
    older
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::SigningKey;
    use proto::head::{HeadBody, SEQ_MAX};
    use proto::id::SnapshotId;
    use proto::keys::{AccountKeys, DeviceCert, power, words_key};
    use proto::log_record::SnapshotRecord;
    use proto::phrase::Seed;
    use upload_queue::peers::PeerKey;

    use super::*;

    fn head(keys: &AccountKeys, device: u8, seq: u64, made_ns: Option<i64>) -> OpenHead {
        let key = SigningKey::from_bytes(&[device; 32]);
        let id = DeviceId(key.verifying_key().to_bytes());
        let words = words_key(&Seed([1; 32]));
        let cert = DeviceCert::sign(&words, id, power::ALL, "device", device.into());
        let snapshot = made_ns.map(|time_ns| SnapshotRecord {
            seq,
            id: SnapshotId([0; 16]),
            time_ns,
            parent: None,
            source_roots: Vec::new(),
            files: 0,
            bytes: 0,
        });
        let body = HeadBody {
            root: None,
            snapshot,
            disks: None,
        };
        let head = Head::sign(&key, &cert, seq, [0; 32], &body, &keys.put, [9; 32]).unwrap();
        OpenHead::open(&head.encode(), keys).unwrap()
    }

    fn looked(name: &str, heads: Vec<OpenHead>) -> Looked {
        Looked {
            peer: PeerKey(name.to_owned()),
            name: name.to_owned(),
            domain: name.to_owned(),
            heads: Ok(heads.into_iter().map(Ok).collect()),
        }
    }

    fn numbers(lines: &[Line]) -> Vec<Vec<u64>> {
        let numbers = lines
            .iter()
            .map(|line| line.candidates.iter().map(|open| open.head.seq).collect());
        numbers.collect()
    }

    #[test]
    fn a_head_that_a_thief_posted_is_gone_round() {
        let keys = AccountKeys::from_seed(&Seed([1; 32]));
        let lines = || sort(&[looked("peer", vec![head(&keys, 1, 9, None)])], &[]).lines;
        let old = [(7, 1_000), (6, 900)].map(|(seq, made_ns)| OldHead {
            open: head(&keys, 1, seq, Some(made_ns)),
            age_days: 1,
        });
        let seqs = |before_ns| numbers(&before(lines(), old.iter(), before_ns)).concat();
        assert_eq!([seqs(2_000), seqs(1_000), seqs(900)], [vec![7, 6], vec![6], vec![]]);
    }

    #[test]
    fn of_devices_that_know_the_same_snapshot_the_newer_one_is_believed() {
        let keys = AccountKeys::from_seed(&Seed([1; 32]));
        for devices in [[1, 2], [2, 1]] {
            let heads = devices.map(|device| head(&keys, device, 1, Some(1_000))).to_vec();
            let lines = sort(&[looked("peer", heads)], &[]).lines;
            assert_eq!(lines[0].candidates[0].head.cert.issued_secs, 2);
            assert_eq!(lines.len(), 2, "the other device is not forgotten");
        }
    }

    #[test]
    fn every_head_of_a_device_is_a_candidate_and_each_fork_a_line_of_its_own() {
        let keys = AccountKeys::from_seed(&Seed([1; 32]));
        let (fork, newest) = (head(&keys, 1, 7, Some(800)), head(&keys, 1, 7, Some(900)));
        let heads = [
            looked("a", vec![newest.clone()]),
            looked("b", vec![head(&keys, 1, 5, Some(500))]),
            looked("c", vec![fork.clone()]),
            looked("d", vec![newest.clone()]),
        ];
        let own = head(&keys, 1, 6, Some(600));
        let sorted = sort(&heads, &[own, newest.clone()]);
        assert_eq!(numbers(&sorted.lines), [vec![7, 5], vec![7], vec![6]]);
        assert_eq!(sorted.lines[0].candidates[0], newest);
        assert_eq!(sorted.lines[1].candidates[0], fork);
        let bad: Vec<&str> = sorted.peers_bad.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(bad, ["b", "c"]);
    }

    /// A thief of device 1 signs with whatever dates and numbers he likes, since two days; device 2 goes on.
    #[test]
    fn a_revoked_device_s_heads_come_last_and_the_oldest_of_them_first() {
        let keys = AccountKeys::from_seed(&Seed([1; 32]));
        let (thief, other) = (head(&keys, 1, SEQ_MAX, Some(i64::MAX)), head(&keys, 2, 3, Some(500)));
        let mut lines = sort(&[looked("peer", vec![thief.clone(), other.clone()])], &[]).lines;
        let word = AccountWord {
            revoked: vec![thief.head.device()],
            ..AccountWord::first(keys.account_id())
        };
        let old = |age_days, seq, made_ns| OldHead {
            open: head(&keys, 1, seq, Some(made_ns)),
            age_days,
        };
        let stolen = [
            old(1, 70, 1),
            old(2, 60, 350),
            old(2, 40, 400),
            old(9, 20, 200),
            old(30, 10, 100),
        ];
        let revoked = take_revoked(&mut lines, Some(&word), None);
        assert_eq!(numbers(&lines), [[3]]);
        let all = all_of(revoked, &stolen);
        let expected: [(Option<u16>, u64); 5] = [
            (Some(30), 10),
            (Some(9), 20),
            (Some(2), 40),
            (Some(1), 70),
            (None, SEQ_MAX),
        ];
        let found = all.iter().map(|line| (line.age_days, line.candidates[0].head.seq));
        assert!(found.eq(expected), "{:?}", numbers(&all));
        assert_eq!(numbers(&all_before(all, 350)).concat(), [10, 20, 70]);
        // A home goes on from its own numbers, whatever its account says.
        let mut lines = sort(&[looked("peer", vec![thief.clone()])], &[]).lines;
        assert!(take_revoked(&mut lines, Some(&word), Some(thief.head.device())).is_empty());
        assert_eq!(lines.len(), 1);
    }
}
