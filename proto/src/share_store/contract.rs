//! One suite that every `ShareStore` must pass, and the shares and heads that it takes.
//!
//! It needs no runtime and no clock: any executor can drive it. It asks for nothing that a bucket or a plain folder
//! could not do, and leaves open what stores do differently: whether removed bytes are freed at once or kept in a
//! trash, whether there are receipts, and what an empty range returns.

use bytes::Bytes;
use ed25519_dalek::SigningKey;

use super::{PeerStore, StoreError};
use crate::head::{Head, HeadBody};
use crate::id::{AccountId, DeviceId, ShareId, VolumeId};
use crate::keep_days::KeepDays;
use crate::keys::{AccountKeys, DeviceCert, power, words_key};
use crate::manifest::Manifest;
use crate::pack;
use crate::pack::PackKey;
use crate::phrase::Seed;
use crate::promise::Promise;
use crate::shape::PackShape;
use crate::shape::ShareSize;
use crate::share::Share;

pub mod promises;

/// Shares, heads and claims of one made-up account, the same for the same number.
pub struct Fixture {
    keys: AccountKeys,
    words: SigningKey,
    number: u64,
    shares: Vec<(ShareId, Share)>,
}

impl Fixture {
    /// Shape of its pack: small, and with more shares than a batch of a listing in the suite.
    pub const SHAPE: PackShape = PackShape {
        k: 2,
        n: 5,
        share: ShareSize::Small,
    };

    /// The fixture of that number.
    pub fn new(number: u64) -> Self {
        let seed = Seed(derive(number, "seed"));
        let (keys, words) = (AccountKeys::from_seed(&seed), words_key(&seed));
        let pack_key = PackKey(derive(number, "pack key"));
        let sealed = pack::seal(&pack_key, Self::SHAPE, format!("fixture {number}").as_bytes());
        let device = device(number, "device");
        let manifest = Manifest::sign(
            pack_key.pack_id(),
            Self::SHAPE,
            sealed.ids.clone(),
            keys.account_id(),
            &device,
        );
        Self {
            shares: sealed.shares(&manifest),
            keys,
            words,
            number,
        }
    }

    /// The account.
    pub fn account(&self) -> AccountId {
        self.keys.account_id()
    }

    /// All keys of the account.
    pub fn keys(&self) -> &AccountKeys {
        &self.keys
    }

    /// The key of the account's words.
    pub fn words(&self) -> &SigningKey {
        &self.words
    }

    /// Share number `number`, from 0, of the pack.
    ///
    /// # Panics
    /// If the pack has fewer shares.
    pub fn share(&self, number: usize) -> (ShareId, Share) {
        self.shares[number].clone()
    }

    /// The share of another, tiny pack, kept for so many days after it was given up. The same number gives the same share, whatever
    /// its manifest says of days: what a thief with the device's key can make.
    pub fn kept_for(&self, number: u64, keep_days: KeepDays) -> (ShareId, Share) {
        let shape = PackShape {
            k: 1,
            n: 1,
            share: ShareSize::Tiny,
        };
        let key = PackKey(derive(self.number, &format!("key of tiny pack {number}")));
        let sealed = pack::seal(&key, shape, b"tiny");
        let device = device(self.number, "device");
        let account = self.account();
        let manifest = Manifest::sign_keeping(keep_days, key.pack_id(), shape, sealed.ids.clone(), account, &device);
        sealed.shares(&manifest).remove(0)
    }

    /// A head of the account's first device.
    pub fn head(&self, seq: u64) -> Bytes {
        self.sign_head("device", seq, [0; 32])
    }

    /// Another head of the first device with the same number: what a device makes that was rolled back.
    pub fn forked_head(&self, seq: u64) -> Bytes {
        self.sign_head("device", seq, [1; 32])
    }

    /// A head of the account's second device.
    pub fn second_head(&self, seq: u64) -> Bytes {
        self.sign_head("second device", seq, [0; 32])
    }

    /// A head of another device, which the words of the account have certified like the first two.
    pub fn head_of(&self, device: u64, seq: u64) -> Bytes {
        self.sign_head(&format!("device {device}"), seq, [0; 32])
    }

    /// A volume of the account.
    pub fn volume(&self, number: u64) -> VolumeId {
        let derived = derive(self.number, &format!("volume {number}"));
        VolumeId(*derived.first_chunk().expect("a volume's id is shorter"))
    }

