//! The story of a restore, from a snapshot to files with all their metadata.
//!
//! 1. What was asked for is looked up and counted (`asked`, `select`); what is too much in the target is judged by what the
//!    scan of the snapshot would have looked at (`judge`, `removal`).
//! 2. Folders are made, what is there already is kept, and for each other file it is planned which chunks it needs of which
//!    packs (`target`, `write`, `content`).
//! 3. Packs are fetched, by ranges of shares from whoever has them (`segments`, `fetch`, `holders`), and each chunk goes to
//!    its places in files that have no name of their own until they are complete (`content`, `write`).
//! 4. Other names of hard links are made.
//! 5. What is too much is removed, if nothing failed.
//! 6. Folders get their metadata, deepest first, and the disk is synced.
//!
//! Entries are taken in windows, and 2 and 3 done for each, so that memory is bounded for any number of files.

use std::collections::HashMap;
use std::io;
use std::ops::ControlFlow;
use std::os::unix::ffi::OsStrExt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use futures::StreamExt;
use proto::id::VersionId;
use proto::log_record::{Content, EntryKind, Meta};

use crate::catalog::content;
use crate::catalog::content::{Place, SectionRow};
use crate::restore::asked::Asked;
use crate::restore::content::{Job, Work};
use crate::restore::dry_run::dry_run;
use crate::restore::fetch_stats::FetchStats;
use crate::restore::judge::{Fate, Judge, Sweep};
use crate::restore::removal::{Doomed, Finder};
use crate::restore::sections::{load_inlines, take_inline};
use crate::restore::select::Selection;
use crate::restore::target::{Target, is_below};
use crate::restore::window::{Item, window};
use crate::restore::write::{Linked, Sink};
use crate::restore::{Reader, RestoreError, RestoreEvent, RestoreOptions, RestoreProgress, RestoreSummary, removal};

/// Pieces of content that are planned at once: about 50 bytes each.
const PIECES_MAX: usize = 500_000;
/// Index sections fetched ahead.
const SECTIONS_AHEAD: usize = 4;

/// Restores, step by step.
pub(super) fn restore(
    reader: &Reader,
    options: &RestoreOptions,
    tell: &(dyn Fn(RestoreEvent) -> ControlFlow<()> + Sync),
) -> Result<RestoreSummary, RestoreError> {
    let asked = Asked::of(reader, options)?;
    let judge = removal::judge(reader, options, &asked.selection)?.map(Arc::new);
    if options.dry_run {
        return Ok(RestoreSummary {
            unmatched: asked.unmatched,
            ..dry_run(reader, options, &asked.selection, judge, tell)?
        });
    }
    let mut run = Run::begin(reader, options, asked, judge, tell)?;
    run.write_all()?;
    run.link()?;
    run.delete()?;
    run.finish()?;
    Ok(run.summary())
}

/// Whether the target, which was there, is the folder that was asked for, so that it gets its metadata: it is told to become
/// equal to it, it is where the folder was, or an earlier run finished it.
fn stands_for(target: &Target, options: &RestoreOptions, selection: &Selection, meta: Option<&Meta>) -> bool {
    let is_whole = options.delete.is_some() && !selection.is_thinned();
    let real = || std::fs::canonicalize(&options.target);
    is_whole
        || real().is_ok_and(|real| real.as_os_str().as_bytes() == selection.base())
        || meta.is_some_and(|meta| target.is_dressed(meta))
}

fn unwritable(options: &RestoreOptions, source: io::Error) -> RestoreError {
    RestoreError::Target {
        path: options.target.clone(),
        source,
    }
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
    selection: Arc<Selection>,
    judge: Option<Arc<Judge>>,
    /// What is to be removed at the end.
    doomed: Vec<Doomed>,
    /// The target is the folder that was asked for, and gets its metadata.
    stands_for: bool,
    job: Arc<Job>,
    work: Work,
    inlines: Vec<InlineFile>,
    /// Folders made or found, parents first.
    dirs: Vec<(Vec<u8>, Meta)>,
    /// Of each file with several names, the first that was written, or is as it should be.
    first_names: HashMap<(u64, u64), Vec<u8>>,
    /// Other names, each with the first.
    links: Vec<(Vec<u8>, Item)>,
    /// A folder that could not be made: nothing below it is tried.
    broken: Option<Vec<u8>>,
    bytes_kept: AtomicU64,
    total: RestoreProgress,
    tell: &'a (dyn Fn(RestoreEvent) -> ControlFlow<()> + Sync),
}

impl<'a> Run<'a> {
    /// Makes the target, and finds what is too much in it.
    fn begin(
        reader: &'a Reader,
        options: &'a RestoreOptions,
        asked: Asked,
        judge: Option<Arc<Judge>>,
        tell: &'a (dyn Fn(RestoreEvent) -> ControlFlow<()> + Sync),
    ) -> Result<Self, RestoreError> {
        let selection = asked.selection;
        let unwritable = |source| unwritable(options, source);
        let target = Target::create(&options.target).map_err(unwritable)?;
        let stands_for = match asked.kind == EntryKind::Directory && selection.base() != b"/" {
            true => {
                target.begin().map_err(unwritable)? || stands_for(&target, options, &selection, asked.meta.as_ref())
            }
            false => false,
        };
        let sink = Sink::new(target, options, judge.clone());
        let doomed = match &judge {
            Some(judge) => {
                let mut tell = |relative: &[u8], is_folder, fate| sink.extra(relative, is_folder, fate);
                Finder::new(reader, options.snapshot, judge, &sink.target).find(&mut tell)?
            }
            None => Vec::new(),
        };
        sink.summary().unmatched = asked.unmatched;
        Ok(Self {
            reader,
            options,
            selection,
            judge,
            doomed,
            stands_for,
            job: Arc::new(Job {
                reader: reader.clone(),
                sink,
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
            total: asked.total,
            tell,
        })
    }

    /// Makes folders and writes contents, window by window.
    fn write_all(&mut self) -> Result<(), RestoreError> {
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
                None => return Ok(()),
            }
        }
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
        self.take_name(item)
    }

