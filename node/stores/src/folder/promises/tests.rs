use std::fs;
use std::process::Command;
use std::sync::Mutex;

use durable::power_cut::{Found, Trial};
use proto::share_store::contract::Fixture;
use proto::share_store::contract::promises::{check_kept, check_promises, check_two_at_once};
use proto::share_store::{PromiseStore, ShareStore};

use super::super::usage::Usage;
use super::super::{Claims, Days, FolderStore, account_folder, layout};
use super::*;

fn store(root: &Path, fixture: &Fixture) -> FolderStore {
    FolderStore::open(root, fixture.account(), None).unwrap()
}

fn file_of(root: &Path, fixture: &Fixture) -> std::path::PathBuf {
    let promises = account_folder(root, fixture.account()).join("promises");
    promises.join(fixture.volume(0).to_string())
}

fn is_refused<T: std::fmt::Debug>(answer: &Result<T, StoreError>, why: &str) -> bool {
    matches!(answer, Err(StoreError::Refused { reason }) if reason.contains(why))
}

#[tokio::test]
async fn a_folder_keeps_promises_also_when_it_is_opened_again() {
    let (root, fixture) = (tempfile::tempdir().unwrap(), Fixture::new(1));
    let first = store(root.path(), &fixture);
    check_promises(&first, &fixture).await;
    check_kept(&first, &fixture).await;
    let voter = first.voter().await;
    drop(first);
    let again = FolderStore::open_existing(root.path(), fixture.account(), None).unwrap();
    check_kept(&again, &fixture).await;
    assert_eq!(again.voter().await, voter);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_openings_of_a_folder_are_one_voter() {
    for _ in 0..5 {
        let (root, fixture) = (tempfile::tempdir().unwrap(), Fixture::new(1));
        let (one, other) = (store(root.path(), &fixture), store(root.path(), &fixture));
        let asked = futures::join!(one.voter(), other.voter());
        assert_eq!(asked.0, asked.1, "whoever asked first");
        check_two_at_once(&one, &other, &fixture).await;
    }
}

#[tokio::test]
async fn two_folders_are_two_voters_and_one_whose_id_is_damaged_is_none() {
    let (root, other, fixture) = (
        tempfile::tempdir().unwrap(),
        tempfile::tempdir().unwrap(),
        Fixture::new(1),
    );
    let (here, there) = (store(root.path(), &fixture), store(other.path(), &fixture));
    let voter = here.voter().await.unwrap();
    assert_ne!(there.voter().await, Ok(voter));
    let file = root.path().join("gridbackup-folder-id");
    let text = fs::read_to_string(&file).unwrap();
    assert_eq!(text, format!("gridbackup folder id 1\n{voter}\n"));
    for damaged in ["", &text[1..], &text[..text.len() - 1], &format!("{text}\n"), "x"] {
        fs::write(&file, damaged).unwrap();
        let asked = here.voter().await;
        assert!(
            matches!(asked, Err(StoreError::Corrupt { .. })),
            "{damaged:?}: {asked:?}"
        );
        assert_eq!(fs::read_to_string(&file).unwrap(), damaged, "it is left as it is");
    }
}

/// Names the folder that another process of `two_processes_never_lower_a_promise` claims in, and which it is.
const OTHER_PROCESS: &str = "GRIDBACKUP_TEST_CLAIMS";
/// Claims of each process.
const CLAIMS: u64 = 60;

/// What one process does: each claim is a little above what it read, as two writers that both want the volume do.
fn claim_often(root: &Path, device: &str) {
    let fixture = Fixture::new(1);
    let store = store(root, &fixture);
    let (mut highest, mut won) = (None, 0);
    for _ in 0..CLAIMS {
        let read = of(&store.inner, fixture.account(), fixture.volume(0)).unwrap();
        let counter = read.map_or(0, |held| Promise::decode(&held).unwrap().counter) + 1;
        let encoded = fixture.claim_of(device, fixture.volume(0), counter);
        let answer = claim(&store.inner, &encoded, None).unwrap();
        won += u64::from(answer == encoded);
        highest = highest.max(Some(Promise::decode(&answer).unwrap().epoch()));
        let read = of(&store.inner, fixture.account(), fixture.volume(0)).unwrap().unwrap();
        let epoch = Promise::decode(&read).unwrap().epoch();
        assert!(Some(epoch) >= highest, "{epoch:?} after {highest:?} was answered");
    }
    assert!(won > 0, "whoever reads and claims wins now and then");
}

#[test]
fn two_processes_never_lower_a_promise() {
    if let Ok(other) = std::env::var(OTHER_PROCESS) {
        let (root, device) = other.split_once('\n').unwrap();
        return claim_often(Path::new(root), device);
    }
    let root = tempfile::tempdir().unwrap();
    let others = ["device", "second device", "third device"].map(|device| {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args([
            "--exact",
            "folder::promises::tests::two_processes_never_lower_a_promise",
        ]);
        command.env(OTHER_PROCESS, format!("{}\n{device}", root.path().display()));
        command.spawn().unwrap()
    });
    for mut other in others {
        assert!(other.wait().unwrap().success());
    }
    assert!(file_of(root.path(), &Fixture::new(1)).exists(), "the others ran");
}

/// A store that is opened without all that others than promises need.
fn bare(root: &Path, fixture: &Fixture) -> Inner {
    Inner {
        layout: Layout::bare(root, fixture.account()),
        owner: fixture.account(),
        usage: Usage::new(None),
        claims: Claims::default(),
        days: Days::open(root, None),
        discards: Mutex::default(),
        heads: Mutex::default(),
        promises: Mutex::default(),
    }
}

/// A folder with a marker and a place for the account.
fn prepare(root: &Path, fixture: &Fixture) {
    layout::mark(root).unwrap();
    writes::create_folders(&account_folder(root, fixture.account())).unwrap();
    drop(bare(root, fixture));
}

#[test]
fn a_promise_that_was_answered_survives_a_power_cut_after_any_step_and_any_kill() {
    let (root, fixture) = (tempfile::tempdir().unwrap(), Fixture::new(1));
    for (name, before) in [("a first claim", None), ("a higher claim", Some(1))] {
        let old = before.map(|counter| fixture.claim(counter));
        let new = fixture.claim(2);
        let row = Trial {
            name,
            ready: &|root| {
                prepare(root, &fixture);
                if let Some(old) = &old {
                    claim(&bare(root, &fixture), old, None).unwrap();
                }
            },
            act: &|root| {
                let answer = claim(&bare(root, &fixture), &new, None).map_err(|error| error.to_string())?;
                assert_eq!(answer, new);
                Ok(())
            },
            found: &|root| {
                let found = fs::read(file_of(root, &fixture)).ok();
                Found::is(found.as_deref(), old.as_deref(), Some(&new))
            },
        };
        println!("{}", row.run(root.path()));
    }
}

#[test]
fn the_id_of_a_folder_that_was_told_survives_a_power_cut() {
    let (root, fixture) = (tempfile::tempdir().unwrap(), Fixture::new(1));
    let row = Trial {
        name: "FolderStore::voter",
        ready: &|root| prepare(root, &fixture),
        act: &|root| {
            let id = voter(&Layout::bare(root, fixture.account()));
            id.map(drop).map_err(|error| error.to_string())
        },
        found: &|root| match read_id(&root.join("gridbackup-folder-id")) {
            Ok(None) => Found::Old,
            Ok(Some(_)) => Found::New,
            Err(error) => Found::Neither(error.to_string()),
        },
    };
    println!("{}", row.run(root.path()));
}

#[tokio::test]
async fn a_damaged_promise_is_an_error_and_never_none() {
    let (root, fixture) = (tempfile::tempdir().unwrap(), Fixture::new(1));
    let before = store(root.path(), &fixture);
    before.claim(fixture.claim(5)).await.unwrap();
    let file = file_of(root.path(), &fixture);
    let good = fs::read(&file).unwrap();
    let mut flipped = good.clone();
    flipped[290] ^= 1;
    let long = [&good[..], b"x"].concat();
    let other_volume = fixture.claim_of("device", fixture.volume(1), 7).to_vec();
    let other_account = Fixture::new(2).claim_of("device", fixture.volume(0), 7).to_vec();
    let half = good[..178].to_vec();
    for (damaged, what) in [
        (flipped, "a flipped bit"),
        (half, "half of it"),
        (long, "too long"),
        (Vec::new(), "empty"),
        (vec![0; PROMISE_BYTES], "zeros"),
        (other_volume, "another volume's"),
        (other_account, "another account's"),
    ] {
        fs::write(&file, &damaged).unwrap();
        for store in [&before, &store(root.path(), &fixture)] {
            let read = store.promise(fixture.account(), fixture.volume(0)).await;
            let claimed = store.claim(fixture.claim(9)).await.map(Some);
            for answer in [read, claimed] {
                let said =
                    matches!(&answer, Err(StoreError::Corrupt { reason }) if reason.contains("The promise of volume"));
                assert!(said, "{what}: {answer:?}");
            }
        }
        assert_eq!(fs::read(&file).unwrap(), damaged, "{what}: it is left as it is");
    }
    fs::write(&file, &good).unwrap();
    assert_eq!(before.claim(fixture.claim(9)).await, Ok(fixture.claim(9)));
}

/// A folder restored from a copy while it is open: it would promise what it had refused.
#[tokio::test]
async fn a_promise_that_went_back_under_an_open_store_is_an_error() {
    let (root, fixture) = (tempfile::tempdir().unwrap(), Fixture::new(1));
    let store = store(root.path(), &fixture);
    store.claim(fixture.claim(5)).await.unwrap();
    let file = file_of(root.path(), &fixture);
    fs::write(&file, fixture.claim(3)).unwrap();
    let claimed = store.claim(fixture.claim(4)).await;
    assert!(matches!(claimed, Err(StoreError::Corrupt { .. })), "{claimed:?}");
    fs::remove_file(&file).unwrap();
    let read = store.promise(fixture.account(), fixture.volume(0)).await;
    assert!(matches!(read, Err(StoreError::Corrupt { .. })), "{read:?}");
    fs::write(&file, fixture.claim(6)).unwrap();
    assert_eq!(
        store.claim(fixture.claim(4)).await,
        Ok(fixture.claim(6)),
        "another process raised it"
    );
}

#[tokio::test]
async fn claims_of_others_and_of_revoked_devices_are_refused() {
    let (root, fixture, stranger) = (tempfile::tempdir().unwrap(), Fixture::new(1), Fixture::new(2));
    let store = store(root.path(), &fixture);
    let claimed = store.claim(stranger.claim(1)).await;
    assert!(is_refused(&claimed, "another account"), "{claimed:?}");
    let read = store.promise(stranger.account(), fixture.volume(0)).await;
    assert!(is_refused(&read, "another account"), "{read:?}");

    let device = Promise::decode(&fixture.claim(1)).unwrap().cert.device;
    let word = AccountWord {
        seq: 1,
        revoked: vec![device],
        ..AccountWord::first(fixture.account())
    };
    let revoked = store.judge(fixture.claim(3), Some(word.clone())).await;
    assert!(is_refused(&revoked, "revoked"), "{revoked:?}");
    assert_eq!(store.promise(fixture.account(), fixture.volume(0)).await, Ok(None));
    let other = store.judge(fixture.second_claim(2), Some(word.clone())).await;
    assert_eq!(other, Ok(fixture.second_claim(2)), "the account's other device");
    // What it claimed before it was revoked stays: a promise is never lowered.
    store.claim(fixture.claim(3)).await.unwrap();
    let other = store.judge(fixture.second_claim(2), Some(word)).await;
    assert_eq!(other, Ok(fixture.claim(3)));
}

#[tokio::test]
async fn one_account_has_promises_of_so_many_volumes_and_the_others_are_full() {
    let (root, fixture) = (tempfile::tempdir().unwrap(), Fixture::new(1));
    let store = store(root.path(), &fixture);
    store.claim(fixture.claim(1)).await.unwrap();
    let folder = store.inner.layout.promises(fixture.account());
    for number in 1..VOLUMES_MAX as u64 {
        let volume = fixture.volume(number);
        fs::write(folder.join(volume.to_string()), fixture.claim_of("device", volume, 1)).unwrap();
    }
    let new = fixture.volume(VOLUMES_MAX as u64);
    let claimed = store.claim(fixture.claim_of("device", new, 1)).await;
    assert!(matches!(claimed, Err(StoreError::Full { .. })), "{claimed:?}");
    assert_eq!(store.promise(fixture.account(), new).await, Ok(None));
    assert_eq!(
        store.claim(fixture.claim(2)).await,
        Ok(fixture.claim(2)),
        "those that are here"
    );
}

#[tokio::test]
async fn promises_outlive_the_trash_and_are_counted_as_used() {
    let (root, fixture) = (tempfile::tempdir().unwrap(), Fixture::new(1));
    let store = store(root.path(), &fixture);
    assert_eq!(store.used_bytes(), Ok(0));
    store.claim(fixture.claim(1)).await.unwrap();
    store.claim(fixture.claim(2)).await.unwrap();
    assert_eq!(store.used_bytes(), Ok(PROMISE_BYTES as u64));
    store.pass_days(1_000);
    store.expire().unwrap();
    let again = FolderStore::open(root.path(), fixture.account(), None).unwrap();
    assert_eq!(again.used_bytes(), Ok(PROMISE_BYTES as u64));
    let read = again.promise(fixture.account(), fixture.volume(0)).await;
    assert_eq!(read, Ok(Some(fixture.claim(2))));
}

#[tokio::test]
async fn an_unmounted_disk_promises_nothing_and_has_not_promised_nothing() {
    let (root, fixture) = (tempfile::tempdir().unwrap(), Fixture::new(1));
    let store = store(root.path(), &fixture);
    store.claim(fixture.claim(1)).await.unwrap();
    fs::rename(root.path(), root.path().with_extension("away")).unwrap();
    fs::create_dir(root.path()).unwrap();
    let claimed = store.claim(fixture.claim(2)).await;
    assert!(matches!(claimed, Err(StoreError::Unreachable { .. })), "{claimed:?}");
    for volume in [0, 1] {
        let read = store.promise(fixture.account(), fixture.volume(volume)).await;
        assert!(read.is_err(), "{read:?}");
    }
    assert!(matches!(store.voter().await, Err(StoreError::Unreachable { .. })));
    assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);
    fs::remove_dir(root.path()).unwrap();
    fs::rename(root.path().with_extension("away"), root.path()).unwrap();
    assert!(store.space().await.is_ok());
    assert_eq!(store.claim(fixture.claim(2)).await, Ok(fixture.claim(2)));
}

#[tokio::test]
async fn an_account_that_is_evicted_leaves_its_promises_even_if_that_is_cut_off() {
    let (root, fixture) = (tempfile::tempdir().unwrap(), Fixture::new(1));
    let store = store(root.path(), &fixture);
    store.claim(fixture.claim(4)).await.unwrap();
    let evicted = store.evict().unwrap();
    assert!(evicted.join("shares").is_dir() && !evicted.join("promises").exists());
    assert_eq!(
        store.claim(fixture.claim(3)).await,
        Ok(fixture.claim(4)),
        "whoever has it open still"
    );
    fs::remove_dir_all(&evicted).unwrap();
    let again = self::store(root.path(), &fixture);
    assert_eq!(again.claim(fixture.claim(3)).await, Ok(fixture.claim(4)));
    drop((store, again));
    // Cut off between the two renames.
    let account = account_folder(root.path(), fixture.account());
    fs::rename(&account, &evicted).unwrap();
    let again = self::store(root.path(), &fixture);
    assert_eq!(again.claim(fixture.claim(3)).await, Ok(fixture.claim(4)));
}
