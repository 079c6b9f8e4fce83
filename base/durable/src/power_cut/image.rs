//! The durable image of a disk beside its live one, and every image that a cut may leave of the two.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

/// Changes of names that may be on their way at once: each doubles the number of images.
const PENDING_MAX: usize = 12;

/// Images that are drawn of writes in place, for each size of what arrives whole. Chosen: all are too many; these are different at
/// each step.
const DRAWN: u64 = 4;
/// What a disk writes whole: a sector, or a page.
const WHOLE_BYTES: [usize; 2] = [512, 4096];

/// Bytes of a file that a failed test shows. Chosen: enough to tell old from new.
const SHOWN_BYTES: usize = 32;

/// Files (with their bytes) and folders (without) by their path below the root.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Image(BTreeMap<PathBuf, Option<Vec<u8>>>);

impl Image {
    /// Makes the folder be what this is.
    pub fn lay(&self, root: &Path) {
        for entry in fs::read_dir(root).expect("the root is a folder").flatten() {
            let path = entry.path();
            let removed = if path.is_dir() {
                fs::remove_dir_all(&path)
            } else {
                fs::remove_file(&path)
            };
            removed.expect("a test's folder can be emptied");
        }
        for (path, bytes) in &self.0 {
            let path = root.join(path);
            let made = bytes
                .as_ref()
                .map_or_else(|| fs::create_dir(&path), |bytes| fs::write(&path, bytes));
            made.expect("a test's folder can be filled");
        }
    }
}

/// Files with their first bytes, or it could not be read.
impl fmt::Debug for Image {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let files = self.0.iter().filter_map(|(path, bytes)| Some((path, bytes.as_ref()?)));
        let shown = files.map(|(path, bytes)| {
            let start = String::from_utf8_lossy(&bytes[..bytes.len().min(SHOWN_BYTES)]);
            (path, format!("{} bytes: {start}", bytes.len()))
        });
        f.debug_map().entries(shown).finish()
    }
}

/// A file or a folder, under whatever names.
type Node = usize;

type Names = BTreeMap<OsString, Node>;

enum Kind {
    /// What was synced, if anything was, what is there, and the writes in place in between.
    File {
        durable: Option<Vec<u8>>,
        live: Vec<u8>,
        in_place: Vec<InPlace>,
    },
    Folder {
        durable: Names,
        live: Names,
    },
}

/// A write in place that is not known to be durable.
struct InPlace {
    offset: usize,
    bytes: Vec<u8>,
    /// A sync of it failed: no later one makes it durable, though it may be.
    is_given_up: bool,
}

/// What a name in a folder came to stand for; `None`: nothing.
struct Entry {
    folder: Node,
    name: OsString,
    node: Option<Node>,
}

/// Entries that reach the disk together.
struct Change {
    number: usize,
    entries: Vec<Entry>,
    /// The change that reaches it before this one does.
    after: Option<usize>,
}

/// What becomes of bytes that were not synced.
#[derive(Clone, Copy)]
enum Unsynced {
    There,
    Missing,
    CutShort,
    Zeros,
    /// Of what was written in place, pieces of this size, each as it was after some of the writes; else as `There`.
    Pieces {
        bytes: usize,
        seed: u64,
    },
}

/// Both images, and the changes of names that lie between them, in order.
pub(super) struct Model {
    root: PathBuf,
    kinds: Vec<Kind>,
    pending: Vec<Change>,
    changes: usize,
}

const ROOT: Node = 0;

