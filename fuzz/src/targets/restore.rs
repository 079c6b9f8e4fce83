//! Logs that somebody else wrote, restored by root: whatever they say, nothing outside of the target is touched.
//!
//! An input is a program of log records with few names, so that they meet: links that lead out, folders that become links, one
//! name twice, names that are none. Two snapshots of it are restored, the second over the first.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};

use backup::archive::{Archive, Member};
use backup::catalog;
use backup::catalog::content;
use backup::catalog::tree::Replay;
use backup::restore::{Deleting, Overwrite, Reader, RestoreOptions};
use database::DbError;
use proto::cap_index::{Cap, Extent};
use proto::id::{ChunkId, DeviceId, SnapshotId, VersionId};
use proto::log_record::{Content, Entry, EntryKind, LogRecord, Meta, PathBytes, SnapshotRecord, Xattr};
use proto::record::Record;
use upload_queue::peers::PeerSet;

use crate::engine::{Cost, Target};
use crate::heard::Heard;
use crate::keys::Who;

/// The target.
pub const TARGET: Target = Target {
    name: "restore",
    run,
    seeds,
    golden: &[],
    words: &[b"\x00\x00", b"\x01\x01\x02", b"\x02\x02\x00"],
    cost: Cost::LARGE,
};

/// Records of a program.
const STEPS_MAX: usize = 40;
/// Names of entries; the last are none, and are left out of logs, but not out of a damaged catalog.
const NAMES: &[&[u8]] = &[b"a", b"b", b"c", b"out", b"\xff\n", b"..", b".", b"a/b", b""];
/// Folders that records are put in.
const FOLDERS: &[&[u8]] = &[b"/", b"/a", b"/b", b"/a/b", b"/a/b/c", b"/out", b"/a/../out", b"/.."];

fn seeds() -> Vec<Vec<u8>> {
    vec![
        // A folder with a file, a link and a pipe.
        vec![0, 1, 1, 0, 1, 0, 1, 1, 1, 2, 0, 0, 2, 1, 0, 0, 2, 2, 2, 0, 2, 3, 3, 0],
        // A folder in the first snapshot is a link that leads out in the second, and has files below it there.
        vec![
            0, 1, 1, 0, 2, 0, 1, 0, 1, 1, 1, 0, 2, 1, 0, 0, 0, 2, 1, 0, 2, 0, 2, 0, 1, 1, 1, 0, 2, 1, 0, 0,
        ],
        // Two names of one file, and a file of holes.
        vec![0, 1, 1, 0, 2, 0, 0, 0x80, 2, 1, 0, 0x80, 3, 2, 1, 0, 2, 2, 7, 0],
    ]
}

fn run(input: &[u8], heard: &mut Heard) {
    let sandbox = Sandbox::new();
    let db = catalog::stand_in().expect("memory holds a catalog");
    let logged = db.write(|tx| {
        let mut replay = Replay::new(DeviceId([1; 32]));
        for step in input.as_chunks::<4>().0.iter().take(STEPS_MAX) {
            apply(*step, tx, &mut replay, &sandbox, heard)?;
        }
        Ok::<_, DbError>(())
    });
    heard.note("logged", logged);
    let snapshots = db.read(catalog::tree::snapshots).unwrap_or_default();
    heard.count("snapshots", snapshots.len());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime of one thread");
    let reader = Reader {
        spool: None,
        db,
        peers: PeerSet::new(Vec::new()),
        keys: Who::new(1, 0).keys,
        runtime: runtime.handle().clone(),
        bytes_in_flight_max: 1 << 20,
    };
    let before = sandbox.outside();
    for snapshot in snapshots.iter().take(3) {
        let options = options(snapshot.record.seq, &sandbox.target, input);
        // On another thread: the runtime is waited for.
        let summary = reader.restore(&options, &|_| ControlFlow::Continue(()));
        if let Some(summary) = heard.note("restored", summary) {
            heard.count("failed", summary.failed.len());
            heard.count("files", usize::try_from(summary.files_restored).unwrap_or(usize::MAX));
        }
        let mut names = Names::default();
        heard.note("exported", reader.export(snapshot.record.seq, None, &mut names));
    }
    assert_eq!(sandbox.outside(), before, "nothing outside of the target is touched");
}

