//! The heads that peers hold, as lines to be followed: of each device the newest first, and who served an older or another one.

use std::collections::BTreeMap;

use proto::head::Head;
use proto::id::{DeviceId, HeadHash};
use proto::keys::AccountKeys;
use proto::share_store::StoreError;
use upload_queue::peers::Peer;

use super::PATIENCE;
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
}

/// Heads that peers replaced, as far back as they keep them, newest first.
pub(super) async fn ask_old(peers: &[Peer], keys: &AccountKeys) -> Vec<OpenHead> {
    let account = keys.account_id();
    let answers = peers.iter().map(|peer| async move {
        let answer = tokio::time::timeout(PATIENCE, peer.store.old_heads(account)).await;
        let late = StoreError::Unreachable {
            reason: "no answer in time".to_owned(),
        };
        (peer.name.clone(), answer.unwrap_or(Err(late)))
    });
    let mut old = Vec::new();
    for (name, answer) in futures::future::join_all(answers).await {
        match answer {
            Ok(heads) => old.extend(heads.iter().filter_map(|head| OpenHead::open(head, keys).ok())),
            Err(error) => tracing::warn!("{name} was asked for older backups: {error}"),
        }
    }
    old
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
    let main = candidates
        .first()
        .map(|open| open.head.device())
        .map(|device| Line { device, candidates });
    main.into_iter().chain(forks).collect()
}

fn line_of_one(open: &OpenHead) -> Line {
    Line {
        device: open.head.device(),
        candidates: vec![open.clone()],
    }
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
/// has published.
pub(super) fn before(lines: Vec<Line>, old: Vec<OpenHead>, before_ns: i64) -> Vec<Line> {
    let mut all: BTreeMap<DeviceId, Vec<OpenHead>> = BTreeMap::new();
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
            Line { device, candidates }
        })
        .collect();
    lines.sort_by_key(|line| std::cmp::Reverse(line.candidates.first().map(|open| (open.made_ns(), open.head.seq))));
    lines
}

/// The candidates of `device` among `old` that are older than `than`, newest first.
pub(super) fn older(old: &[OpenHead], device: DeviceId, than: u64, tried: &[HeadHash]) -> Vec<OpenHead> {
    let mut older: Vec<OpenHead> = old
        .iter()
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
    use proto::head::HeadBody;
    use proto::id::SnapshotId;
    use proto::keys::{DeviceCert, power, words_key};
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
            roots: Vec::new(),
            files: 0,
            bytes: 0,
        });
        let body = HeadBody { root: None, snapshot };
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
    fn a_head_that_a_thief_published_is_gone_round() {
        let keys = AccountKeys::from_seed(&Seed([1; 32]));
        let lines = || sort(&[looked("peer", vec![head(&keys, 1, 9, None)])], &[]).lines;
        let old = || vec![head(&keys, 1, 7, Some(1_000)), head(&keys, 1, 6, Some(900))];
        let seqs = |before_ns| numbers(&before(lines(), old(), before_ns)).concat();
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
}
