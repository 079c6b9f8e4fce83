//! Where the content of each staged file comes from: from under its old name, from another link, from the log itself,
//! or from an upload job that will read it.

use std::collections::HashMap;

use proto::id::VersionId;
use proto::log_record::{Content, EntryKind};

use super::compare::Staged;
use super::outcome::{Delta, FileKey, OldName, Outcome};
use crate::source::{Source, details};

/// A file whose content is known under a name that ended.
#[derive(Debug)]
pub(super) struct Move {
    pub version: VersionId,
    pub old_name: OldName,
    pub delta: usize,
    pub staged: usize,
}

/// What the staged files need.
#[derive(Debug, Default)]
pub(super) struct Needs {
    /// Version ids to be reserved: `Staged::fresh` contents count from 0 up to this.
    pub versions: u64,
    /// Files that need an upload job: the first name of each fresh version.
    pub jobs: Vec<(usize, usize)>,
    /// Files that keep the version they had under another name.
    pub moves: Vec<Move>,
    /// Further names of a version: position, and nothing else to do but to remember them.
    pub aliases: Vec<(usize, usize)>,
    /// New or changed files recognised without reading.
    pub files_moved: u64,
}

/// Waits until what was seen changed can be read safely, then decides for each file. After it no content is `None` that
/// should not be.
pub(super) fn decide(source: &dyn Source, outcome: &mut Outcome) -> Needs {
    settle(source, &mut outcome.deltas);
    let mut needs = Needs::default();
    let mut fresh_links: HashMap<(u64, u64), VersionId> = HashMap::new();
    for (delta_at, delta) in outcome.deltas.iter_mut().enumerate() {
        for (staged_at, staged) in delta.set.iter_mut().enumerate() {
            if staged.entry.kind != EntryKind::File || staged.entry.content != Content::None {
                continue;
            }
            let at = (delta_at, staged_at);
            let meta = &staged.entry.meta;
            let link = (meta.links > 1).then_some((meta.device, meta.inode));
            if let Some(old_name) = outcome.old_names.get(&FileKey::from(meta)).filter(|_| !staged.suspect) {
                staged.entry.content = old_name.row.entry.content.clone();
                needs.files_moved += 1;
                if let Content::Version(version) = staged.entry.content {
                    needs.moves.push(Move {
                        version,
                        old_name: old_name.clone(),
                        delta: at.0,
                        staged: at.1,
                    });
                }
            } else if let Some(content) = link.and_then(|link| outcome.links.get(&link)) {
                staged.entry.content = content.clone();
                needs.files_moved += 1;
                needs.aliases.push(at);
            } else if let Some(version) = link.and_then(|link| fresh_links.get(&link)) {
                (staged.entry.content, staged.fresh) = (Content::Version(*version), true);
                needs.files_moved += 1;
                needs.aliases.push(at);
            } else {
                let version = VersionId(needs.versions);
                needs.versions += 1;
                (staged.entry.content, staged.fresh) = (Content::Version(version), true);
                needs.jobs.push(at);
                if let Some(link) = link {
                    fresh_links.insert(link, version);
                }
            }
        }
    }
    needs
}

/// Sees to it that no staged file can change again without showing it: waits for the clock tick of the last change to
/// end, reads the tiny files that had to wait for that, and marks what lies too far in the future.
fn settle(source: &dyn Source, deltas: &mut [Delta]) {
    let regular = |staged: &&Staged| staged.entry.kind == EntryKind::File && staged.entry.meta.size > 0;
    let now = source.now_ns();
    let soon = now.saturating_add(details::WAIT_NS_MAX);
    let staged = deltas.iter().flat_map(|delta| &delta.set).filter(regular);
    let ends = staged
        .map(|staged| details::settled_at_ns(&staged.entry.meta))
        .filter(|at| *at <= soon);
    details::wait_until(source, ends.max().unwrap_or(now));
    for delta in deltas {
        let mut suspects = 0;
        for staged in delta.set.iter_mut().filter(|staged| regular(&&**staged)) {
            staged.suspect = details::settled_at_ns(&staged.entry.meta) > soon;
            suspects += usize::from(staged.suspect);
            let wants = staged.entry.content == Content::None && details::is_tiny(&staged.entry.meta);
            if wants && !staged.suspect {
                let path = crate::catalog::tree::rows::join(&delta.path, &staged.entry.name);
                let bytes = details::read_tiny(source.open_file(&path), &staged.entry.meta);
                staged.entry.content = bytes.map_or(Content::None, Content::Inline);
            }
        }
        if suspects > 0 {
            delta.fingerprint = None;
        }
    }
}
