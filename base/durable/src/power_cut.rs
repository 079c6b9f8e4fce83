//! A disk that loses its power after any step, for tests: what was synced is there afterwards, and of everything else any part.
//!
//! Its live image is the real folder that it is mounted on, so that whatever reads files sees it; the durable one is kept
//! here. A name counts as durable when its folder was synced; until then each change of a name may have reached the disk or
//! not, in any order (a move between two folders is two changes, of which the new name comes first or with the old one's end;
//! who syncs the old folder before the new one has lost what was moved). A file's bytes count when the file was synced; until then
//! they may be there, missing, cut short or zeros; what was written in place, by sectors or pages, each as it was after any of the
//! writes to it since. A sync can be made to fail: then what it was asked for never becomes durable by a later one. What others write behind our back is found when its folder is looked at.
//!
//! It leaves out disks that lie about a sync, and sectors that go bad later.

mod image;

use std::collections::BTreeSet;
use std::fmt::{self, Write as _};
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::disk::{self, Disk};
pub use image::Image;
use image::Model;

/// What is found after a cut.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// All as it was before.
    Old,
    /// All as it should become.
    New,
    /// Something else: what.
    Neither(String),
}

impl Found {
    /// `New` for these bytes, `Old` for those, `None` being no file.
    pub fn is(found: Option<&[u8]>, old: Option<&[u8]>, new: Option<&[u8]>) -> Self {
        match found {
            found if found == new => Self::New,
            found if found == old => Self::Old,
            found => Self::Neither(format!("{:?}", found.map(String::from_utf8_lossy))),
        }
    }
}

/// Something that is done durably, and is to be cut off after each of its steps.
pub struct Trial<'a> {
    /// What is done.
    pub name: &'a str,
    /// Makes what is there before, all of it durable.
    pub ready: &'a dyn Fn(&Path),
    /// Does it, in the folder. Also again, from whatever is found.
    pub act: &'a dyn Fn(&Path) -> Result<(), String>,
    /// Says what is there in the folder.
    pub found: &'a dyn Fn(&Path) -> Found,
}

/// A row of the table: the steps of a trial, and what a cut after each of them left.
#[derive(Debug, PartialEq, Eq)]
pub struct Row {
    name: String,
    cuts: Vec<Cut>,
}

#[derive(Debug, PartialEq, Eq)]
struct Cut {
    /// The step before it.
    step: String,
    /// Different images of the disk.
    outcomes: usize,
    olds: usize,
    news: usize,
    /// Of a process that was killed while the power stayed.
    killed: Found,
}

impl Trial<'_> {
    /// Cuts the power after each step, and kills the process there, in an empty folder of the test's. Panics unless the old
    /// state or the new one is found each time, whole; unless doing it again ends in the new one, durably; and unless the
    /// new one is there to stay when it was said to be done.
    pub fn run(&self, root: &Path) -> Row {
        let mut cuts = Vec::new();
        loop {
            let after = cuts.len();
            Image::default().lay(root);
            (self.ready)(root);
            let machine = Machine::start(root);
            machine.cut_after(Some(after));
            let done = (self.act)(root);
            let steps = machine.steps();
            assert!(steps.len() <= after, "no step is made without power");
            // What the cut left, before the process that was killed is started again.
            let (outcomes, killed) = (machine.outcomes(), (self.found)(root));
            let at = format!("{}, cut after {steps:?}", self.name);
            assert!(!matches!(killed, Found::Neither(_)), "{at}, killed: {killed:?}");
            machine.cut_after(None);
            self.again(machine, root, &format!("{at}, killed"));
            let mut cut = Cut {
                step: steps.last().cloned().unwrap_or_else(|| "(nothing)".to_owned()),
                outcomes: outcomes.len(),
                olds: 0,
                news: 0,
                killed,
            };
            for image in &outcomes {
                image.lay(root);
                match (self.found)(root) {
                    Found::Old if done.is_ok() => panic!("{at}: it was done, and is taken back: {image:?}"),
                    Found::Old => cut.olds += 1,
                    Found::New => cut.news += 1,
                    Found::Neither(what) => panic!("{at}: {what} in {image:?}"),
                }
                // Looking may mend.
                image.lay(root);
                self.again(Machine::start(root), root, &format!("{at}: {image:?}"));
            }
            // Fewer steps than there was power for: this time it ran to its end.
            if steps.len() < after {
                done.unwrap_or_else(|error| panic!("{} with the power on: {error}", self.name));
                break;
            }
            cuts.push(cut);
        }
        let name = self.name.to_owned();
        Row { name, cuts }
    }

    fn again(&self, machine: Machine, root: &Path, at: &str) {
        let done = (self.act)(root);
        assert_eq!(done, Ok(()), "{at}, again after {:?}", machine.steps());
        let outcomes = machine.outcomes();
        drop(machine);
        for image in outcomes {
            image.lay(root);
            assert_eq!((self.found)(root), Found::New, "{at}, again: {image:?}");
        }
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.name)?;
        for (steps, cut) in self.cuts.iter().enumerate() {
            let left = match (cut.olds, cut.news) {
                (_, 0) => "old".to_owned(),
                (0, _) => "new".to_owned(),
                (olds, news) => format!("old ({olds}) or new ({news})"),
            };
            let killed = format!("{:?}", cut.killed).to_lowercase();
            let images = cut.outcomes;
            writeln!(
                f,
                "  {steps:>2}  {:<34} {images:>3} images: {left}; killed: {killed}",
                cut.step
            )?;
        }
        Ok(())
    }
}

