use durable::power_cut::{Found, Trial};
use proto::share_store::contract;
use proto::share_store::contract::Fixture;

use super::*;

fn store(root: &Path, fixture: &Fixture, quota: Option<u64>) -> FolderStore {
    FolderStore::open(root, fixture.account(), quota).unwrap()
}

fn files_below(path: &Path) -> usize {
    let entries = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path());
    entries
        .map(|path| if path.is_dir() { files_below(&path) } else { 1 })
        .sum()
}

fn flip_byte(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 1;
    fs::write(path, bytes).unwrap();
}

#[tokio::test]
async fn a_folder_keeps_the_contract_of_every_store() {
    let (root, fixture) = (tempfile::tempdir().unwrap(), Fixture::new(1));
    contract::check_share_store(&store(root.path(), &fixture, Some(1 << 30)), &fixture).await;
}

#[tokio::test]
async fn what_was_acknowledged_is_there_after_a_restart() {
    let (root, fixture) = (tempfile::tempdir().unwrap(), Fixture::new(1));
    let (id, share) = fixture.share(0);
    store(root.path(), &fixture, None).put(id, share.clone()).await.unwrap();
    let again = FolderStore::open_existing(root.path(), fixture.account(), None).unwrap();
    assert_eq!(again.list(None, 9).await, Ok(vec![id]));
    assert_eq!(again.used_bytes(), Ok(share.stored_bytes() as u64));
    assert_eq!(again.verify(id), Ok(()));
}

/// A kill between the rename and the sync of the folder: the next put found the share, signed that it is held, and its name
/// was on no disk.
#[test]
fn a_share_that_was_acknowledged_survives_a_power_cut_after_any_step_and_any_kill() {
    let (root, fixture) = (tempfile::tempdir().unwrap(), Fixture::new(1));
    let (id, share) = fixture.share(0);
    let stored = [&share.data[..], &share.tail[..]].concat();
    let row = Trial {
        name: "FolderStore::put",
        ready: &|root| drop(store(root, &fixture, None)),
        act: &|root| {
            let store = FolderStore::open(root, fixture.account(), None).map_err(|error| error.to_string())?;
            let put = store.inner.put(id, &share);
            put.map(drop).map_err(|error| error.to_string())
        },
        found: &|root| {
            let name = id.to_string();
            let shares = account_folder(root, fixture.account()).join("shares");
            let found = fs::read(shares.join(&name[..2]).join(&name)).ok();
            match found {
                // Too long to be shown.
                Some(found) if found != stored => Found::Neither(format!("{} bytes of it", found.len())),
                found => Found::is(found.as_deref(), None, Some(&stored)),
            }
        },
    };
    println!("{}", row.run(root.path()));
}

/// The marker was renamed without being synced: a power cut left it empty.
#[test]
fn a_marker_is_whole_or_not_there_after_a_power_cut() {
    let root = tempfile::tempdir().unwrap();
    let row = Trial {
        name: "mark",
        ready: &|_| {},
        act: &|root| layout::mark(&root.join("store")).map_err(|error| error.to_string()),
        found: &|root| {
            let found = fs::read(root.join("store/gridbackup-store")).ok();
            Found::is(found.as_deref(), None, Some(b"gridbackup store 1\n"))
        },
    };
    println!("{}", row.run(root.path()));
}

#[tokio::test]
async fn a_damaged_share_is_returned_as_it_is_found_by_verify_and_healed_by_a_put() {
    let (root, fixture) = (tempfile::tempdir().unwrap(), Fixture::new(1));
    let (id, share) = fixture.share(0);
    let store = store(root.path(), &fixture, None);
    store.put(id, share.clone()).await.unwrap();
    let used = store.used_bytes().unwrap();
    flip_byte(&store.inner.layout.share(id), 1000);
    assert_ne!(store.get(id, 1000..1001).await.unwrap(), share.data[1000..1001]);
    assert!(matches!(store.verify(id), Err(StoreError::Corrupt { .. })));
    assert_eq!(
        store.put(id, share.clone()).await.unwrap().bytes_sent,
        share.stored_bytes() as u64
    );
    assert_eq!((store.verify(id), store.used_bytes()), (Ok(()), Ok(used)));
}