    /// The first device's claim of an epoch of volume 0.
    pub fn claim(&self, counter: u64) -> Bytes {
        self.claim_of("device", self.volume(0), counter)
    }

    /// The second device's claim of an epoch of volume 0.
    pub fn second_claim(&self, counter: u64) -> Bytes {
        self.claim_of("second device", self.volume(0), counter)
    }

    /// A claim by the device of that name, which the words of the account have certified like all others.
    pub fn claim_of(&self, purpose: &str, volume: VolumeId, counter: u64) -> Bytes {
        let device = device(self.number, purpose);
        let claim = Promise::sign(&device, &self.cert(purpose, &device), volume, counter);
        claim.expect("a fixture's claim is within its limits").encode().into()
    }

    fn cert(&self, purpose: &str, device: &SigningKey) -> DeviceCert {
        let device_id = DeviceId(device.verifying_key().to_bytes());
        DeviceCert::sign(&self.words, device_id, power::ALL, purpose, 0)
    }

    fn sign_head(&self, purpose: &str, seq: u64, previous: [u8; 32]) -> Bytes {
        let device = device(self.number, purpose);
        let cert = self.cert(purpose, &device);
        let body = HeadBody {
            root: None,
            snapshot: None,
            disks: None,
        };
        // One ephemeral key for all: nothing secret is in a fixture, and its heads must be the same every time.
        let ephemeral = derive(self.number, "ephemeral");
        let head = Head::sign(&device, &cert, seq, previous, &body, &self.keys.put, ephemeral);
        head.expect("a fixture's head is within its limits").encode().into()
    }
}

fn device(number: u64, purpose: &str) -> SigningKey {
    SigningKey::from_bytes(&derive(number, purpose))
}

fn derive(number: u64, purpose: &str) -> [u8; 32] {
    blake3::Hasher::new_derive_key("gridbackup 2026 test fixture")
        .update(&number.to_le_bytes())
        .update(purpose.as_bytes())
        .finalize()
        .into()
}

/// Checks all that callers rely on. `store` must be empty; what the suite put there stays.
///
/// # Panics
/// With the claim that does not hold.
pub async fn check_share_store(store: &dyn PeerStore, fixture: &Fixture) {
    check_empty(store, fixture).await;
    check_put_and_get(store, fixture).await;
    check_wrong_shares(store, fixture).await;
    check_list(store, fixture).await;
    check_remove(store, fixture).await;
    check_heads(store, fixture).await;
    check_wrong_heads(store, fixture).await;
}

/// Checks how long what was given up stays: as long as the manifest said with which a share came first, whatever comes later.
/// `store` must be empty and keep a trash; `pass_days` counts so many days for it, and has it look through its trash.
///
/// # Panics
/// With the claim that does not hold.
pub async fn check_keep_days(store: &dyn PeerStore, fixture: &Fixture, pass_days: impl AsyncFn(u32)) {
    let keep = |days: u8| KeepDays::new(days).expect("a store keeps nothing for longer");
    let of = |days: u8| fixture.kept_for(days.into(), keep(days)).0;
    for days in [0, 2, 30] {
        let (id, share) = fixture.kept_for(days.into(), keep(days));
        store.put(id, share).await.expect("A share with keep days is put");
    }
    // A store that took the later manifest would let whoever has the device's key make all of its trash go at once.
    for days in [2, 30] {
        let (id, shorter) = fixture.kept_for(days, keep(0));
        store.put(id, shorter).await.expect("What is held is put again");
    }
    let mut all = [0, 2, 30].map(of);
    all.sort();
    assert_eq!(store.discard(all.to_vec()).await, Ok(3), "All three are given up");
    let (again, shorter) = fixture.kept_for(30, keep(0));
    store.put(again, shorter).await.expect("A share comes out of the trash");
    assert_eq!(store.discard(vec![again]).await, Ok(1), "and is given up once more");
    for (passed, day, there) in [
        (0, 0, &[0, 2, 30][..]),
        (1, 1, &[2, 30]),
        (2, 3, &[30]),
        (27, 30, &[30]),
        (1, 31, &[]),
    ] {
        pass_days(passed).await;
        let mut ids: Vec<ShareId> = there.iter().copied().map(of).collect();
        ids.sort();
        let trash = store.list_trash(None, 100).await;
        assert_eq!(
            trash.as_ref(),
            Ok(&ids),
            "On day {day} those are in the trash that have days left"
        );
        for days in [0, 2, 30] {
            let got = store.get(of(days), 0..1).await;
            assert_eq!(got.is_ok(), there.contains(&days), "{days} days, on day {day}: {got:?}");
        }
    }
    assert_eq!(
        store.list(None, 100).await,
        Ok(Vec::new()),
        "Nothing came back by itself"
    );
    assert_eq!(
        store.recall(all.to_vec()).await,
        Ok(Vec::new()),
        "What is gone is not recalled"
    );
}