/// A machine with its disk mounted on a folder, until it is dropped.
pub struct Machine {
    disk: Arc<CutDisk>,
    _mounted: disk::Mounted,
}

impl Machine {
    /// Mounts the disk; all that is in the folder is durable.
    pub fn start(root: &Path) -> Self {
        let disk = Arc::new(CutDisk(Mutex::new(State {
            model: Model::of(root),
            steps: Vec::new(),
            cut_after: None,
            failing: None,
        })));
        let _mounted = disk::mount(root, disk.clone());
        Self { disk, _mounted }
    }

    /// No step is made any more after so many; `None`: the power is there again, and nothing was lost.
    pub fn cut_after(&self, steps: Option<usize>) {
        self.disk.lock().cut_after = steps;
    }

    /// From now on the next sync of bytes of a file whose name ends so fails, once.
    pub fn fail_sync_of(&self, ending: &str) {
        self.disk.lock().failing = Some(ending.to_owned());
    }

    /// The steps made so far.
    pub fn steps(&self) -> Vec<String> {
        self.disk.lock().steps.clone()
    }

    /// All that may be on the disk when the power goes now.
    pub fn outcomes(&self) -> BTreeSet<Image> {
        self.disk.lock().model.outcomes()
    }
}

struct CutDisk(Mutex<State>);

struct State {
    model: Model,
    steps: Vec<String>,
    cut_after: Option<usize>,
    /// The ending of a file's name whose next sync fails.
    failing: Option<String>,
}

impl CutDisk {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a step, unless the power is gone.
    fn step(&self, verb: &str, paths: &[&Path]) -> io::Result<MutexGuard<'_, State>> {
        let mut state = self.lock();
        if state.cut_after.is_some_and(|steps| state.steps.len() >= steps) {
            return Err(io::Error::other("The power is gone"));
        }
        let mut step = verb.to_owned();
        for path in paths {
            let name = match *path == state.model.root() {
                true => "(root)".into(),
                false => path.file_name().unwrap_or_default().to_string_lossy(),
            };
            // Without the numbers that tell one writer's file from another's.
            let shown = match name.strip_suffix(".tmp") {
                Some(name) => format!("{}.tmp", name.rsplit_once('.').map_or(name, |(name, _)| name)),
                None => name.into_owned(),
            };
            let _ = write!(step, " {shown}");
        }
        state.steps.push(step);
        Ok(state)
    }
}

impl Disk for CutDisk {
    fn create(&self, path: &Path) -> io::Result<File> {
        let mut state = self.step("create", &[path])?;
        let file = File::options().write(true).create_new(true).open(path)?;
        state.model.made(path);
        Ok(file)
    }

    fn write(&self, file: &mut File, path: &Path, parts: &[&[u8]]) -> io::Result<()> {
        let mut state = self.step("write", &[path])?;
        parts.iter().try_for_each(|part| file.write_all(part))?;
        state.model.written(path)
    }

    fn allocate(&self, file: &mut File, path: &Path, bytes: u64) -> io::Result<()> {
        disk::zeros(bytes, |parts| self.write(file, path, parts))
    }

    fn open(&self, path: &Path) -> io::Result<File> {
        self.lock().model.look_at(&[path]);
        File::options().read(true).write(true).open(path)
    }

    fn write_at(&self, file: &File, path: &Path, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut state = self.step("write in place", &[path])?;
        file.write_all_at(bytes, offset)?;
        state.model.written_in_place(path, bytes, offset);
        Ok(())
    }

    fn sync(&self, _file: &File, path: &Path) -> io::Result<()> {
        let mut state = self.step("sync", &[path])?;
        let name = path.to_string_lossy();
        if state.failing.take_if(|ending| name.ends_with(&**ending)).is_some() {
            state.model.sync_failed(path);
            return Err(io::Error::other("The disk cannot write"));
        }
        state.model.synced(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.step("rename", &[from, to])?;
        state.model.look_at(&[from, to]);
        fs::rename(from, to)?;
        state.model.renamed(from, to);
        Ok(())
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.step("link", &[from, to])?;
        state.model.look_at(&[from, to]);
        fs::hard_link(from, to)?;
        state.model.linked(from, to);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.step("remove", &[path])?;
        state.model.look_at(&[path]);
        fs::remove_file(path)?;
        state.model.removed(path);
        Ok(())
    }

    fn create_folder(&self, path: &Path) -> io::Result<()> {
        let mut state = self.step("create folder", &[path])?;
        fs::create_dir(path)?;
        state.model.made(path);
        Ok(())
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        let mut state = self.step("sync folder", &[folder])?;
        fs::read_dir(folder)?;
        state.model.folder_synced(folder);
        Ok(())
    }
}