#[tokio::test]
async fn a_share_cut_short_by_the_disk_is_corrupt_and_healed_by_a_put() {
    let (root, fixture) = (tempfile::tempdir().unwrap(), Fixture::new(1));
    let (id, share) = fixture.share(0);
    let store = store(root.path(), &fixture, None);
    store.put(id, share.clone()).await.unwrap();
    File::options()
        .write(true)
        .open(store.inner.layout.share(id))
        .unwrap()
        .set_len(10)
        .unwrap();
    assert!(matches!(store.verify(id), Err(StoreError::Corrupt { .. })));
    assert_eq!(store.get(id, 0..11).await, Err(StoreError::OutOfRange));
    store.put(id, share).await.unwrap();
    assert_eq!(store.verify(id), Ok(()));
}

#[tokio::test]
async fn a_put_beyond_the_quota_is_full_and_leaves_nothing() {
    let (root, fixture) = (tempfile::tempdir().unwrap(), Fixture::new(1));
    let ((id, share), (other_id, other)) = (fixture.share(0), fixture.share(1));
    let store = store(root.path(), &fixture, Some(share.stored_bytes() as u64 + 1));
    store.put(id, share.clone()).await.unwrap();
    let files = files_below(root.path());
    assert!(matches!(
        store.put(other_id, other.clone()).await,
        Err(StoreError::Full { .. })
    ));
    assert_eq!(files_below(root.path()), files);
    assert_eq!(
        store.put(id, share).await.unwrap().bytes_sent,
        0,
        "what is there already fits"
    );
    store.remove(id).await.unwrap();
    store.put(other_id, other).await.unwrap();
}

#[tokio::test]
async fn an_unmounted_disk_is_unreachable_and_not_an_empty_store() {
    let (root, fixture) = (tempfile::tempdir().unwrap(), Fixture::new(1));
    let (id, share) = fixture.share(0);
    let disk = root.path().join("disk");
    let store = store(&disk, &fixture, None);
    store.put(id, share.clone()).await.unwrap();
    fs::rename(&disk, root.path().join("elsewhere")).unwrap();
    fs::create_dir(&disk).unwrap();
    let unreachable = |error: &StoreError| matches!(error, StoreError::Unreachable { .. });
    assert!(unreachable(&store.get(id, 0..1).await.unwrap_err()));
    assert!(unreachable(&store.list(None, 1).await.unwrap_err()));
    assert!(unreachable(&store.remove(id).await.unwrap_err()));
    assert!(unreachable(&store.heads(fixture.account()).await.unwrap_err()));
    assert!(unreachable(&store.put(id, share).await.unwrap_err()));
    assert_eq!(files_below(&disk), 0);
    assert!(matches!(
        FolderStore::open_existing(&disk, fixture.account(), None),
        Err(OpenError::NotAStore { .. })
    ));
}

#[tokio::test]
async fn a_hundred_puts_of_one_share_at_once_are_one() {
    let (root, fixture) = (tempfile::tempdir().unwrap(), Fixture::new(1));
    let (id, share) = fixture.share(0);
    let store = store(root.path(), &fixture, Some(1 << 30));
    let puts = (0..100).map(|_| store.put(id, share.clone()));
    let sent: u64 = futures::future::join_all(puts)
        .await
        .into_iter()
        .map(|ack| ack.unwrap().bytes_sent)
        .sum();
    assert_eq!(sent, share.stored_bytes() as u64);
    assert_eq!(store.used_bytes(), Ok(sent));
}

#[tokio::test]
async fn a_damaged_head_is_replaced_by_any_valid_one() {
    let (root, fixture) = (tempfile::tempdir().unwrap(), Fixture::new(1));
    let store = store(root.path(), &fixture, None);
    store.put_head(fixture.head(5)).await.unwrap();
    let heads = fs::read_dir(store.inner.layout.heads(fixture.account())).unwrap();
    flip_byte(&heads.last().unwrap().unwrap().path(), 100);
    store.put_head(fixture.head(4)).await.unwrap();
    assert_eq!(store.heads(fixture.account()).await, Ok(vec![fixture.head(4)]));
}

#[test]
fn a_store_of_a_newer_version_is_left_alone() {
    let root = tempfile::tempdir().unwrap();
    fs::write(root.path().join("gridbackup-store"), "gridbackup store 2\n").unwrap();
    let opened = FolderStore::open(root.path(), Fixture::new(1).account(), None);
    assert!(matches!(opened, Err(OpenError::Version { .. })));
}