fn options(snapshot: u64, target: &Path, input: &[u8]) -> RestoreOptions {
    let how = input.last().copied().unwrap_or(0);
    RestoreOptions {
        snapshot,
        path: [None, Some(b"/a".to_vec()), Some(b"/out".to_vec())][usize::from(how) % 3].clone(),
        target: target.to_owned(),
        include: Vec::new(),
        exclude: Vec::new(),
        overwrite: [Overwrite::Always, Overwrite::IfChanged, Overwrite::Never][usize::from(how / 3) % 3],
        delete: (how & 0x40 != 0).then(Deleting::default),
        dry_run: false,
        verify: how & 0x80 != 0,
    }
}

/// One record, as a log brings it; one in eight is not looked at before, as in a catalog that is damaged.
fn apply(
    [what, name, how, meta]: [u8; 4],
    tx: &rusqlite::Transaction<'_>,
    replay: &mut Replay,
    sandbox: &Sandbox,
    heard: &mut Heard,
) -> Result<(), DbError> {
    let record = match what % 8 {
        0 => LogRecord::Snapshot(snapshot(name, how)),
        1 => LogRecord::Directory(FOLDERS[usize::from(name) % FOLDERS.len()].to_vec()),
        6 => LogRecord::Gone(NAMES[usize::from(name) % NAMES.len()].to_vec()),
        7 => {
            let version = VersionId(u64::from(how % 8));
            return content::replay_cap(tx, content::SectionRow(1), version, &cap(name, meta));
        }
        _ => LogRecord::Entry(entry(name, how, meta, sandbox)),
    };
    let checked = record.check();
    if checked.is_err() && meta % 8 != 7 {
        heard.note("record", checked);
        return Ok(());
    }
    replay.apply(tx, record)
}

fn snapshot(seq: u8, roots: u8) -> SnapshotRecord {
    let seq = u64::from(seq % 4);
    SnapshotRecord {
        seq,
        id: SnapshotId([seq as u8; 16]),
        time_ns: seq as i64,
        parent: seq.checked_sub(1).filter(|parent| *parent > 0 && roots & 1 != 0),
        source_roots: vec![PathBytes(FOLDERS[usize::from(roots / 2) % FOLDERS.len()].to_vec())],
        files: 1,
        bytes: 1,
    }
}

fn cap(kind: u8, size: u8) -> Cap {
    let huge = 1u64 << (size % 64);
    Cap::Extents(match kind % 4 {
        0 => vec![Extent::Hole(u64::from(size))],
        1 => vec![Extent::Hole(huge), Extent::Hole(huge)],
        2 => vec![Extent::Chunk(ChunkId([size; 16]), u32::from(size) << 20)],
        _ => Vec::new(),
    })
}

fn entry(name: u8, how: u8, meta: u8, sandbox: &Sandbox) -> Entry {
    let kind = [
        EntryKind::Directory,
        EntryKind::File,
        EntryKind::Symlink,
        EntryKind::Fifo,
        EntryKind::File,
        EntryKind::CharDevice,
        EntryKind::Socket,
    ][usize::from(how % 7)];
    let content = match kind {
        EntryKind::File if how & 0x40 != 0 => Content::Version(VersionId(u64::from(meta % 8))),
        EntryKind::File => Content::Inline(vec![b'x'; usize::from(meta % 100)]),
        EntryKind::Symlink => Content::Inline(sandbox.targets[usize::from(how / 7) % sandbox.targets.len()].clone()),
        _ => Content::None,
    };
    let xattr = Xattr {
        name: b"user.gridbackup".to_vec(),
        value: vec![meta],
    };
    Entry {
        name: NAMES[usize::from(name) % NAMES.len()].to_vec(),
        kind,
        meta: Meta {
            mode: 0o644 | (u32::from(meta) << 5) & 0o7000,
            uid: u32::from(meta % 3) * 1000,
            mtime_ns: i64::from(meta),
            size: u64::from(meta),
            // Entries with the same inode are one file.
            inode: u64::from(how % 3),
            device: 1,
            links: if meta & 0x80 != 0 { 2 } else { 1 },
            rdev: 0x0103,
            xattrs: if meta & 0x20 != 0 { vec![xattr] } else { Vec::new() },
            ..Meta::default()
        },
        content,
    }
}