async fn check_empty(store: &dyn PeerStore, fixture: &Fixture) {
    let (id, _) = fixture.share(0);
    assert_eq!(
        store.list(None, 100).await,
        Ok(Vec::new()),
        "The suite needs an empty store"
    );
    assert_eq!(
        store.get(id, 0..1).await,
        Err(StoreError::NotFound),
        "A share that was never put is not found"
    );
    assert_eq!(store.remove(id).await, Ok(()), "Removing what is not there succeeds");
    assert_eq!(
        store.heads(fixture.account()).await,
        Ok(Vec::new()),
        "An unknown account has no heads"
    );
}

async fn check_put_and_get(store: &dyn PeerStore, fixture: &Fixture) {
    let (id, share) = fixture.share(0);
    let stored_bytes = share.stored_bytes() as u64;
    let before = store.space().await.expect("Space can be asked");
    let ack = store.put(id, share.clone()).await.expect("A valid share is put");
    assert!(
        ack.bytes_sent >= stored_bytes,
        "The first put tells that all bytes were sent"
    );
    let after = store.space().await.expect("Space can be asked");
    assert!(
        after.used_bytes >= before.used_bytes + stored_bytes,
        "Used space grows by the stored form"
    );
    // Whether it shrinks, others who write and delete on the same disk decide, too.
    assert_eq!(
        before.free_bytes.is_some(),
        after.free_bytes.is_some(),
        "Free space is told before and after, or never"
    );
    let again = store
        .put(id, share.clone())
        .await
        .expect("The same share again succeeds");
    assert_eq!(again.bytes_sent, 0, "The same share again costs nothing");
    let used = store.space().await.expect("Space can be asked").used_bytes;
    assert_eq!(used, after.used_bytes, "The same share again takes no space");
    check_ranges(store, id, &share).await;
}

async fn check_ranges(store: &dyn PeerStore, id: ShareId, share: &Share) {
    let stored = [&share.data[..], &share.tail].concat();
    let data = share.data.len() as u32;
    let end = stored.len() as u32;
    let ranges = [
        (0..end, "the whole stored form"),
        (0..1, "the first byte"),
        (16_384..32_768, "a leaf in the middle"),
        (data - 1..data + 1, "a range across data and tail"),
        (data..end, "the tail"),
        (end - 1..end, "the last byte"),
    ];
    for (range, what) in ranges {
        let bytes = store.get(id, range.clone()).await;
        assert_eq!(
            bytes.as_deref(),
            Ok(&stored[range.start as usize..range.end as usize]),
            "Get returns {what}"
        );
    }
    for range in [0..end + 1, end..end + 1, end + 5..end + 9, u32::MAX - 1..u32::MAX] {
        let answer = store.get(id, range).await;
        assert_eq!(
            answer,
            Err(StoreError::OutOfRange),
            "A range that ends behind the share is out of range"
        );
    }
}

async fn check_wrong_shares(store: &dyn PeerStore, fixture: &Fixture) {
    let (id, share) = fixture.share(1);
    let (_, other) = fixture.share(2);
    let mut flipped = share.data.to_vec();
    flipped[100_000] ^= 1;
    let damaged = Share {
        data: flipped.into(),
        tail: share.tail.clone(),
    };
    let short = Share {
        data: share.data.slice(1..),
        tail: share.tail.clone(),
    };
    let mut flipped_tail = share.tail.to_vec();
    flipped_tail[0] ^= 1;
    let damaged_tail = Share {
        data: share.data.clone(),
        tail: flipped_tail.into(),
    };
    for (wrong, what) in [
        (other, "another share"),
        (damaged, "a share with a wrong bit"),
        (short, "a share that is too short"),
        (damaged_tail, "a share with a damaged tail"),
    ] {
        let answer = store.put(id, wrong).await;
        assert!(
            matches!(answer, Err(StoreError::Refused { .. })),
            "Put refuses {what}, and not: {answer:?}"
        );
        assert_eq!(
            store.get(id, 0..1).await,
            Err(StoreError::NotFound),
            "Nothing is left of a refused put"
        );
    }
}

