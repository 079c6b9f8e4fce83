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
    let newest = newest
        .into_values()
        .max_by_key(|(_, body)| body.snapshot.as_ref().map(|snapshot| snapshot.time_ns));
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
