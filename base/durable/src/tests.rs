mod cuts;
mod in_place;

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use super::*;

/// A file that no kernel syncs.
fn unsyncable() -> File {
    let (_reader, writer) = io::pipe().unwrap();
    File::from(OwnedFd::from(writer))
}

#[test]
fn what_did_not_sync_has_no_name_any_more() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("share");
    fs::write(&path, b"in the page cache").unwrap();
    assert!(sync(&unsyncable(), &path).is_err());
    assert!(!path.exists());
}

#[test]
fn what_is_written_again_is_another_file_of_this_user_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("share");
    fs::write(&path, b"of a sync that failed").unwrap();
    let old = File::open(&path).unwrap();
    write(&path, &[b"two ", b"", b"parts"]).unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"two parts");
    let (old, new) = (old.metadata().unwrap(), fs::metadata(&path).unwrap());
    assert_ne!(old.ino(), new.ino());
    assert_eq!(new.permissions().mode() & 0o777, 0o600);
}

#[test]
fn a_failed_replacement_leaves_the_old_one_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("roster");
    replace(&path, &[b"old"]).unwrap();
    replace(&path, &[b"new"]).unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"new");
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    assert!(replace(&path, &[b"new"]).is_err());
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn what_is_added_replaces_nothing_and_leaves_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("account.key");
    add(&path, &[b"mi", b"ne"]).unwrap();
    let refused = add(&path, &[b"another"]).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::AlreadyExists);
    assert_eq!(fs::read(&path).unwrap(), b"mine");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    replace_note(&path, &[b"noted"]).unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"noted");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn missing_folders_are_made_and_a_file_in_the_way_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let deep = folder.path().join("a/b/c");
    create_folders(&deep).unwrap();
    create_folders(&deep).unwrap();
    fs::write(folder.path().join("file"), b"").unwrap();
    assert!(create_folders(&folder.path().join("file/x")).is_err());
}