async fn check_list(store: &dyn PeerStore, fixture: &Fixture) {
    let mut ids = Vec::new();
    for number in 0..Fixture::SHAPE.n.into() {
        let (id, share) = fixture.share(number);
        store.put(id, share).await.expect("A valid share is put");
        ids.push(id);
    }
    ids.sort();
    assert_eq!(
        store.list(None, 100).await.as_ref(),
        Ok(&ids),
        "List returns all ids, ascending"
    );
    let mut all = Vec::new();
    loop {
        let batch = store.list(all.last().copied(), 2).await.expect("A batch is listed");
        assert!(batch.len() <= 2, "A batch is not longer than its limit");
        if batch.is_empty() {
            break;
        }
        all.extend(batch);
        assert!(all.len() <= ids.len(), "Batches come to an end");
    }
    assert_eq!(all, ids, "Batches add up to the list");
    let mut between = ShareId([0; ShareId::LEN]);
    between.0[0] = ids[1].0[0];
    let expected: Vec<_> = ids.iter().copied().filter(|id| *id > between).collect();
    assert_eq!(
        store.list(Some(between), 100).await,
        Ok(expected),
        "`after` need not be an id that is there"
    );
}

async fn check_remove(store: &dyn PeerStore, fixture: &Fixture) {
    let (id, share) = fixture.share(3);
    for _ in 0..2 {
        assert_eq!(store.remove(id).await, Ok(()), "Removing succeeds, also again");
        let got = store.get(id, 0..1).await;
        let in_trash = got.as_deref() == Ok(&share.data[..1]);
        assert!(
            in_trash || got == Err(StoreError::NotFound),
            "A removed share is not found, or whole in the trash"
        );
        let listed = store.list(None, 100).await.expect("A batch is listed");
        assert!(!listed.contains(&id), "A removed share is not listed");
    }
    store
        .put(id, share.clone())
        .await
        .expect("A removed share can be put again");
    let bytes = store.get(id, 0..1).await;
    assert_eq!(
        bytes.as_deref(),
        Ok(&share.data[..1]),
        "A share that was put again is there"
    );
}

async fn check_heads(store: &dyn PeerStore, fixture: &Fixture) {
    let account = fixture.account();
    store.put_head(fixture.head(1)).await.expect("A first head is put");
    store
        .put_head(fixture.head(3))
        .await
        .expect("A newer head is put, also with a gap");
    assert_eq!(
        store.heads(account).await,
        Ok(vec![fixture.head(3)]),
        "The newest head is held"
    );
    assert_eq!(
        store.put_head(fixture.head(3)).await,
        Ok(()),
        "The same head again succeeds"
    );
    for (head, what) in [
        (fixture.head(2), "an older head"),
        (fixture.forked_head(3), "a forked head"),
    ] {
        let answer = store.put_head(head).await;
        assert!(
            matches!(answer, Err(StoreError::Refused { .. })),
            "Put refuses {what}, and not: {answer:?}"
        );
    }
    assert_eq!(
        store.heads(account).await,
        Ok(vec![fixture.head(3)]),
        "Refused heads change nothing"
    );
    store
        .put_head(fixture.second_head(1))
        .await
        .expect("Each device has its own head");
    let mut heads = store.heads(account).await.expect("Heads are returned");
    let mut expected = vec![fixture.head(3), fixture.second_head(1)];
    heads.sort();
    expected.sort();
    assert_eq!(heads, expected, "The heads of all devices are returned");
    let stranger = AccountId(derive(fixture.number, "stranger"));
    assert_eq!(
        store.heads(stranger).await,
        Ok(Vec::new()),
        "An unknown account has no heads"
    );
}

async fn check_wrong_heads(store: &dyn PeerStore, fixture: &Fixture) {
    let before = store.heads(fixture.account()).await;
    let mut flipped = fixture.head(9).to_vec();
    flipped[2000] ^= 1;
    let short = fixture.head(9).slice(1..);
    for (head, what) in [
        (flipped.into(), "a head with a wrong bit"),
        (short, "a short head"),
        (Bytes::new(), "nothing"),
    ] {
        let answer = store.put_head(head).await;
        assert!(
            matches!(answer, Err(StoreError::Refused { .. })),
            "Put refuses {what}, and not: {answer:?}"
        );
    }
    assert_eq!(
        store.heads(fixture.account()).await,
        before,
        "Refused heads change nothing"
    );
}
