//! Heads at a friend's node, as a thief with a device of the account fills them, and one with its words.

use std::collections::BTreeMap;

use bytes::Bytes;
use proto::head::Head;
use proto::id::DeviceId;
use proto::share_store::{HeadPlace, OLD_HEADS_MAX};
use stores::folder::TRASH_DAYS;

use super::*;
use crate::share::remote::RemoteStore;

/// All heads that were replaced, with their ages, and how many answers it took.
async fn old_heads(store: &dyn HeadStore, of: &Fixture) -> (BTreeMap<Bytes, u16>, usize) {
    let (mut all, mut after, mut batches) = (BTreeMap::new(), None::<HeadPlace>, 0);
    loop {
        let batch = store.old_heads(of.account(), after).await.unwrap();
        assert!(batch.heads.len() <= OLD_HEADS_MAX && batch.next.is_none_or(|next| Some(next) > after));
        all.extend(batch.heads.into_iter().map(|head| (head.encoded, head.age_days)));
        batches += 1;
        after = batch.next;
        if after.is_none() {
            return (all, batches);
        }
    }
}

fn device(head: &Bytes) -> DeviceId {
    Head::decode(head).unwrap().device()
}

/// Restarts a node some days later, as its store counts.
async fn days_later(node: TestNode, number: u8, days: u64) -> TestNode {
    let TestNode { net, fixture, home } = node;
    net.stop();
    drop(net);
    let file = home.path().join("store/gridbackup-days");
    let text = std::fs::read_to_string(&file).unwrap();
    let counted = text
        .lines()
        .find_map(|line| line.strip_prefix("counted_secs "))
        .unwrap();
    let later = counted.parse::<u64>().unwrap() + days * 86_400;
    std::fs::write(&file, text.replacen(counted, &later.to_string(), 1)).unwrap();
    let net = start(home.path(), &fixture, number).await;
    TestNode { net, fixture, home }
}

/// The holder's store, as soon as it can be reached.
async fn reach(bob: &TestNode, ada: &TestNode) -> RemoteStore {
    let reaching = async {
        loop {
            for address in ada.net.shared.core.links.listening() {
                bob.net.hint(ada.net.device(), address);
            }
            let store = bob.net.peer(ada.net.device());
            if store.space().await.is_ok() {
                return store;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), reaching).await.unwrap()
}

/// With a stolen machine's key as many heads as he likes, for a month, and every head that he ever saw again: after one day
/// `recover --before` found nothing any more, and a new machine's head was refused.
#[tokio::test(flavor = "multi_thread")]
async fn a_month_of_a_thief_s_heads_hides_no_head_of_before_and_takes_nobody_s_place() {
    let (mut ada, bob) = friends().await;
    let mut store = reach(&bob, &ada).await;
    let (laptop, desktop) = (bob.fixture.head(1), bob.fixture.second_head(1));
    store.put_head(laptop.clone()).await.unwrap();
    store.put_head(desktop.clone()).await.unwrap();
    let mut seen = vec![laptop.clone()];
    for day in 0..u64::from(TRASH_DAYS) {
        for number in 0..3 {
            let head = bob.fixture.head(10 + 3 * day + number);
            store.put_head(head.clone()).await.unwrap();
            seen.push(head);
        }
        for head in &seen[..seen.len() - 1] {
            let replayed = store.put_head(head.clone()).await;
            assert!(matches!(replayed, Err(StoreError::Refused { .. })), "{replayed:?}");
        }
        store.put_head(bob.fixture.second_head(2 + day)).await.unwrap();
        ada = days_later(ada, 1, 1).await;
        ada.net.expire();
        store = reach(&bob, &ada).await;
    }
    store
        .put_head(bob.fixture.head_of(3, 1))
        .await
        .expect("a new machine of the owner");
    let (old, batches) = old_heads(&store, &bob.fixture).await;
    assert!(batches <= 2, "{batches}");
    for (head, whose) in [(&laptop, "the stolen machine"), (&desktop, "the other one")] {
        assert_eq!(old.get(head).copied(), Some(TRASH_DAYS as u16), "{whose}");
        let of_device = old.keys().filter(|old| device(old) == device(head));
        assert_eq!(of_device.count(), TRASH_DAYS as usize, "one a day of {whose}");
    }
    assert_eq!(store.heads(bob.fixture.account()).await.unwrap().len(), 3);
    // And then it is over.
    let ada = days_later(ada, 1, 1).await;
    ada.net.expire();
    let (old, _) = old_heads(&reach(&bob, &ada).await, &bob.fixture).await;
    assert!(
        !old.contains_key(&laptop) && !old.contains_key(&desktop),
        "a month is over"
    );
}

/// Sixty-three invented devices filled all places for ever. Only the words make devices now; whoever has them floods the account itself.
#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_invented_devices_take_no_place_that_a_new_one_needs_and_hide_nothing() {
    let (ada, bob) = friends().await;
    let store = reach(&bob, &ada).await;
    let (laptop, account) = (bob.fixture.head(1), bob.fixture.account());
    store.put_head(laptop.clone()).await.unwrap();
    for invented in 0..200 {
        store.put_head(bob.fixture.head_of(invented, 1)).await.unwrap();
    }
    let desktop = bob.fixture.second_head(1);
    store
        .put_head(desktop.clone())
        .await
        .expect("a new machine of the owner");
    store.put_head(bob.fixture.head(2)).await.expect("an old one");
    let newest = store.heads(account).await.unwrap();
    assert!(newest.len() <= 64 && newest.contains(&desktop) && newest.contains(&bob.fixture.head(2)));
    let (old, batches) = old_heads(&store, &bob.fixture).await;
    assert!(old.contains_key(&laptop) && batches > 1, "{} in {batches}", old.len());
    // All that the account ever signed is in one place or the other.
    let all = (0..200).map(|invented| bob.fixture.head_of(invented, 1));
    assert_eq!(
        all.filter(|head| !newest.contains(head) && !old.contains_key(head))
            .count(),
        0
    );

    // Revoked ones are refused by whoever has heard, and give way first.
    let mut word = bob.net.roster().next_word(account);
    for invented in 180..200 {
        assert!(deeds::revoke(&mut word, device(&bob.fixture.head_of(invented, 1))));
    }
    let word = word.signed(bob.fixture.words());
    assert!(
        bob.net
            .say(word.clone(), &std::collections::BTreeSet::new())
            .unwrap()
            .is_some()
    );
    eventually("Ada hears of it", || ada.net.roster().word(account) == Some(&word)).await;
    let refused = store.put_head(bob.fixture.head_of(190, 2)).await;
    assert!(matches!(refused, Err(StoreError::Refused { .. })), "{refused:?}");
    let before = store.heads(account).await.unwrap();
    for new in 300..320 {
        store.put_head(bob.fixture.head_of(new, 1)).await.unwrap();
    }
    let newest = store.heads(account).await.unwrap();
    let gone = before.iter().filter(|head| !newest.contains(head));
    let gone: Vec<DeviceId> = gone.map(device).collect();
    assert!(
        gone.len() == 20 && gone.iter().all(|device| word.revoked.contains(device)),
        "{gone:?}"
    );
}
