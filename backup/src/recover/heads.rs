//! The heads that peers hold: which one to believe, and who served an older or another one.

use std::collections::BTreeMap;

use proto::head::{Head, HeadBody};
use proto::id::DeviceId;
use proto::keys::{AccountKeys, power};
use upload_queue::peers::Peer;

/// What the peers' heads amount to.
pub(super) struct Heads {
    /// The head to recover from; `None` if no peer has a valid one.
    pub(super) newest: Option<(Head, HeadBody)>,
    pub(super) peers_answered: usize,
    /// Names of peers whose answer was not believed or is not the newest, with what was wrong.
    pub(super) peers_bad: Vec<(String, String)>,
}

/// Asks every peer at once for all heads that it has, replaced ones too, and takes the one with the newest snapshot made
/// before `before_ns`: the way round a head that a thief has published.
pub(super) async fn ask_before(peers: &[Peer], keys: &AccountKeys, before_ns: i64) -> Heads {
    let account = keys.account_id();
    let answers = peers.iter().map(|peer| async move {
        let (newest, old) = (peer.store.heads(account).await, peer.store.old_heads(account).await);
        (peer.name.clone(), newest, old)
    });
    let (mut peers_answered, mut candidates) = (0, Vec::new());
    for (name, newest, old) in futures::future::join_all(answers).await {
        peers_answered += usize::from(newest.is_ok());
        for heads in [newest, old] {
            match heads {
                Ok(heads) => candidates.extend(heads),
                Err(error) => tracing::warn!("{name} was asked for older backups: {error}"),
            }
        }
    }
    candidates.sort_unstable();
    candidates.dedup();
    Heads {
        newest: newest_before(&candidates, keys, before_ns),
        peers_answered,
        peers_bad: Vec::new(),
    }
}

fn newest_before<B: AsRef<[u8]>>(heads: &[B], keys: &AccountKeys, before_ns: i64) -> Option<(Head, HeadBody)> {
    let valid = heads.iter().filter_map(|head| valid(head.as_ref(), keys).ok());
    let opened = valid.filter_map(|head| Some((head.open(&keys.read).ok()?, head)));
    let made_ns = |body: &HeadBody| body.snapshot.as_ref().map(|snapshot| snapshot.time_ns);
    let before = opened.filter(|(body, _)| made_ns(body).is_some_and(|made| made < before_ns));
    let newest = before.max_by_key(|(body, head)| (made_ns(body), head.seq));
    newest.map(|(body, head)| (head, body))
}

/// Asks every peer at once.
pub(super) async fn ask(peers: &[Peer], keys: &AccountKeys) -> Heads {
    let account = keys.account_id();
    let answers = peers
        .iter()
        .map(|peer| async move { (peer.name.clone(), peer.store.heads(account).await) });
    let mut answered = Vec::new();
    for (name, answer) in futures::future::join_all(answers).await {
        match answer {
            Ok(heads) => answered.push((name, heads)),
            Err(error) => tracing::warn!("{name} was asked for the newest backup: {error}"),
        }
    }
    choose(&answered, keys)
}

/// Takes the head with the highest number of each device, and of those the one with the newest snapshot.
fn choose<B: AsRef<[u8]>>(answered: &[(String, Vec<B>)], keys: &AccountKeys) -> Heads {
    let mut peers_bad = Vec::new();
    let mut served: Vec<(&str, Head)> = Vec::new();
    for (name, heads) in answered {
        for encoded in heads {
            match valid(encoded.as_ref(), keys) {
                Ok(head) => served.push((name, head)),
                Err(reason) => peers_bad.push((name.clone(), reason)),
            }
        }
    }
    let mut newest: BTreeMap<DeviceId, (Head, HeadBody)> = BTreeMap::new();
    for (name, head) in &served {
        if newest.get(&head.device()).is_some_and(|(best, _)| best.seq >= head.seq) {
            continue;
        }
        match head.open(&keys.read) {
            Ok(body) => {
                newest.insert(head.device(), (head.clone(), body));
            }
            Err(error) => peers_bad.push((
                (*name).to_owned(),
                format!("Its head {} is not valid: {error}", head.seq),
            )),
        }
    }
    for (name, head) in &served {
        let Some((best, _)) = newest.get(&head.device()) else {
            continue;
        };
        if head.seq < best.seq {
            let text = format!(
                "Its newest head is {}, others have {}: it was away, or went back",
                head.seq, best.seq
            );
            peers_bad.push(((*name).to_owned(), text));
        } else if head != best {
            let text = format!("It has another head {} than others: two writers, or forged", head.seq);
            peers_bad.push(((*name).to_owned(), text));
        }
    }
    // Of two that know the same newest snapshot, the one of the newer device: it went on from the other.
    let newest = newest.into_values().max_by_key(|(head, body)| {
        let made_ns = body.snapshot.as_ref().map(|snapshot| snapshot.time_ns);
        (made_ns, head.cert.issued_secs)
    });
    Heads {
        newest,
        peers_answered: answered.len(),
        peers_bad,
    }
}

fn valid(encoded: &[u8], keys: &AccountKeys) -> Result<Head, String> {
    let head = Head::decode(encoded).map_err(|error| format!("Its head is not valid: {error}"))?;
    if head.account() != keys.account_id() {
        return Err("Its head belongs to another account".to_owned());
    }
    if head.cert.powers & power::PUT == 0 {
        return Err("Its head is signed by a device that may not write".to_owned());
    }
    Ok(head)
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::SigningKey;
    use proto::id::SnapshotId;
    use proto::keys::DeviceCert;
    use proto::log_record::SnapshotRecord;
    use proto::phrase::Seed;

    use super::*;

    fn head(keys: &AccountKeys, device: u8, seq: u64, made_ns: Option<i64>) -> Vec<u8> {
        let key = SigningKey::from_bytes(&[device; 32]);
        let id = DeviceId(key.verifying_key().to_bytes());
        let cert = DeviceCert::sign(&keys.signing, id, power::ALL, "device", device.into());
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
        Head::sign(&key, &cert, seq, [0; 32], &body, &keys.put, [9; 32])
            .unwrap()
            .encode()
    }

    #[test]
    fn a_head_that_a_thief_published_is_gone_round() {
        let keys = AccountKeys::from_seed(&Seed([1; 32]));
        let heads = [
            head(&keys, 1, 7, Some(1_000)),
            head(&keys, 1, 6, Some(900)),
            head(&keys, 1, 9, None),
        ];
        let seq = |before_ns| newest_before(&heads, &keys, before_ns).map(|(head, _)| head.seq);
        assert_eq!([seq(2_000), seq(1_000), seq(900)], [Some(7), Some(6), None]);
    }

    #[test]
    fn of_devices_that_know_the_same_snapshot_the_newer_one_is_believed() {
        let keys = AccountKeys::from_seed(&Seed([1; 32]));
        for devices in [[1, 2], [2, 1]] {
            let heads = devices.map(|device| head(&keys, device, 1, Some(1_000))).to_vec();
            let newest = choose(&[("peer".to_owned(), heads)], &keys).newest;
            assert_eq!(newest.map(|(head, _)| head.cert.issued_secs), Some(2));
        }
    }
}