/// A folder with the target, and beside it what must stay as it is.
struct Sandbox {
    folder: tempfile::TempDir,
    target: PathBuf,
    /// What links lead to.
    targets: Vec<Vec<u8>>,
}

impl Sandbox {
    fn new() -> Self {
        // In memory where that can be had: nothing here has to last.
        let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
        let folder = folder.expect("a folder can be made");
        let (outside, target) = (folder.path().join("outside"), folder.path().join("target"));
        let made = std::fs::create_dir_all(outside.join("b"))
            .and_then(|()| std::fs::write(outside.join("a"), "precious"))
            .and_then(|()| std::fs::write(outside.join("b/a"), "precious, too"))
            .and_then(|()| std::fs::create_dir(&target))
            // A link that was there before: whoever owns the target may have put it.
            .and_then(|()| symlink("../outside", target.join("out")));
        made.expect("the sandbox can be made");
        let up = [
            &b"../outside"[..],
            b"../../outside",
            b"../../../outside",
            b"../outside/a",
            b".",
            b"a",
            b"",
        ];
        let absolute = [outside.clone(), outside.join("a")];
        let absolute = absolute.iter().map(|path| path.as_os_str().as_bytes().to_vec());
        Self {
            targets: up.iter().map(|link| link.to_vec()).chain(absolute).collect(),
            target,
            folder,
        }
    }

    /// Everything but the target, with all that a restore could change.
    fn outside(&self) -> BTreeMap<PathBuf, Vec<u64>> {
        let mut seen = BTreeMap::new();
        self.look(self.folder.path(), &mut seen);
        seen
    }

    fn look(&self, folder: &Path, seen: &mut BTreeMap<PathBuf, Vec<u64>>) {
        for entry in std::fs::read_dir(folder).expect("the sandbox can be read").flatten() {
            let path = entry.path();
            if path == self.target {
                continue;
            }
            let meta = entry.metadata().expect("what is listed is there");
            let facts = vec![
                meta.ino(),
                meta.mode().into(),
                meta.uid().into(),
                meta.nlink(),
                meta.size(),
                meta.mtime() as u64,
                meta.mtime_nsec() as u64,
                meta.ctime_nsec() as u64,
            ];
            seen.insert(path.clone(), facts);
            if meta.is_dir() {
                self.look(&path, seen);
            }
        }
    }
}

/// An archive that looks at names only.
#[derive(Default)]
struct Names(Vec<Vec<u8>>);

impl Archive for Names {
    fn has_links(&self) -> bool {
        true
    }

    fn begin(&mut self, member: &Member<'_>) -> std::io::Result<bool> {
        let mut parts = member.path.split(|byte| *byte == b'/');
        let is_inside = member.path.is_empty() || parts.all(|part| !matches!(part, b"" | b"." | b".."));
        assert!(is_inside, "{} leads out of the archive", member.path.escape_ascii());
        let is_known = |first: &[u8]| self.0.iter().any(|known| known == first);
        assert!(member.first_name.is_none_or(is_known), "a link to what did not come");
        self.0.push(member.path.to_vec());
        Ok(true)
    }

    fn content(&mut self, _: &[u8]) -> std::io::Result<()> {
        Ok(())
    }

    fn end(&mut self) -> std::io::Result<()> {
        Ok(())
    }

    fn finish(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
