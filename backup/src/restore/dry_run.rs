//! A restore that only says what it would do.

use std::ops::ControlFlow;
use std::sync::Arc;

use proto::log_record::EntryKind;

use crate::restore::judge::{Judge, Sweep};
use crate::restore::removal::Finder;
use crate::restore::select::Selection;
use crate::restore::target::Target;
use crate::restore::window::for_each_selected;
use crate::restore::write::Sink;
use crate::restore::{Reader, RestoreError, RestoreEvent, RestoreOptions, RestoreSummary, removal};

/// What would be written, kept and removed.
pub(super) fn dry_run(
    reader: &Reader,
    options: &RestoreOptions,
    selection: &Selection,
    judge: Option<Arc<Judge>>,
    tell: &(dyn Fn(RestoreEvent) -> ControlFlow<()> + Sync),
) -> Result<RestoreSummary, RestoreError> {
    let target = Target::open(&options.target).ok();
    let sink = target.map(|target| Sink::new(target, options, judge.clone()));
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
    if let (Some(sink), Some(judge)) = (&sink, &judge) {
        let mut note = |relative: &[u8], is_folder, fate| sink.extra(relative, is_folder, fate);
        let doomed = Finder::new(reader, options.snapshot, judge, &sink.target).find(&mut note)?;
        for doomed in &doomed {
            removal::sweep(judge, &sink.target, doomed, Sweep::Look, &mut note);
            for extra in sink.take_extras() {
                if tell(RestoreEvent::Extra(extra)).is_break() {
                    return Err(RestoreError::Stopped);
                }
            }
        }
        let found = sink.summary();
        summary.files_deleted = found.files_deleted;
        summary.folders_deleted = found.folders_deleted;
        summary.left = found.left;
        summary.failed.clone_from(&found.failed);
    }
    Ok(summary)
}
