//! `publish diff`: what a run would do to the bucket, and why; an object a line.

use std::collections::HashSet;
use std::sync::Mutex;

use api::failure::{Exit, Failure};
use api::message::{Change, ChangeKind, EntryKind, Message, PathName, Summary};
use engine::home::HomePaths;
use publish::{Deletes, Drift, Event, Trust, Why};

use super::send::{summarized, tell};
use super::shown::{Words, run_shown};
use crate::render::RenderOptions;

/// Compares the folder with the listing of the bucket, or with `--trust` with the inventory alone. Sends nothing else.
pub async fn run(args: super::send::Args, paths: HomePaths, options: RenderOptions) -> Result<Exit, Failure> {
    let client = args.client()?;
    let usual = args.options(&client, &paths)?;
    let wanted = publish::Options {
        dry_run: true,
        trust: if args.is_trusting() {
            Trust::Inventory
        } else {
            Trust::Bucket
        },
        deletes: Deletes::UpTo(u64::MAX),
        allow_empty: true,
        ..usual
    };
    run_shown(options, Words::Answer, async move |sink| {
        // Objects that nobody here put there are named as such when they would be deleted.
        let strange = Mutex::new(HashSet::new());
        let tell = |event| {
            let mut strange = strange.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            let change = match event {
                Event::Drifted {
                    key,
                    drift: Drift::Unknown,
                } => {
                    strange.insert(key);
                    return;
                }
                Event::Drifted { .. } => return,
                Event::Uploaded { key, bytes, why, .. } => {
                    let (change, what) = said(why);
                    changed(key, change, what, Some(bytes))
                }
                Event::Headers { key } => changed(key, ChangeKind::Metadata, "headers", None),
                Event::Deleted { key } => {
                    let what = if strange.remove(&key) {
                        "put there by others"
                    } else {
                        "has no file"
                    };
                    changed(key, ChangeKind::Removed, what, None)
                }
                other => return tell(&sink, other, true),
            };
            let _closed = sink.send_blocking(Message::Change(change));
        };
        let summary = publish::publish(&wanted, &client, &tell, sink.stop()).await?;
        let exit = match summary.broken {
            0 => Exit::Done,
            _ => Exit::SourceUnreadable,
        };
        Ok((Some(Summary::Publish(summarized(&summary, true))), exit))
    })
    .await
}

fn said(why: Why) -> (ChangeKind, &'static str) {
    match why {
        Why::New => (ChangeKind::Added, "new"),
        Why::Content => (ChangeKind::Modified, "content"),
        Why::Stored => (ChangeKind::Modified, "how it is compressed"),
        Why::Interrupted => (ChangeKind::Modified, "its upload was interrupted"),
        Why::Missing => (ChangeKind::Added, "removed by others"),
        Why::Others => (ChangeKind::Modified, "changed by others"),
    }
}

fn changed(key: String, change: ChangeKind, what: &str, bytes_after: Option<u64>) -> Change {
    Change {
        path: PathName(key.into_bytes()),
        change,
        kind: EntryKind::Object,
        what: vec![what.to_owned()],
        bytes_before: None,
        bytes_after,
    }
}
