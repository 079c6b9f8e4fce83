use durable::power_cut::{Found, Trial};
use ed25519_dalek::SigningKey;
use proto::discard::Order;
use proto::id::DeviceId;
use proto::keys::{DeviceCert, power};
use proto::share_store::contract::Fixture;
use proto::share_store::{HeadStore, OldHead, OldHeads, ShareStore};

use super::*;
use crate::folder::{FolderStore, account_folder};

const HOLDER: DeviceId = DeviceId([3; 32]);
const TODAY: u32 = 100;
const DAY: TrashDay = TrashDay {
    day: TODAY,
    keep_days: KeepDays::MOST,
};

/// A store with all shares of a fixture, and the owner who signs discards for it.
struct Scene {
    _root: tempfile::TempDir,
    store: FolderStore,
    fixture: Fixture,
    ids: Vec<ShareId>,
}

impl Scene {
    async fn new() -> Self {
        let (root, fixture) = (tempfile::tempdir().unwrap(), Fixture::new(1));
        let store = FolderStore::open(root.path(), fixture.account(), None).unwrap();
        let mut ids = Vec::new();
        for number in 0..5 {
            let (id, share) = fixture.share(number);
            store.put(id, share).await.unwrap();
            ids.push(id);
        }
        ids.sort_unstable();
        Self {
            _root: root,
            store,
            fixture,
            ids,
        }
    }

    fn sign(&self, ids: &[ShareId], holder: DeviceId, last: LastDiscard) -> Discard {
        let device = SigningKey::from_bytes(&[8; 32]);
        let cert = DeviceCert::sign(
            self.fixture.words(),
            DeviceId(device.verifying_key().to_bytes()),
            power::ALL,
            "laptop",
            0,
        );
        let order = Order {
            holder,
            number: last.number + 1,
            previous: last.hash,
            issued_secs: 0,
        };
        Discard::sign(&device, &cert, order, ids).unwrap()
    }

    fn take(&self, discard: &Discard, ids: &[ShareId], today: u32) -> Result<u32, StoreError> {
        self.store.inner.take_discard(discard, ids, HOLDER, today)
    }

    /// Puts a share that is kept for so many days.
    async fn put_kept_for(&self, days: u8) -> ShareId {
        let (id, share) = self.fixture.kept_for(days.into(), KeepDays::new(days).unwrap());
        self.store.put(id, share).await.unwrap();
        id
    }

    fn is_there(&self, id: ShareId) -> bool {
        self.store.verify(id).is_ok()
    }

    fn discard(&self, ids: &[ShareId], today: u32) -> u32 {
        let last = self.store.inner.last_discard().unwrap();
        self.take(&self.sign(ids, HOLDER, last), ids, today).unwrap()
    }
}

/// The trash's folder was not durable yet when the share's old name was synced away.
#[tokio::test]
async fn a_share_is_kept_or_in_the_trash_after_a_power_cut_at_any_step() {
    let scene = Scene::new().await;
    let (id, share) = scene.fixture.share(0);
    let stored = [&share.data[..], &share.tail[..]].concat();
    let discard = scene.sign(&[id], HOLDER, LastDiscard::default());
    let open = |root: &Path| FolderStore::open(root, scene.fixture.account(), None).map_err(|error| error.to_string());
    let row = Trial {
        name: "take_discard",
        ready: &|root| drop(open(root).unwrap().inner.put(id, &share).unwrap()),
        act: &|root| {
            let taken = open(root)?.inner.take_discard(&discard, &[id], HOLDER, TODAY);
            taken.map(drop).map_err(|error| error.to_string())
        },
        found: &|root| {
            let name = id.to_string();
            let account = account_folder(root, scene.fixture.account());
            let is_in = |folder: PathBuf| {
                let found = fs::read(folder.join(&name[..2]).join(&name));
                found.is_ok_and(|found| found == stored)
            };
            let trash = account.join("trash").join(format!("{TODAY:08}"));
            match (is_in(account.join("shares")), is_in(trash)) {
                (true, _) => Found::Old,
                (false, true) => Found::New,
                (false, false) => Found::Neither("it is in neither place".to_owned()),
            }
        },
    };
    println!("{}", row.run(tempfile::tempdir().unwrap().path()));
}

