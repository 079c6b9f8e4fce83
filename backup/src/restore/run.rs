//! A restore from beginning to end: folders first, contents by pack, other names of hard links, what is to be removed,
//! and the folders' metadata, deepest first.
//!
//! Entries are taken in windows, so that memory is bounded for any number of files.

use std::collections::{HashMap, HashSet};
use std::io;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use futures::StreamExt;
use proto::id::VersionId;
use proto::log_record::{Content, Entry, EntryKind, Meta};

use crate::catalog::content::{self, Place, SectionRow};
use crate::catalog::tree;
use crate::restore::content::{Job, Work};
use crate::restore::fetch::FetchStats;
use crate::restore::sections::{load_inlines, take_inline};
use crate::restore::select::{Selection, base_path};
use crate::restore::target::{self, Target, is_below};
use crate::restore::window::{Item, for_each_selected, window};
use crate::restore::write::Sink;
use crate::restore::{Reader, RestoreError, RestoreOptions, RestoreProgress, RestoreSummary};

/// Pieces of content that are planned at once: about 50 bytes each.
const PIECES_MAX: usize = 500_000;
/// Index sections fetched ahead.
const SECTIONS_AHEAD: usize = 4;

pub(super) fn restore(
    reader: &Reader,
    options: &RestoreOptions,
    progress: &(dyn Fn(RestoreProgress) -> ControlFlow<()> + Sync),
) -> Result<RestoreSummary, RestoreError> {
    let base = base_path(options);
    let entry = reader.db.read(|conn| tree::entry(conn, options.snapshot, &base))?;
    let kind = match entry {
        Some(entry) => entry.kind,
        None if options.path.is_none() => EntryKind::Directory,
        None => {
            let path = String::from_utf8_lossy(&base).into_owned();
            return Err(RestoreError::NoSuchPath { path });
        }
    };
    let selection = Selection::new(options, kind)?;
    let mut total = RestoreProgress::default();
    for_each_selected(reader, options.snapshot, &selection, &mut |_, item| {
        if item.entry.kind != EntryKind::Directory {
            total.files.1 += 1;
            total.bytes.1 += item.entry.meta.size;
        }
        true
    })?;
    if options.dry_run {
        return dry_run(reader, options, &selection);
    }
    let target = Target::create(&options.target).map_err(|source| RestoreError::Target {
        path: options.target.clone(),
        source,
    })?;
    let run = Run {
        reader,
        options,
        selection,
        job: Arc::new(Job {
            reader: reader.clone(),
            sink: Sink::new(target, options),
            stats: Mutex::new(FetchStats::default()),
            verify: options.verify,
        }),
        work: Work::new(options),
        inlines: Vec::new(),
        dirs: Vec::new(),
        first_names: HashMap::new(),
        links: Vec::new(),
        broken: None,
        bytes_kept: AtomicU64::new(0),
        total,
        progress,
    };
    run.run()
}

fn dry_run(reader: &Reader, options: &RestoreOptions, selection: &Selection) -> Result<RestoreSummary, RestoreError> {
    let target = Target::open(&options.target).ok();
    let sink = target.map(|target| Sink::new(target, options));
    let mut summary = RestoreSummary::default();
    for_each_selected(reader, options.snapshot, selection, &mut |_, item| {
        let kept = sink
            .as_ref()
            .is_some_and(|sink| sink.would_keep(&item.relative, &item.entry));
        match (item.entry.kind, kept) {
            (EntryKind::Directory, _) => {}
            (_, true) => summary.files_unchanged += 1,
            (_, false) => {
                summary.files_restored += 1;
                summary.bytes_restored += item.entry.meta.size;
            }
        }
        true
    })?;
    Ok(summary)
}

/// A file whose content lies in an index section.
struct InlineFile {
    section: SectionRow,
    version: VersionId,
    relative: Vec<u8>,
    meta: Meta,
}

struct Run<'a> {
    reader: &'a Reader,
    options: &'a RestoreOptions,
    selection: Selection,
    job: Arc<Job>,
    work: Work,
    inlines: Vec<InlineFile>,
    /// Folders made or found, parents first.
    dirs: Vec<(Vec<u8>, Meta)>,
    /// Of each file with several names, the first that was met.
    first_names: HashMap<(u64, u64), Vec<u8>>,
    /// Other names: first name, this name, bytes.
    links: Vec<(Vec<u8>, Vec<u8>, u64)>,
    /// A folder that could not be made: nothing below it is tried.
    broken: Option<Vec<u8>>,
    bytes_kept: AtomicU64,
    total: RestoreProgress,
    progress: &'a (dyn Fn(RestoreProgress) -> ControlFlow<()> + Sync),
}

