//! What changed between two snapshots.

use api::failure::{Exit, Failure, Kind};
use api::message;
use api::message::{ChangeKind, DiffSummary, PathName, Summary};
use api::output::Sink;
use api::output::unwaiting::Unwaiting;
use api::request::Diff;
use backup::catalog::changes::{Aspect, Change};
use backup::catalog::tree::{Pair, Snapshot};
use backup::catalog::{changes, tree};
use proto::log_record::{Entry, EntryKind};

use crate::{Engine, failures};

impl Engine {
    pub(super) async fn diff(&self, asked: Diff, sink: &Sink) -> Result<Exit, Failure> {
        let snapshots = Pair {
            before: self.find_snapshot(&asked.before)?,
            after: self.find_snapshot(&asked.after)?,
        };
        let path = asked.path.map_or_else(|| b"/".to_vec(), |path| path.0);
        let (engine, to) = (self.clone(), sink.clone());
        let comparing = move || engine.say_changes(&snapshots, &path, &to);
        let summary = tokio::task::spawn_blocking(comparing)
            .await
            .map_err(failures::worker)??;
        sink.send(Summary::Diff(summary)).await?;
        Ok(Exit::Done)
    }

    fn say_changes(&self, snapshots: &Pair<Snapshot>, path: &[u8], sink: &Sink) -> Result<DiffSummary, Failure> {
        let (before, after) = (&snapshots.before.record, &snapshots.after.record);
        let seqs = Pair {
            before: before.seq,
            after: after.seq,
        };
        let mut summary = DiffSummary {
            before: before.id.to_string(),
            after: after.id.to_string(),
            ..DiffSummary::default()
        };
        let mut said = Unwaiting::new(sink);
        self.0.db.read(|conn| {
            let nowhere =
                || Ok::<_, Failure>(tree::entry(conn, seqs.before, path)?.or(tree::entry(conn, seqs.after, path)?));
            if path != b"/" && nowhere()?.is_none() {
                let error = format!("`{}` is in neither snapshot", String::from_utf8_lossy(path));
                return Err(Failure::new(Exit::Failed, error)
                    .kind(Kind::NotFound)
                    .hint("`gridbackup ls SNAPSHOT` lists what is"));
            }
            tree::diff(conn, seqs, path, &mut |path, entries| {
                if let Some((change, aspects)) = changes::change(conn, entries)? {
                    let message = change_message(path, entries, change, &aspects);
                    count(&mut summary, change, &message);
                    said.say(message)?;
                }
                Ok(true)
            })
        })?;
        said.finish()?;
        Ok(summary)
    }
}

fn change_message(path: &[u8], entries: Pair<Option<&Entry>>, change: Change, aspects: &[Aspect]) -> message::Change {
    let bytes = |entry: &Entry| entry.meta.size;
    let kind = entries
        .after
        .or(entries.before)
        .map_or(EntryKind::File, |entry| entry.kind);
    let aspects = aspects.iter().map(|aspect| match aspect {
        Aspect::Content => "content",
        Aspect::Mode => "mode",
        Aspect::Owner => "owner",
        Aspect::Time => "time",
        Aspect::Xattrs => "xattrs",
    });
    message::Change {
        path: PathName(path.to_vec()),
        change: match change {
            Change::Added => ChangeKind::Added,
            Change::Removed => ChangeKind::Removed,
            Change::Type => ChangeKind::Type,
            Change::Modified => ChangeKind::Modified,
            Change::Metadata => ChangeKind::Metadata,
        },
        kind: kind.into(),
        what: aspects.map(str::to_owned).collect(),
        bytes_before: entries.before.map(bytes),
        bytes_after: entries.after.map(bytes),
    }
}

fn count(summary: &mut DiffSummary, change: Change, message: &message::Change) {
    let counter = match change {
        Change::Added => &mut summary.added,
        Change::Removed => &mut summary.removed,
        Change::Type => &mut summary.type_changed,
        Change::Modified => &mut summary.modified,
        Change::Metadata => &mut summary.metadata,
    };
    *counter += 1;
    if change != Change::Metadata {
        summary.bytes_removed += message.bytes_before.unwrap_or(0);
        summary.bytes_added += message.bytes_after.unwrap_or(0);
    }
}