#[tokio::test]
async fn what_was_given_up_is_not_listed_but_can_be_read_for_thirty_days() {
    let scene = Scene::new().await;
    let (gone, kept) = scene.ids.split_at(2);
    let used = scene.store.used_bytes().unwrap();
    assert_eq!(scene.discard(gone, TODAY), 2);
    assert_eq!(scene.store.list(None, 100).await, Ok(kept.to_vec()));
    assert_eq!(scene.store.list_trash(None, 100).await, Ok(gone.to_vec()));
    assert_eq!(scene.store.list_trash(Some(gone[0]), 100).await, Ok(gone[1..].to_vec()));
    let inner = &scene.store.inner;
    for today in TODAY..=TODAY + TRASH_DAYS {
        assert_eq!(inner.expire(today), Ok(Expired::default()), "day {today}");
    }
    assert_eq!(scene.store.verify(gone[0]), Ok(()), "It can be read all the time");
    let evidence = inner.layout.beside_trashed(DAY).unwrap();
    let last = fs::metadata(inner.layout.last_discard()).unwrap().len();
    assert!(evidence > 2 * ShareId::LEN as u64);
    let with_trash = used + evidence + last;
    assert_eq!(scene.store.used_bytes(), Ok(with_trash), "and all of it counts");
    let expired = inner.expire(TODAY + TRASH_DAYS + 1).unwrap();
    assert_eq!((expired.shares, expired.returned), (2, 0));
    assert_eq!(scene.store.used_bytes(), Ok(with_trash - evidence - expired.bytes));
    assert_eq!(inner.layout.measure().unwrap(), with_trash - evidence - expired.bytes);
    assert_eq!(scene.store.get(gone[0], 0..1).await, Err(StoreError::NotFound));
    assert_eq!(scene.store.list(None, 100).await, Ok(kept.to_vec()), "The others stay");
    assert!(inner.layout.trash_days().unwrap().is_empty());
}

#[tokio::test]
async fn the_usage_counted_anew_has_the_trash_in_it() {
    let scene = Scene::new().await;
    let used = scene.store.used_bytes().unwrap();
    scene.discard(&scene.ids, TODAY);
    scene.store.put_head(scene.fixture.head(1)).await.unwrap();
    scene.store.put_head(scene.fixture.head(2)).await.unwrap();
    let counted = scene.store.used_bytes().unwrap();
    assert!(
        counted > used + 2 * proto::head::HEAD_BYTES as u64,
        "the head, the one before, and the discard"
    );
    assert_eq!(scene.store.inner.layout.measure().unwrap(), counted);
}

#[tokio::test]
async fn a_recalled_share_is_kept_again_and_outlives_its_day() {
    let scene = Scene::new().await;
    scene.discard(&scene.ids, TODAY);
    let back = scene.ids[1..3].to_vec();
    assert_eq!(scene.store.recall(back.clone()).await, Ok(back.clone()));
    assert_eq!(scene.store.recall(back.clone()).await, Ok(back.clone()), "also again");
    assert_eq!(scene.store.list(None, 100).await, Ok(back.clone()));
    assert_eq!(scene.store.inner.expire(TODAY + 100).unwrap().shares, 3);
    assert_eq!(scene.store.list(None, 100).await, Ok(back));
    assert_eq!(scene.store.recall(vec![scene.ids[0]]).await, Ok(Vec::new()));
}

#[tokio::test]
async fn putting_a_share_that_is_in_the_trash_brings_it_back_and_sends_nothing() {
    let scene = Scene::new().await;
    let (id, share) = scene.fixture.share(0);
    scene.discard(&[id], TODAY);
    assert_eq!(scene.store.put(id, share).await.unwrap().bytes_sent, 0);
    assert!(scene.store.list(None, 100).await.unwrap().contains(&id));
    assert_eq!(scene.store.inner.expire(TODAY + 100).unwrap(), Expired::default());
}

