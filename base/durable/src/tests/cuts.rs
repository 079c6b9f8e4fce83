//! Every function of the crate on a disk that is cut after each step: `cargo test -p durable cut -- --nocapture` prints the
//! table.

use std::fs;

use super::*;
use crate::power_cut::{Found, Machine, Row, Trial};
use crate::state_file;

const OLD: &[u8] = b"what was there before";
const NEW: &[u8] = b"what is there afterwards";

fn at(root: &Path, name: &str) -> Found {
    let found = fs::read(root.join(name)).ok();
    Found::is(found.as_deref(), None, Some(NEW))
}

fn old_at(root: &Path, name: &str) -> Found {
    let found = fs::read(root.join(name)).ok();
    Found::is(found.as_deref(), Some(OLD), Some(NEW))
}

fn try_it(
    name: &str,
    ready: impl Fn(&Path),
    act: impl Fn(&Path) -> io::Result<()>,
    found: impl Fn(&Path) -> Found,
) -> Row {
    let root = tempfile::tempdir().unwrap();
    let row = Trial {
        name,
        ready: &ready,
        act: &|root| act(root).map_err(|error| error.to_string()),
        found: &found,
    }
    .run(root.path());
    println!("{row}");
    row
}

fn nothing(_root: &Path) {}

fn old(root: &Path) {
    fs::write(root.join("file"), OLD).unwrap();
}

#[test]
fn a_file_written_and_renamed_survives_every_cut() {
    let act = |root: &Path| {
        write(&root.join("file.new"), &[NEW])?;
        rename(&root.join("file.new"), &root.join("file"))
    };
    try_it("write, rename", nothing, act, |root| at(root, "file"));
    try_it("write, rename over another", old, act, |root| old_at(root, "file"));
}

#[test]
fn many_files_and_one_sync_of_their_folder_survive_every_cut() {
    let act = |root: &Path| {
        let (temps, names) = (["1.new", "2.new"], ["1", "2"]);
        let mut files = Vec::new();
        for temp in temps {
            files.push(write_unsynced(&root.join(temp), &[NEW])?);
        }
        for (file, temp) in files.iter().zip(temps) {
            sync(file, &root.join(temp))?;
        }
        for (temp, name) in temps.iter().zip(names) {
            rename_unsynced(&root.join(temp), &root.join(name))?;
        }
        sync_directory_of(&root.join(names[0]))
    };
    // Of many, each is there or is not.
    let found = |root: &Path| match (at(root, "1"), at(root, "2")) {
        (Found::New, Found::New) => Found::New,
        (Found::New | Found::Old, Found::New | Found::Old) => Found::Old,
        others => Found::Neither(format!("{others:?}")),
    };
    try_it(
        "write_unsynced, sync, rename_unsynced, sync_directory_of",
        nothing,
        act,
        found,
    );
}

#[test]
fn a_replacement_survives_every_cut() {
    let act = |root: &Path| replace(&root.join("file"), &[&NEW[..5], &NEW[5..]]);
    try_it("replace", old, act, |root| old_at(root, "file"));
    try_it("replace, of none", nothing, act, |root| at(root, "file"));
}

/// A kill between the link and the sync of the folder: the next one found the file, and left it with a name that a power
/// cut took away.
#[test]
fn an_addition_survives_every_cut_also_when_it_is_found() {
    let act = |root: &Path| match add(&root.join("file"), &[NEW]) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        other => other,
    };
    try_it("add", nothing, act, |root| at(root, "file"));
}

#[test]
fn a_move_is_in_one_of_two_places_at_every_cut() {
    let ready = |root: &Path| {
        fs::write(root.join("file"), NEW).unwrap();
        fs::create_dir(root.join("aside")).unwrap();
    };
    let act = |root: &Path| match root.join("file").exists() {
        true => relocate(&root.join("file"), &root.join("aside/file")),
        // Again: it may have been cut off before it was durable.
        false => sync_directory_of(&root.join("aside/file")).and_then(|()| sync_directory_of(&root.join("file"))),
    };
    let found = |root: &Path| match (at(root, "file"), at(root, "aside/file")) {
        (Found::Old, Found::New) => Found::New,
        (Found::New, Found::Old | Found::New) => Found::Old,
        others => Found::Neither(format!("{others:?}")),
    };
    try_it("relocate", ready, act, found);
}

#[test]
fn a_folder_moves_as_a_whole_at_every_cut() {
    let ready = |root: &Path| {
        fs::create_dir(root.join("shelf")).unwrap();
        fs::write(root.join("shelf/1"), NEW).unwrap();
        fs::write(root.join("shelf/2"), NEW).unwrap();
    };
    let act = |root: &Path| match root.join("shelf").exists() {
        true => relocate(&root.join("shelf"), &root.join("going")),
        false => sync_directory_of(&root.join("going")),
    };
    let found = |root: &Path| {
        let whole = |shelf: &str| ["1", "2"].map(|name| at(root, &format!("{shelf}/{name}")) == Found::New);
        match (whole("shelf"), whole("going")) {
            ([true, true], [false, false]) => Found::Old,
            ([false, false], [true, true]) => Found::New,
            others => Found::Neither(format!("{others:?}")),
        }
    };
    try_it("relocate, of a folder", ready, act, found);
}

#[test]
fn a_removal_survives_every_cut() {
    let act = |root: &Path| match remove(&root.join("file")) {
        Err(error) if error.kind() == ErrorKind::NotFound => sync_directory_of(&root.join("file")),
        other => other,
    };
    let found = |root: &Path| {
        let found = fs::read(root.join("file")).ok();
        Found::is(found.as_deref(), Some(OLD), None)
    };
    try_it("remove", old, act, found);
}

