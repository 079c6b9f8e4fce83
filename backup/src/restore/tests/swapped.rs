//! A restore by root into a folder that somebody else may write to: that one puts other names of files of root's in the places of
//! what is being restored, between two calls of ours.

use std::fs;
use std::os::unix::fs::MetadataExt;

use super::*;
use crate::restore::target::Target;
use crate::restore::write::{Sink, open_made};

/// A target, and beside it a file that nobody may touch.
struct Place {
    folder: tempfile::TempDir,
    sink: Sink,
}

/// All that could be changed of a file.
fn facts(path: &Path) -> (Vec<u8>, u32, u32, i64, i64) {
    let meta = fs::symlink_metadata(path).unwrap();
    (
        fs::read(path).unwrap(),
        meta.mode(),
        meta.uid(),
        meta.mtime(),
        meta.mtime_nsec(),
    )
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("precious"), "precious").unwrap();
        let target = folder.path().join("target");
        fs::create_dir(&target).unwrap();
        Self {
            sink: Sink::new(Target::create(&target).unwrap(), &options(&target), None),
            folder,
        }
    }

    fn precious(&self) -> std::path::PathBuf {
        self.folder.path().join("precious")
    }

    /// Puts another name of the precious file there, in place of what is.
    fn swap(&self, name: &str) {
        let there = self.folder.path().join("target").join(name);
        let _not_there = fs::remove_file(&there);
        fs::hard_link(self.precious(), there).unwrap();
    }
}

fn partial(name: &str) -> String {
    format!(".gridbackup-partial-{}", &blake3::hash(name.as_bytes()).to_hex()[..16])
}

fn entry(kind: EntryKind, content: Content) -> Entry {
    Entry {
        name: b"x".to_vec(),
        kind,
        meta: Meta {
            mode: 0o777,
            uid: 1000,
            links: 1,
            ..Meta::default()
        },
        content,
    }
}

#[test]
fn a_file_that_was_begun_is_gone_on_with_only_while_it_is_that() {
    let place = Place::new();
    let user = rustix::process::geteuid().as_raw();
    drop(place.sink.create_partial(b"x").unwrap());
    assert!(place.sink.open_partial(b"x", user).is_ok());
    assert!(place.sink.open_partial(b"x", user + 1).is_err(), "somebody else's");
    place.swap(&partial("x"));
    assert!(place.sink.open_partial(b"x", user).is_err());
    assert!(place.sink.left_over(b"x").is_none());
}

#[test]
fn metadata_is_set_only_on_the_link_or_pipe_that_was_made() {
    let place = Place::new();
    let before = facts(&place.precious());
    for made in [
        entry(EntryKind::Symlink, Content::Inline(b"aim".to_vec())),
        entry(EntryKind::Fifo, Content::None),
    ] {
        place.sink.make_node(b"x", &made).ok();
        let at = place.sink.target.place(b"x").unwrap();
        assert!(open_made(&at, "x", &made).is_ok(), "{:?}", made.kind);
        place.swap("x");
        assert!(open_made(&at, "x", &made).is_err(), "{:?}", made.kind);
        // A second name of a pipe is as good as another pipe.
        fs::remove_file(place.folder.path().join("target/x")).unwrap();
    }
    assert_eq!(facts(&place.precious()), before);
}

/// Same length and time, and so taken for what was restored before: its owner and mode were set to what the snapshot says.
#[test]
fn what_has_another_name_elsewhere_is_not_dressed_but_written_anew() {
    let place = Place::new();
    let meta = fs::metadata(place.precious()).unwrap();
    let mut same = entry(EntryKind::File, Content::Inline(b"restored".to_vec()));
    same.meta.size = meta.size();
    same.meta.mtime_ns = meta.mtime() * 1_000_000_000 + meta.mtime_nsec();
    let before = facts(&place.precious());
    place.swap("x");
    assert!(!place.sink.keeps(b"x", &same).unwrap());
    assert!(!place.sink.would_keep(b"x", &same));
    place.sink.write_file(b"x", &same.meta, b"restored").unwrap();
    assert_eq!(facts(&place.precious()), before);
    assert_eq!(fs::read(place.folder.path().join("target/x")).unwrap(), b"restored");
    // The same file under as many names as the snapshot knows of is kept, and corrected.
    assert!(place.sink.keeps(b"x", &same).unwrap());
}