#[tokio::test]
async fn a_discard_is_taken_once_in_its_turn_by_its_holder() {
    let scene = Scene::new().await;
    let one = [scene.ids[0]];
    let first = scene.sign(&one, HOLDER, LastDiscard::default());
    assert_eq!(scene.take(&first, &one, TODAY), Ok(1));
    assert_eq!(
        scene.take(&first, &one, TODAY),
        Ok(0),
        "the last one again changes nothing"
    );
    let last = scene.store.inner.last_discard().unwrap();
    assert_eq!((last.number, last.hash), (1, first.hash()));
    assert_eq!(scene.discard(&[scene.ids[1]], TODAY), 1);
    scene.store.recall(one.to_vec()).await.unwrap();
    let elsewhere = scene.sign(&one, DeviceId([4; 32]), scene.store.inner.last_discard().unwrap());
    let forked = scene.sign(&one, HOLDER, LastDiscard { number: 2, ..last });
    for wrong in [first, elsewhere, forked] {
        assert!(matches!(
            scene.take(&wrong, &one, TODAY),
            Err(StoreError::Refused { .. })
        ));
    }
    assert!(scene.store.list(None, 100).await.unwrap().contains(&one[0]));
}

#[tokio::test]
async fn a_discard_cut_off_anywhere_is_finished_by_the_next() {
    let scene = Scene::new().await;
    scene.discard(&scene.ids[..1], TODAY);
    // As after a crash behind the first rename: evidence and number are there, the rest is not moved.
    let last = scene.store.inner.last_discard().unwrap();
    let all = scene.sign(&scene.ids, HOLDER, last);
    assert_eq!(scene.take(&all, &scene.ids, TODAY), Ok(4));
    assert_eq!(scene.store.inner.expire(TODAY + 31).unwrap().shares, 5);
}

#[tokio::test]
async fn without_a_valid_discard_nothing_is_removed() {
    let scene = Scene::new().await;
    scene.discard(&scene.ids, TODAY);
    let evidence = scene.store.inner.layout.trash_day(DAY).join("1.discard");
    let mut bytes = fs::read(&evidence).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&evidence, bytes).unwrap();
    let expired = scene.store.inner.expire(TODAY + 31).unwrap();
    assert_eq!((expired.shares, expired.returned), (0, 5));
    assert_eq!(scene.store.list(None, 100).await, Ok(scene.ids.clone()));
}

#[tokio::test]
async fn the_head_with_which_a_day_began_outlives_a_flood_of_new_ones() {
    let scene = Scene::new().await;
    for seq in 1..=9 {
        scene.store.put_head(scene.fixture.head(seq)).await.unwrap();
    }
    let account = scene.fixture.account();
    assert_eq!(scene.store.heads(account).await, Ok(vec![scene.fixture.head(9)]));
    let old = scene.store.old_heads(account, None).await.unwrap();
    let expected = OldHead {
        encoded: scene.fixture.head(1),
        age_days: 0,
    };
    assert_eq!((old.heads, old.next), (vec![expected], None));
    let today = scene.store.inner.days.today();
    scene.store.inner.expire(today + 31).unwrap();
    assert_eq!(scene.store.old_heads(account, None).await, Ok(OldHeads::default()));
}

#[tokio::test]
async fn what_is_in_the_trash_is_shown_with_the_discard_that_brought_it_there() {
    let scene = Scene::new().await;
    let (gone, kept) = scene.ids.split_at(2);
    scene.discard(gone, TODAY);
    let shown = scene.store.evidence(gone[1]).await.unwrap();
    assert!(shown.shows(gone[1], scene.fixture.account(), HOLDER) && shown.ids == gone);
    for unshown in [kept[0], ShareId([7; 32])] {
        assert_eq!(scene.store.evidence(unshown).await, Err(StoreError::NotFound));
    }
    scene.store.recall(gone.to_vec()).await.unwrap();
    assert_eq!(
        scene.store.evidence(gone[1]).await,
        Err(StoreError::NotFound),
        "it is kept again"
    );
}