impl Model {
    /// All that is there is durable.
    pub(super) fn of(root: &Path) -> Self {
        let mut model = Self {
            root: root.to_owned(),
            kinds: Vec::new(),
            pending: Vec::new(),
            changes: 0,
        };
        model.take_in(root);
        model.pending.clear();
        for kind in &mut model.kinds {
            match kind {
                Kind::File { durable, live, .. } => *durable = Some(live.clone()),
                Kind::Folder { durable, live } => *durable = live.clone(),
            }
        }
        model
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// A file or folder was made.
    pub(super) fn made(&mut self, path: &Path) {
        self.look_at(&[path]);
    }

    /// A file was written to.
    pub(super) fn written(&mut self, path: &Path) -> io::Result<()> {
        self.look_at(&[path]);
        let bytes = fs::read(path)?;
        if let Some(Kind::File { live, .. }) = self.at(path).map(|node| &mut self.kinds[node]) {
            *live = bytes;
        }
        Ok(())
    }

    /// A part of a file was written to.
    pub(super) fn written_in_place(&mut self, path: &Path, bytes: &[u8], offset: u64) {
        self.look_at(&[path]);
        if let Some(Kind::File { live, in_place, .. }) = self.at(path).map(|node| &mut self.kinds[node]) {
            let write = InPlace {
                offset: offset as usize,
                bytes: bytes.to_vec(),
                is_given_up: false,
            };
            write.apply(live, usize::MAX, |_| true);
            in_place.push(write);
        }
    }

    /// A file's bytes are durable.
    pub(super) fn synced(&mut self, path: &Path) -> io::Result<()> {
        if !self.is_in_place(path) {
            self.written(path)?;
        }
        let Some(Kind::File {
            durable,
            live,
            in_place,
        }) = self.at(path).map(|node| &mut self.kinds[node])
        else {
            return Ok(());
        };
        match durable {
            Some(durable) if !in_place.is_empty() => {
                let (given_up, kept): (Vec<_>, Vec<_>) = in_place.drain(..).partition(|write| write.is_given_up);
                kept.iter().for_each(|write| write.apply(durable, usize::MAX, |_| true));
                // Older than what is durable now, except where nothing was written again.
                *in_place = given_up;
                in_place.retain(|write| !kept.iter().any(|later| later.covers(write)));
            }
            _ => *durable = Some(live.clone()),
        }
        Ok(())
    }

    /// What a file's sync was asked for may have become durable or not, and no later one changes that.
    pub(super) fn sync_failed(&mut self, path: &Path) {
        if let Some(Kind::File { in_place, .. }) = self.at(path).map(|node| &mut self.kinds[node]) {
            in_place.iter_mut().for_each(|write| write.is_given_up = true);
        }
    }

    fn is_in_place(&self, path: &Path) -> bool {
        let kind = self.at(path).map(|node| &self.kinds[node]);
        matches!(kind, Some(Kind::File { in_place, .. }) if !in_place.is_empty())
    }

    /// A folder's names are durable.
    pub(super) fn folder_synced(&mut self, path: &Path) {
        let Some(folder) = self.at(path) else { return };
        self.look_again(folder, path);
        if let Kind::Folder { durable, live } = &mut self.kinds[folder] {
            durable.clone_from(live);
        }
        self.pending
            .iter_mut()
            .for_each(|change| change.entries.retain(|entry| entry.folder != folder));
        self.pending.retain(|change| !change.entries.is_empty());
    }

    /// A name was moved, which had been looked at.
    pub(super) fn renamed(&mut self, from: &Path, to: &Path) {
        let node = self.at(from);
        let gone = self.entry(from, None);
        let come = self.entry(to, node);
        if gone.folder == come.folder {
            self.change(vec![gone, come]);
        } else {
            let come = self.change(vec![come]);
            self.change(vec![gone]);
            self.pending.last_mut().expect("it was added just now").after = Some(come);
        }
    }

    /// A name was added, of a file that had been looked at.
    pub(super) fn linked(&mut self, from: &Path, to: &Path) {
        let entry = self.entry(to, self.at(from));
        self.change(vec![entry]);
    }

    /// A name was taken away.
    pub(super) fn removed(&mut self, path: &Path) {
        let entry = self.entry(path, None);
        self.change(vec![entry]);
    }

    /// Finds what others did in the folders of these names.
    pub(super) fn look_at(&mut self, paths: &[&Path]) {
        for folder in paths.iter().filter_map(|path| path.parent()) {
            if self.at(folder).is_none() && folder != self.root && folder.starts_with(&self.root) {
                self.look_at(&[folder]);
            }
            if let Some(node) = self.at(folder) {
                self.look_again(node, folder);
            }
        }
    }

    fn look_again(&mut self, folder: Node, path: &Path) {
        let there: BTreeSet<_> = names_in(path).into_iter().collect();
        let known: BTreeSet<_> = self.live(folder).keys().cloned().collect();
        for name in known.difference(&there) {
            let (name, node) = (name.clone(), None);
            self.change(vec![Entry { folder, name, node }]);
        }
        for name in there.difference(&known) {
            let node = Some(self.take_in(&path.join(name)));
            let name = name.clone();
            self.change(vec![Entry { folder, name, node }]);
        }
    }

    /// A node for what is there, none of it durable.
    fn take_in(&mut self, path: &Path) -> Node {
        let node = self.kinds.len();
        if path.is_dir() {
            let (durable, live) = (Names::new(), Names::new());
            self.kinds.push(Kind::Folder { durable, live });
            for name in names_in(path) {
                let child = Some(self.take_in(&path.join(&name)));
                let folder = node;
                self.change(vec![Entry {
                    folder,
                    name,
                    node: child,
                }]);
            }
        } else {
            self.kinds.push(Kind::File {
                durable: None,
                live: fs::read(path).unwrap_or_default(),
                in_place: Vec::new(),
            });
        }
        node
    }

    /// Makes a change in the live image; its number.
    fn change(&mut self, entries: Vec<Entry>) -> usize {
        for entry in &entries {
            if let Kind::Folder { live, .. } = &mut self.kinds[entry.folder] {
                entry.apply(live);
            }
        }
        let (number, after) = (self.changes, None);
        self.changes += 1;
        self.pending.push(Change { number, entries, after });
        number
    }

    fn entry(&self, path: &Path, node: Option<Node>) -> Entry {
        let folder = path.parent().and_then(|folder| self.at(folder));
        Entry {
            folder: folder.expect("its folder was looked at"),
            name: path.file_name().map(OsStr::to_owned).expect("what is named has a name"),
            node,
        }
    }

    fn at(&self, path: &Path) -> Option<Node> {
        let below = path.strip_prefix(&self.root).ok()?;
        below
            .iter()
            .try_fold(ROOT, |folder, name| self.live(folder).get(name).copied())
    }

    fn live(&self, folder: Node) -> &Names {
        static NONE: Names = Names::new();
        match &self.kinds[folder] {
            Kind::Folder { live, .. } => live,
            Kind::File { .. } => &NONE,
        }
    }

    /// Every image that a cut may leave now.
    pub(super) fn outcomes(&mut self) -> BTreeSet<Image> {
        self.look_everywhere(ROOT, &self.root.clone());
        let count = self.pending.len();
        assert!(
            count <= PENDING_MAX,
            "{count} changes of names are on their way: more than can be tried"
        );
        let mut images = BTreeSet::new();
        for arrived in 0..1_u32 << count {
            let mut folders = BTreeMap::new();
            for (node, kind) in self.kinds.iter().enumerate() {
                if let Kind::Folder { durable, .. } = kind {
                    folders.insert(node, durable.clone());
                }
            }
            let has_arrived = |at: usize| (arrived >> at) & 1 == 1;
            let changes = || self.pending.iter().enumerate();
            let is_early =
                |change: &Change| changes().any(|(at, other)| change.after == Some(other.number) && !has_arrived(at));
            let changes: Vec<_> = changes()
                .filter(|(at, _)| has_arrived(*at))
                .map(|(_, change)| change)
                .collect();
            if changes.iter().any(|change| is_early(change)) {
                continue;
            }
            for entry in changes.into_iter().flat_map(|change| &change.entries) {
                entry.apply(folders.entry(entry.folder).or_default());
            }
            for unsynced in self.fates() {
                let mut image = Image::default();
                self.draw(ROOT, Path::new(""), &folders, unsynced, &mut image);
                images.insert(image);
            }
        }
        images
    }

    /// What may become of unsynced bytes, this time.
    fn fates(&self) -> Vec<Unsynced> {
        let mut fates = vec![Unsynced::There, Unsynced::Missing, Unsynced::CutShort, Unsynced::Zeros];
        let written = |kind: &Kind| match kind {
            Kind::File { in_place, .. } => in_place.len() as u64,
            Kind::Folder { .. } => 0,
        };
        let writes: u64 = self.kinds.iter().map(written).sum();
        if writes > 0 {
            let seeds = (0..DRAWN).map(|draw| (writes << 8) + draw);
            fates.extend(seeds.flat_map(|seed| WHOLE_BYTES.map(|bytes| Unsynced::Pieces { bytes, seed })));
        }
        fates
    }

    fn look_everywhere(&mut self, folder: Node, path: &Path) {
        self.look_again(folder, path);
        let children: Vec<_> = self
            .live(folder)
            .iter()
            .map(|(name, node)| (path.join(name), *node))
            .collect();
        for (path, node) in children {
            self.look_everywhere(node, &path);
        }
    }

    fn draw(&self, folder: Node, at: &Path, folders: &BTreeMap<Node, Names>, unsynced: Unsynced, image: &mut Image) {
        for (name, node) in &folders[&folder] {
            let path = at.join(name);
            match &self.kinds[*node] {
                Kind::Folder { .. } => {
                    image.0.insert(path.clone(), None);
                    self.draw(*node, &path, folders, unsynced, image);
                }
                Kind::File {
                    durable,
                    live,
                    in_place,
                } => {
                    image
                        .0
                        .insert(path, Some(left(durable.as_deref(), live, in_place, unsynced)));
                }
            }
        }
    }
}

impl Entry {
    fn apply(&self, names: &mut Names) {
        match self.node {
            Some(node) => names.insert(self.name.clone(), node),
            None => names.remove(&self.name),
        };
    }
}

impl InPlace {
    /// Writes the pieces of this size (by their number) that arrive.
    fn apply(&self, to: &mut [u8], piece_bytes: usize, arrives: impl Fn(usize) -> bool) {
        let end = (self.offset + self.bytes.len()).min(to.len());
        let mut at = self.offset;
        while at < end {
            let piece = at / piece_bytes;
            let next = (piece + 1).saturating_mul(piece_bytes).min(end);
            if arrives(piece) {
                to[at..next].copy_from_slice(&self.bytes[at - self.offset..next - self.offset]);
            }
            at = next;
        }
    }