impl Run<'_> {
    fn run(mut self) -> Result<RestoreSummary, RestoreError> {
        let mut after = None;
        loop {
            let (items, last) = window(self.reader, self.options.snapshot, &self.selection, after.as_deref())?;
            for item in items {
                self.take(item)?;
                if self.work.pieces() >= PIECES_MAX {
                    self.flush()?;
                }
            }
            self.flush()?;
            match last {
                Some(last) => after = Some(last),
                None => break,
            }
        }
        self.link();
        if self.options.delete {
            self.delete()?;
        }
        let failed = |source| RestoreError::Target {
            path: self.options.target.clone(),
            source,
        };
        let disk = self.sink().target.disk().map_err(failed)?;
        self.finish_dirs();
        disk.sync().map_err(failed)?;
        Ok(self.summary())
    }

    fn sink(&self) -> &Sink {
        &self.job.sink
    }

    fn take(&mut self, item: Item) -> Result<(), RestoreError> {
        let relative = &item.relative;
        if self.broken.as_ref().is_some_and(|broken| is_below(relative, broken)) {
            return Ok(());
        }
        if item.entry.kind == EntryKind::Directory {
            match self.sink().make_dir(relative) {
                Ok(()) => self.dirs.push((item.relative, item.entry.meta)),
                Err(error) => {
                    self.sink().failed(relative, error.to_string());
                    self.broken = Some(item.relative);
                }
            }
            return Ok(());
        }
        if self.is_other_name(&item) {
            return Ok(());
        }
        match self.sink().keeps(relative, &item.entry) {
            Ok(true) => self.count_kept(item.entry.meta.size),
            Ok(false) => self.write(&item)?,
            Err(error) => self.sink().failed(relative, error.to_string()),
        }
        Ok(())
    }

    /// Notes the names of files that have several; `true` for all but the first.
    fn is_other_name(&mut self, item: &Item) -> bool {
        let meta = &item.entry.meta;
        if meta.links < 2 {
            return false;
        }
        match self.first_names.get(&(meta.device, meta.inode)) {
            Some(first) => {
                self.links.push((first.clone(), item.relative.clone(), meta.size));
                true
            }
            None => {
                self.first_names
                    .insert((meta.device, meta.inode), item.relative.clone());
                false
            }
        }
    }

    fn count_kept(&self, bytes: u64) {
        self.sink().summary().files_unchanged += 1;
        self.bytes_kept.fetch_add(bytes, Ordering::Relaxed);
    }

    fn write(&mut self, item: &Item) -> Result<(), RestoreError> {
        let Item { relative, entry } = item;
        match (entry.kind, &entry.content) {
            (EntryKind::File, Content::Inline(content)) => {
                let written = self.sink().write_file(relative, &entry.meta, content);
                self.count(relative, content.len() as u64, written);
            }
            (EntryKind::File, Content::Version(version)) => self.plan(relative, entry, *version)?,
            (EntryKind::File, Content::None) => self
                .sink()
                .failed(relative, "The backup log holds no content for it".to_owned()),
            _ => {
                let made = self.sink().make_node(relative, entry);
                self.count(relative, 0, made);
            }
        }
        Ok(())
    }

    fn plan(&mut self, relative: &[u8], entry: &Entry, version: VersionId) -> Result<(), RestoreError> {
        match self.reader.db.read(|conn| content::place(conn, version))? {
            None => self.sink().failed(relative, "It was not uploaded yet".to_owned()),
            Some(Place::Section(section)) => self.inlines.push(InlineFile {
                section,
                version,
                relative: relative.to_vec(),
                meta: entry.meta.clone(),
            }),
            Some(Place::Extents(extents)) => match self.work.add(self.reader, relative, &entry.meta, &extents) {
                Ok(()) => self.work.resume(self.reader, &self.job.sink),
                Err(error) => self.sink().failed(relative, error.to_string()),
            },
        }
        Ok(())
    }

    /// Fetches and writes what was planned. `Stopped` once whoever follows the progress says so.
    fn flush(&mut self) -> Result<(), RestoreError> {
        self.write_inlines();
        let work = std::mem::replace(&mut self.work, Work::new(self.options));
        work.run(self.reader, &self.job, &|| self.report());
        match self.report() {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(RestoreError::Stopped),
        }
    }

    fn write_inlines(&mut self) {
        let mut files = std::mem::take(&mut self.inlines);
        files.sort_by_key(|file| file.section);
        let (reader, stats) = (self.reader, &self.job.stats);
        let sections: Vec<&[InlineFile]> = files.chunk_by(|a, b| a.section == b.section).collect();
        self.reader.runtime.block_on(async {
            let mut loaded = futures::stream::iter(sections)
                .map(|files| async move { (files, load_inlines(reader, files[0].section, stats).await) })
                .buffered(SECTIONS_AHEAD);
            while let Some((files, mut inlines)) = loaded.next().await {
                if let Err(error) = &inlines {
                    self.sink().note(error);
                }
                for file in files {
                    let content = match &mut inlines {
                        Ok(inlines) => take_inline(inlines, file.version).map_err(io::Error::other),
                        Err(error) => Err(io::Error::other(error.to_string())),
                    };
                    let bytes = content.as_ref().map_or(0, |content| content.len() as u64);
                    let written =
                        content.and_then(|content| self.sink().write_file(&file.relative, &file.meta, &content));
                    self.count(&file.relative, bytes, written);
                }
                if self.report().is_break() {
                    break;
                }
            }
        });
    }

    fn count(&self, relative: &[u8], bytes: u64, written: io::Result<()>) {
        match written {
            Ok(()) => {
                let mut summary = self.sink().summary();
                summary.files_restored += 1;
                summary.bytes_restored += bytes;
            }
            Err(error) => self.sink().failed(relative, error.to_string()),
        }
    }

    fn link(&mut self) {
        for (first, relative, bytes) in std::mem::take(&mut self.links) {
            match self.sink().link(&first, &relative) {
                Ok(true) => self.sink().summary().files_restored += 1,
                Ok(false) => self.count_kept(bytes),
                Err(error) => self.sink().failed(&relative, error.to_string()),
            }
        }
    }

    /// Removes from the folders that were restored what the snapshot does not have. What the patterns leave out stays.
    fn delete(&self) -> Result<(), RestoreError> {
        for (relative, _) in &self.dirs {
            let path = self.selection.absolute(relative);
            let children = self
                .reader
                .db
                .read(|conn| tree::children(conn, self.options.snapshot, &path))?;
            let known: HashSet<Vec<u8>> = children.into_iter().map(|child| child.name).collect();
            let found = self.sink().target.dir(relative).and_then(|dir| target::names(&dir));
            for name in found.unwrap_or_default() {
                if known.contains(&name) {
                    continue;
                }
                let child = match relative.as_slice() {
                    [] => name,
                    _ => [relative, &b"/"[..], &name].concat(),
                };
                let wanted = self.selection.includes(&child, false) && !self.selection.excludes(&child, false);
                if wanted && let Err(error) = self.remove(&child) {
                    self.sink().failed(&child, format!("It could not be removed: {error}"));
                }
            }
        }
        Ok(())
    }

    fn remove(&self, relative: &[u8]) -> io::Result<()> {
        self.sink().target.forget_open();
        self.sink().target.place(relative)?.remove_all()
    }

    /// The target itself keeps its metadata, unless it stands for a folder and was made by us.
    fn finish_dirs(&self) {
        for (relative, meta) in self.dirs.iter().rev() {
            if relative.is_empty() && (self.selection.base() == b"/" || !self.sink().target.created) {
                continue;
            }
            if let Err(error) = self.sink().finish_dir(relative, meta) {
                self.sink()
                    .failed(relative, format!("Its metadata could not be set: {error}"));
            }
        }
    }

    fn report(&self) -> ControlFlow<()> {
        let mut now = self.total;
        {
            let summary = self.sink().summary();
            now.files.0 = summary.files_restored + summary.files_unchanged + summary.failed.len() as u64;
            now.bytes.0 = summary.bytes_restored + self.bytes_kept.load(Ordering::Relaxed);
        }
        (self.progress)(now)
    }

    fn summary(&self) -> RestoreSummary {
        let mut summary = self.sink().summary().clone();
        let stats = self.job.stats.lock().expect("no panic while the counts are locked");
        summary.bytes_fetched = stats.bytes_fetched;
        summary.peers_used = stats.peers_used.iter().cloned().collect();
        summary.peers_bad = stats.peers_bad.clone().into_iter().collect();
        summary
    }
}