    /// Writes something other than a folder, or lets it be. Of a file with several names only the first is written: what is
    /// kept there whatever it is, and what failed, is no first name.
    fn take_name(&mut self, item: Item) -> Result<(), RestoreError> {
        let meta = &item.entry.meta;
        let file = (meta.links > 1).then_some((meta.device, meta.inode));
        if let Some(first) = file.and_then(|file| self.first_names.get(&file)) {
            self.links.push((first.clone(), item));
            return Ok(());
        }
        let kept = match self.sink().keeps(&item.relative, &item.entry) {
            Ok(kept) => kept,
            Err(error) => {
                self.sink().failed(&item.relative, error.to_string());
                return Ok(());
            }
        };
        if let Some(file) = file
            && (!kept || self.sink().has_sure(&item.relative))
        {
            self.first_names.insert(file, item.relative.clone());
        }
        match kept {
            true => self.count_kept(item.entry.meta.size),
            false => self.write(&item)?,
        }
        Ok(())
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
            (EntryKind::File, Content::Version(version)) => self.plan(item, *version)?,
            (EntryKind::File, Content::None) => self.lose(item, "The backup log holds no content for it".to_owned()),
            _ => {
                let made = self.sink().make_node(relative, entry);
                self.count(relative, 0, made);
            }
        }
        Ok(())
    }

    /// Its content cannot be had.
    fn lose(&self, item: &Item, reason: String) {
        self.sink().lost(&item.entry.meta);
        self.sink().failed(&item.relative, reason);
    }

    fn plan(&mut self, item: &Item, version: VersionId) -> Result<(), RestoreError> {
        let Item { relative, entry } = item;
        match self.reader.db.read(|conn| content::place(conn, version))? {
            None => self.lose(item, "It was not uploaded yet".to_owned()),
            Some(Place::Section(section)) => self.inlines.push(InlineFile {
                section,
                version,
                relative: relative.to_vec(),
                meta: entry.meta.clone(),
            }),
            Some(Place::Extents(extents)) => match self.work.add(self.reader, relative, &entry.meta, &extents) {
                Ok(()) => self.work.resume(self.reader, &self.job.sink),
                Err(error) => self.lose(item, error.to_string()),
            },
        }
        Ok(())
    }

    /// Fetches and writes what was planned. `Stopped` once whoever follows the progress says so.
    fn flush(&mut self) -> Result<(), RestoreError> {
        self.write_inlines();
        let work = std::mem::replace(&mut self.work, Work::new(self.options));
        work.run(self.reader, &self.job, &|| self.report());
        self.stop_if_told()
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
                    if content.is_err() {
                        self.sink().lost(&file.meta);
                    }
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

    /// Makes the other names. Where the first could not be made, the next one is written instead, and those left are
    /// linked to that; unless the content cannot be had at all.
    fn link(&mut self) -> Result<(), RestoreError> {
        while !self.links.is_empty() {
            self.first_names.clear();
            for (first, item) in std::mem::take(&mut self.links) {
                match self.sink().link(&first, &item.relative) {
                    Ok(Linked::Made) => self.sink().summary().files_restored += 1,
                    Ok(Linked::Kept) => self.count_kept(item.entry.meta.size),
                    Ok(Linked::NoFirst) if self.sink().is_lost(&item.entry.meta) => {
                        let reason = "Its content could not be had, under its other name";
                        self.sink().failed(&item.relative, reason.to_owned());
                    }
                    Ok(Linked::NoFirst) => self.take_name(item)?,
                    Err(error) => self.sink().failed(&item.relative, error.to_string()),
                }
            }
            self.flush()?;
        }
        Ok(())
    }

    /// Removes what was found to be too much. Nothing, if anything could not be restored: it may lie there under another
    /// name, and nowhere else.
    fn delete(&mut self) -> Result<(), RestoreError> {
        let doomed = std::mem::take(&mut self.doomed);
        let Some(judge) = self.judge.clone() else {
            return Ok(());
        };
        if !self.sink().summary().failed.is_empty() {
            self.sink().summary().removals_withheld = doomed.len() as u64;
            return self.stop_if_told();
        }
        let mut note = |relative: &[u8], is_folder, fate: Fate| self.sink().extra(relative, is_folder, fate);
        for doomed in &doomed {
            removal::sweep(&judge, &self.sink().target, doomed, Sweep::Remove, &mut note);
            self.stop_if_told()?;
        }
        self.stop_if_told()
    }

    fn stop_if_told(&self) -> Result<(), RestoreError> {
        match self.report() {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(RestoreError::Stopped),
        }
    }

    /// Sets the folders' metadata, and syncs what was written.
    fn finish(&self) -> Result<(), RestoreError> {
        let unwritable = |source| unwritable(self.options, source);
        let disk = self.sink().target.disk().map_err(unwritable)?;
        self.sink().target.end();
        self.finish_dirs();
        disk.sync().map_err(unwritable)
    }

    /// The target itself keeps its metadata, unless it stands for the folder that was asked for.
    fn finish_dirs(&self) {
        for (relative, meta) in self.dirs.iter().rev() {
            if relative.is_empty() && !self.stands_for {
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
        for extra in self.sink().take_extras() {
            (self.tell)(RestoreEvent::Extra(extra))?;
        }
        (self.tell)(RestoreEvent::Progress(now))
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