/// A kill between a folder and the sync of the one above it: the next one found the folder, and what it wrote into it was
/// durable in a folder that was not.
#[test]
fn folders_that_are_made_or_found_carry_what_is_in_them_through_every_cut() {
    let act = |root: &Path| {
        create_folders(&root.join("a/b"))?;
        create_folder(&root.join("a/b/c"))?;
        replace(&root.join("a/b/c/file"), &[NEW])
    };
    try_it("create_folders, create_folder, replace", nothing, act, |root| {
        at(root, "a/b/c/file")
    });
}

/// A note promises less: the last one, the one before it, or one that says nothing.
#[test]
fn a_note_is_old_new_or_damaged_and_never_stops_the_next_one() {
    let (root, steps_max) = (tempfile::tempdir().unwrap(), 4);
    let root = root.path();
    let mut left = [0; 2];
    for steps in 0..steps_max {
        power_cut::Image::default().lay(root);
        old(root);
        let machine = Machine::start(root);
        machine.cut_after(Some(steps));
        assert_eq!(replace_note(&root.join("file"), &[NEW]).is_ok(), steps == 3);
        let outcomes = machine.outcomes();
        drop(machine);
        for image in outcomes {
            image.lay(root);
            left[usize::from(matches!(old_at(root, "file"), Found::Neither(_)))] += 1;
            replace_note(&root.join("file"), &[NEW]).unwrap();
            assert_eq!(old_at(root, "file"), Found::New);
        }
    }
    println!("replace_note\n  {} images whole, {} damaged\n", left[0], left[1]);
    assert!(left.iter().all(|count| *count > 0), "else it could promise more");
}

fn state(root: &Path) -> Option<Vec<u8>> {
    state_file::read(&root.join("file"), |bytes| Ok(bytes.to_vec())).0
}

fn old_state(root: &Path) {
    for content in [b"older still", OLD] {
        state_file::replace(&root.join("file"), content).unwrap();
    }
}

#[test]
fn a_state_file_is_the_old_one_or_the_new_one_at_every_cut() {
    let act = |root: &Path| state_file::replace(&root.join("file"), NEW);
    let found = |root: &Path| Found::is(state(root).as_deref(), Some(OLD), Some(NEW));
    try_it("state_file::replace", old_state, act, found);
}

/// What was read was acted upon: it must not be older after a power cut.
#[test]
fn a_state_file_that_was_read_is_durable() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    for steps in 0..10 {
        power_cut::Image::default().lay(root);
        old_state(root);
        let machine = Machine::start(root);
        machine.cut_after(Some(steps));
        let _killed = state_file::replace(&root.join("file"), NEW);
        machine.cut_after(None);
        let read = state(root).unwrap();
        let outcomes = machine.outcomes();
        drop(machine);
        for image in outcomes {
            image.lay(root);
            assert_eq!(state(root).as_ref(), Some(&read), "after {steps} steps: {image:?}");
        }
    }
}

#[test]
fn a_damaged_state_file_is_set_aside_and_made_good_at_every_cut() {
    let ready = |root: &Path| {
        old_state(root);
        fs::write(root.join("file"), b"damaged").unwrap();
        fs::create_dir(root.join("else")).unwrap();
    };
    let act = |root: &Path| match state(root) {
        Some(read) => {
            assert!(read == b"older still");
            // Without power it is read all the same, from what lies beside it: whether there is any is asked of another folder.
            sync_directory_of(&root.join("else/file"))
        }
        None => Err(io::Error::other("nothing was read")),
    };
    let found = |root: &Path| {
        let asides = state_file::all_set_aside(root);
        let aside: Vec<_> = asides.iter().map(|path| fs::read(path).unwrap()).collect();
        let file = fs::read(root.join("file")).ok();
        let is_before = file.as_ref().is_some_and(|file| file.starts_with(b"older still"));
        match (file, aside.as_slice()) {
            (Some(_), [aside]) if is_before && aside == b"damaged" => Found::New,
            (Some(file), _) if file == b"damaged" => Found::Old,
            (None, [aside]) if aside == b"damaged" => Found::Old,
            others => Found::Neither(format!("{others:?}")),
        }
    };
    try_it("state_file::read, of a damaged one", ready, act, found);
}

/// The folder of a bare name is the empty path, which cannot be opened.
#[test]
fn a_bare_name_is_in_the_working_folder() {
    let root = tempfile::tempdir().unwrap();
    // The other tests of this crate name their files from the root on.
    std::env::set_current_dir(root.path()).unwrap();
    let (one, two) = (Path::new("one"), Path::new("two"));
    add(one, &[NEW]).unwrap();
    replace(one, &[NEW]).unwrap();
    relocate(one, two).unwrap();
    write(one, &[NEW]).unwrap();
    rename(one, two).unwrap();
    remove(two).unwrap();
    create_folders(Path::new("a/b")).unwrap();
    create_folder(one).unwrap();
    create_folders(one).unwrap();
    state_file::replace(two, NEW).unwrap();
    state_file::replace(two, NEW).unwrap();
    fs::write(two, b"damaged").unwrap();
    assert!(state_file::set_aside(two).unwrap().exists());
    assert_eq!(state_file::all_set_aside(Path::new(".")).len(), 1);
    std::env::set_current_dir("/").unwrap();
}
