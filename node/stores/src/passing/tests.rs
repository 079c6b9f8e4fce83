use ed25519_dalek::SigningKey;
use proto::id::DeviceId;
use proto::manifest::Manifest;
use proto::pack;
use proto::pack::PackKey;
use proto::shape::PackShape;
use proto::shape::ShareSize;
use proto::share::Share;
use proto::share_store::ShareStore;
use proto::wire::pass_on::Target;
use proto::wire::receipt::ReceiptBody;

use super::*;

const OWNER: AccountId = AccountId([1; 32]);

/// A pack, its shares, and an order to bring share 1 and 2 to holders whose keys are known here.
fn order(seed: u8) -> (PassOrder, Vec<(ShareId, Share)>) {
    let shape = PackShape {
        k: 2,
        n: 3,
        share: ShareSize::Small,
    };
    let key = PackKey([seed; 32]);
    let sealed = pack::seal(&key, shape, b"content");
    let device = SigningKey::from_bytes(&[3; 32]);
    let manifest = Manifest::sign(key.pack_id(), shape, sealed.ids.clone(), OWNER, &device);
    let shares = sealed.shares(&manifest);
    let target = |index| Target {
        index,
        device: DeviceId(holder(index).verifying_key().to_bytes()),
    };
    let targets = vec![target(1), target(2)];
    (PassOrder { manifest, targets }, shares)
}

fn holder(index: u8) -> SigningKey {
    SigningKey::from_bytes(&[0x40 + index; 32])
}

fn receipt(order: &PassOrder, index: u8) -> Receipt {
    let body = ReceiptBody {
        share: order.manifest.shares[usize::from(index)],
        owner: OWNER,
        holder: DeviceId(holder(index).verifying_key().to_bytes()),
        stored_bytes: ShareSize::Small.stored_bytes() as u32,
        kept_secs: 5,
    };
    Receipt::sign(&holder(index), body)
}

async fn put(passing: &Passing, (id, share): &(ShareId, Share)) {
    let store = passing.shelf(OWNER).unwrap().store;
    store.put(*id, share.clone()).await.unwrap();
}

#[tokio::test]
async fn an_order_and_its_receipts_survive_a_restart_and_its_shares_go_with_the_last_receipt() {
    let root = tempfile::tempdir().unwrap();
    let (order, shares) = order(7);
    let pack = order.manifest.pack;
    let passing = Passing::new(root.path());
    passing.take(order.clone(), 100).unwrap();
    assert!(passing.expects(OWNER, shares[1].0) && !passing.expects(AccountId([2; 32]), shares[1].0));
    put(&passing, &shares[1]).await;
    put(&passing, &shares[2]).await;
    let stored = ShareSize::Small.stored_bytes() as u64;
    assert_eq!(passing.used_bytes().unwrap(), 2 * stored);
    passing.note(pack, vec![receipt(&order, 1)], [2].into()).unwrap();
    passing.end(pack, 200).unwrap();
    assert_eq!(
        passing.used_bytes().unwrap(),
        2 * stored,
        "nothing goes before all have signed"
    );

    let passing = Passing::new(root.path());
    let open = passing.order(pack).unwrap().record.open();
    assert_eq!(open.iter().map(|target| target.index).collect::<Vec<_>>(), [2]);
    passing.note(pack, vec![receipt(&order, 2)], BTreeSet::new()).unwrap();

    // Stopped between the last receipt and the removal.
    let passing = Passing::new(root.path());
    assert_eq!(passing.used_bytes().unwrap(), 2 * stored);
    passing.end(pack, 300).unwrap();
    assert_eq!(passing.used_bytes().unwrap(), 0);
    // Who signed is remembered for an owner that was away.
    assert_eq!(passing.order(pack).unwrap().record.receipts.len(), 2);
    passing.end(pack, 100 + REMEMBER_SECS).unwrap();
    assert!(passing.order(pack).is_none() && Passing::new(root.path()).packs(0).is_empty());
}

#[tokio::test]
async fn the_last_order_counts_and_one_without_targets_ends_it() {
    let root = tempfile::tempdir().unwrap();
    let (mut order, shares) = order(7);
    let pack = order.manifest.pack;
    let passing = Passing::new(root.path());
    passing.take(order.clone(), 100).unwrap();
    put(&passing, &shares[1]).await;
    passing.note(pack, vec![receipt(&order, 1)], BTreeSet::new()).unwrap();
    // Planned anew: share 2 goes elsewhere. The receipt for share 1 still counts.
    order.targets[1].device = DeviceId([9; 32]);
    let taken = passing.take(order.clone(), 200).unwrap().unwrap();
    assert_eq!(
        (taken.record.since_secs, taken.record.open()),
        (100, vec![order.targets[1]])
    );
    order.targets.clear();
    assert!(passing.take(order.clone(), 300).unwrap().is_none());
    assert!(passing.take(order, 300).unwrap().is_none(), "again");
    assert!(passing.order(pack).is_none() && !passing.expects(OWNER, shares[1].0));
    assert_eq!(passing.used_by(OWNER).unwrap(), 0);
    assert!(Passing::new(root.path()).packs(0).is_empty());
}

#[test]
fn a_damaged_record_is_dropped_and_the_others_stay() {
    let root = tempfile::tempdir().unwrap();
    let passing = Passing::new(root.path());
    let (first, second) = (order(7).0, order(8).0);
    passing.take(first.clone(), 1).unwrap();
    passing.take(second.clone(), 2).unwrap();
    assert_eq!(passing.packs(0), [first.manifest.pack, second.manifest.pack]);
    let path = passing.path(first.manifest.pack);
    let mut bytes = fs::read(&path).unwrap();
    bytes[40] ^= 1;
    fs::write(&path, bytes).unwrap();
    // A write that a power cut ended early, too.
    fs::write(path.with_extension("new"), b"gbpass").unwrap();
    assert_eq!(Passing::new(root.path()).packs(0), [second.manifest.pack]);
    assert_eq!(fs::read_dir(root.path().join("passing/orders")).unwrap().count(), 1);
}