/// Four hundred discards of shares that were never there left a hundred megabytes for a month, which nobody counted.
#[tokio::test]
async fn a_discard_of_nothing_leaves_nothing() {
    let scene = Scene::new().await;
    let used = scene.store.used_bytes();
    let invented = [ShareId([7; 32])];
    assert_eq!(scene.discard(&invented, TODAY), 0);
    assert_eq!(scene.store.used_bytes(), used);
    assert_eq!(scene.store.inner.last_discard(), Ok(LastDiscard::default()));
    assert_eq!(scene.discard(&scene.ids[..1], TODAY), 1, "the next one has its number");
}

#[tokio::test]
async fn discards_are_taken_beyond_the_quota_but_not_without_bound() {
    let scene = Scene::new().await;
    let used = scene.store.used_bytes().unwrap();
    scene.store.set_quota(Some(used));
    // One share that is there, and as many as fit that are not; given up, taken back, given up again.
    let invented = |number: u32| {
        let mut id = [0; 32];
        id[..4].copy_from_slice(&number.to_be_bytes());
        ShareId(id)
    };
    let mut ids: Vec<ShareId> = (1..IDS_MAX).map(invented).collect();
    ids.push(scene.ids[0]);
    ids.sort_unstable();
    let mut taken = 0u64;
    let full = loop {
        let last = scene.store.inner.last_discard().unwrap();
        match scene.take(&scene.sign(&ids, HOLDER, last), &ids, TODAY) {
            Ok(count) => assert_eq!(count, 1),
            Err(error) => break error,
        }
        taken += 1;
        scene.store.recall(vec![scene.ids[0]]).await.unwrap();
    };
    assert!(matches!(full, StoreError::Full { .. }), "{full}");
    let each = ids.len() as u64 * ShareId::LEN as u64;
    assert!(taken * each <= DISCARDS_BYTES_MIN && (taken + 2) * each > DISCARDS_BYTES_MIN);
    assert!(scene.store.used_bytes().unwrap() >= used + taken * each);
    scene.store.set_quota(None);
    assert_eq!(scene.discard(&ids, TODAY), 1);
}

#[tokio::test]
async fn each_share_of_one_discard_stays_for_its_own_days() {
    let scene = Scene::new().await;
    let used = scene.store.used_bytes().unwrap();
    let (none, two) = (scene.put_kept_for(0).await, scene.put_kept_for(2).await);
    let month = scene.ids[0];
    let mut ids = vec![none, two, month];
    ids.sort_unstable();
    assert_eq!(scene.discard(&ids, TODAY), 3);
    let counted = scene.store.used_bytes().unwrap();
    assert_eq!(scene.store.inner.layout.measure().unwrap(), counted);
    for (today, there) in [
        (TODAY, [true, true, true]),
        (TODAY + 1, [false, true, true]),
        (TODAY + 2, [false, true, true]),
        (TODAY + 3, [false, false, true]),
        (TODAY + 30, [false, false, true]),
        (TODAY + 31, [false, false, false]),
    ] {
        assert_eq!(scene.store.inner.expire(today).unwrap().returned, 0);
        assert_eq!([none, two, month].map(|id| scene.is_there(id)), there, "day {today}");
    }
    let last = fs::metadata(scene.store.inner.layout.last_discard()).unwrap().len();
    let share = scene.fixture.share(0).1.stored_bytes() as u64;
    assert_eq!(
        scene.store.used_bytes(),
        Ok(used - share + last),
        "all copies of the discard are gone and counted out"
    );
    assert!(scene.store.inner.layout.trash_days().unwrap().is_empty());
}

/// With all keys of the account, its words too: what is in the trash stays there, and what is kept stays as long as ever.
#[tokio::test]
async fn no_discard_and_no_later_manifest_shortens_the_days() {
    let scene = Scene::new().await;
    let none = KeepDays::new(0).unwrap();
    let (month, two) = (scene.put_kept_for(30).await, scene.put_kept_for(2).await);
    let mut both = [month, two];
    both.sort_unstable();
    assert_eq!(scene.discard(&both, TODAY), 2);
    for (number, id) in [(30, month), (2, two)] {
        let (again, forged) = scene.fixture.kept_for(number, none);
        assert_eq!(again, id);
        scene.store.put(id, forged).await.unwrap();
        assert_eq!(
            scene.discard(&[id], TODAY),
            1,
            "it came out of the trash, and goes there again"
        );
        assert_eq!(scene.discard(&[id], TODAY + 1), 0);
    }
    scene.store.inner.expire(TODAY + 1).unwrap();
    assert!(scene.is_there(month) && scene.is_there(two));
    scene.store.inner.expire(TODAY + 3).unwrap();
    assert!(scene.is_there(month) && !scene.is_there(two));
    scene.store.inner.expire(TODAY + 30).unwrap();
    assert!(scene.is_there(month));
}