    fn covers(&self, other: &Self) -> bool {
        self.offset <= other.offset && other.offset + other.bytes.len() <= self.offset + self.bytes.len()
    }
}

fn left(durable: Option<&[u8]>, live: &[u8], in_place: &[InPlace], unsynced: Unsynced) -> Vec<u8> {
    match (durable, unsynced) {
        (Some(durable), Unsynced::Pieces { bytes, seed }) => {
            let mut left = durable.to_vec();
            for (number, write) in in_place.iter().enumerate() {
                // How many of the writes since the last sync a piece had seen. It is drawn for each piece and never taken back,
                // so that a piece is as it was at one moment.
                write.apply(&mut left, bytes, |piece| {
                    let piece = [seed, piece as u64].map(u64::to_le_bytes).concat();
                    let drawn = *blake3::hash(&piece).as_bytes().first_chunk().expect("4 of 32 bytes");
                    number < u32::from_le_bytes(drawn) as usize % (in_place.len() + 1)
                });
            }
            left
        }
        (None, Unsynced::Pieces { .. }) => live.to_vec(),
        (_, Unsynced::There) => live.to_vec(),
        (Some(durable), _) => durable.to_vec(),
        (None, Unsynced::Missing) => Vec::new(),
        (None, Unsynced::CutShort) => live[..live.len() / 2].to_vec(),
        (None, Unsynced::Zeros) => vec![0; live.len()],
    }
}

/// A folder that is none any more has no names.
fn names_in(folder: &Path) -> Vec<OsString> {
    match fs::read_dir(folder) {
        Ok(entries) => entries.flatten().map(|entry| entry.file_name()).collect(),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Vec::new(),
        Err(error) => panic!("{}: {error}", folder.display()),
    }
}