/// A power cut left the marker empty, and the store was "of a newer version" from then on, with all shares in it.
#[tokio::test]
async fn a_damaged_or_lost_marker_is_made_good_where_shares_lie_beside_it() {
    let (root, fixture) = (tempfile::tempdir().unwrap(), Fixture::new(1));
    let (id, share) = fixture.share(0);
    let marker = root.path().join("gridbackup-store");
    store(root.path(), &fixture, None).put(id, share).await.unwrap();
    let whole = fs::read(&marker).unwrap();
    let newer: [&[u8]; 2] = [b"gridbackup store 2\n", b"gridbackup store 4294967295\n"];
    for text in newer {
        fs::write(&marker, text).unwrap();
        let opened = FolderStore::open_existing(root.path(), fixture.account(), None);
        assert!(matches!(opened, Err(OpenError::Version { .. })), "{text:?}");
    }
    let mut damaged: Vec<Vec<u8>> = (0..whole.len()).map(|length| whole[..length].to_vec()).collect();
    damaged.extend((0..whole.len()).map(|at| {
        let mut flipped = whole.clone();
        // Not the lowest bit of the number, which makes another whole number of it.
        flipped[at] ^= 0x40;
        flipped
    }));
    damaged.extend([
        vec![0; 19],
        vec![b'x'; 1000],
        b"gridbackup store 99999999999\n".to_vec(),
    ]);
    for text in damaged {
        fs::write(&marker, &text).unwrap();
        let opened = FolderStore::open_existing(root.path(), fixture.account(), None);
        assert_eq!(opened.unwrap().verify(id), Ok(()), "{text:?}");
        assert_eq!(fs::read(&marker).unwrap(), whole);
    }
    fs::remove_file(&marker).unwrap();
    let opened = FolderStore::open_existing(root.path(), fixture.account(), None);
    assert_eq!(opened.unwrap().verify(id), Ok(()));
}

#[test]
fn a_marker_without_shares_beside_it_is_believed_only_when_it_is_empty() {
    let (root, fixture) = (tempfile::tempdir().unwrap(), Fixture::new(1));
    let marker = root.path().join("gridbackup-store");
    fs::write(&marker, b"something else").unwrap();
    let open = || FolderStore::open_existing(root.path(), fixture.account(), None);
    assert!(matches!(open(), Err(OpenError::Damaged { .. })));
    fs::write(&marker, b"").unwrap();
    assert!(open().is_ok());
}

#[tokio::test]
async fn a_head_put_again_is_written_again() {
    use std::os::unix::fs::MetadataExt;
    let (root, fixture) = (tempfile::tempdir().unwrap(), Fixture::new(1));
    let store = store(root.path(), &fixture, None);
    let file = || {
        let heads = fs::read_dir(store.inner.layout.heads(fixture.account())).unwrap();
        let names: Vec<_> = heads.map(|entry| entry.unwrap().path()).collect();
        assert_eq!(names.len(), 1);
        fs::File::open(&names[0]).unwrap()
    };
    store.put_head(fixture.head(5)).await.unwrap();
    let before = file();
    store.put_head(fixture.head(5)).await.unwrap();
    assert_ne!(before.metadata().unwrap().ino(), file().metadata().unwrap().ino());
}

#[tokio::test]
async fn what_stays_free_of_the_disk_is_not_taken() {
    let (root, fixture) = (tempfile::tempdir().unwrap(), Fixture::new(1));
    let store = store(root.path(), &fixture, None);
    let ((id, share), head) = (fixture.share(0), fixture.head(1));
    store.set_min_free(MinFree::Percent(100.0));
    let refused = store.put(id, share.clone()).await.unwrap_err();
    assert!(matches!(refused, StoreError::Full { .. }), "{refused:?}");
    assert_eq!(store.space().await.unwrap().free_bytes, Some(0));
    store.put_head(head).await.expect("a head must not wait");
    store.set_min_free(MinFree::Bytes(0));
    store.put(id, share.clone()).await.unwrap();
    store.set_min_free(MinFree::Percent(100.0));
    store.put(id, share).await.expect("what is there needs no room");
}

/// Stores were named by 64 bits of the account: whoever tried 2^32 keys had a pair that shared a shelf.
#[tokio::test]
async fn accounts_that_begin_alike_have_shelves_of_their_own() {
    let root = tempfile::tempdir().unwrap();
    let mut alike = [1; 32];
    alike[31] = 2;
    let folders = [[1; 32], alike].map(|id| account_folder(root.path(), AccountId(id)));
    assert_ne!(folders[0], folders[1]);
    for id in [[1; 32], alike] {
        FolderStore::open(root.path(), AccountId(id), None).unwrap();
    }
    assert!(folders.iter().all(|folder| folder.join("shares").is_dir()));
}