/// A put that a thief began before the owner's, and ended after it.
#[tokio::test]
async fn a_slower_put_with_another_manifest_does_not_replace_what_came_first() {
    let scene = Scene::new().await;
    let (id, share) = scene.fixture.kept_for(1, KeepDays::MOST);
    let (_, forged) = scene.fixture.kept_for(1, KeepDays::new(0).unwrap());
    let slower = scene.store.incoming().join("slower");
    fs::write(&slower, [&forged.data[..], &forged.tail].concat()).unwrap();
    scene.store.put(id, share.clone()).await.unwrap();
    let used = scene.store.used_bytes();
    let bytes = forged.stored_bytes() as u64;
    scene.store.adopt(id, &slower, bytes, None).unwrap();
    assert_eq!(scene.store.manifest(id).unwrap(), share.manifest().unwrap());
    assert_eq!((scene.store.used_bytes(), slower.exists()), (used, false));
}

#[tokio::test]
async fn a_share_whose_manifest_cannot_be_read_or_is_another_account_s_stays_longest() {
    let scene = Scene::new().await;
    let damaged = scene.put_kept_for(0).await;
    let path = scene.store.inner.layout.share(damaged);
    let mut bytes = fs::read(&path).unwrap();
    let end = bytes.len();
    bytes[end - 1] ^= 1;
    fs::write(&path, bytes).unwrap();
    let (foreign, share) = Fixture::new(2).kept_for(0, KeepDays::new(0).unwrap());
    scene.store.put(foreign, share).await.unwrap();
    let mut both = [damaged, foreign];
    both.sort_unstable();
    scene.discard(&both, TODAY);
    assert_eq!(scene.store.inner.expire(TODAY + 30), Ok(Expired::default()));
    assert_eq!(scene.store.inner.expire(TODAY + 31).unwrap().shares, 2);
}

#[tokio::test]
async fn a_discard_that_comes_again_finds_what_it_moved_by_its_days() {
    let scene = Scene::new().await;
    let (two, month) = (scene.put_kept_for(2).await, scene.ids[0]);
    let mut ids = vec![two, month];
    ids.sort_unstable();
    let discard = scene.sign(&ids, HOLDER, scene.store.inner.last_discard().unwrap());
    assert_eq!(scene.take(&discard, &ids, TODAY), Ok(2));
    let used = scene.store.used_bytes();
    // Its answer was lost, and the day after it comes again.
    assert_eq!(scene.take(&discard, &ids, TODAY + 1), Ok(0));
    assert_eq!(scene.store.used_bytes(), used);
    assert_eq!(scene.store.inner.expire(TODAY + 3).unwrap().shares, 1);
    assert_eq!(scene.store.inner.expire(TODAY + 31).unwrap().shares, 1);
}

#[test]
fn folders_of_the_trash_are_named_by_day_and_by_fewer_days() {
    for (name, day, days) in [("00000031", 31, 30), ("00000031.00", 31, 0), ("00000031.29", 31, 29)] {
        let keep_days = KeepDays::new(days).unwrap();
        let root = tempfile::tempdir().unwrap();
        let store = FolderStore::open(root.path(), Fixture::new(1).account(), None).unwrap();
        let layout = &store.inner.layout;
        let day = TrashDay { day, keep_days };
        assert!(layout.trash_day(day).ends_with(name));
        for other in [name, "00000031.30", "00000031.x", "x.02"] {
            fs::create_dir_all(layout.trash_day(day).with_file_name(other)).unwrap();
        }
        assert_eq!(layout.trash_days().unwrap(), [day]);
    }
}
