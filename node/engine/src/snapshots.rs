//! The list of snapshots: which of them, in what groups, and what the owner said of them.

use std::collections::{BTreeMap, HashMap};

use api::failure::{Exit, Failure};
use api::message::Group;
use api::output::Sink;
use api::request::{GroupBy, SnapshotFilter};
use api::{clock, message};
use backup::catalog::broken::Broken;
use backup::catalog::tree::{Marks, Snapshot};
use backup::catalog::{heads, tree};
use database::DbError;
use proto::id::SnapshotId;
use upload_queue::packs::Counter;

use crate::Engine;

/// A snapshot with all that its line says.
struct Listed {
    snapshot: Snapshot,
    complete: bool,
    broken: bool,
    marks: Marks,
    parent: Option<SnapshotId>,
    /// The name of the device that made it.
    device_name: String,
}

impl Engine {
    pub(super) async fn list_snapshots(&self, filter: &SnapshotFilter, sink: &Sink) -> Result<Exit, Failure> {
        let mut listed = self.listed()?;
        listed.retain(|listed| fits(listed, filter));
        let mut groups: BTreeMap<Vec<String>, Vec<Listed>> = BTreeMap::new();
        for listed in listed {
            groups.entry(key(&listed, &filter.group_by)).or_default().push(listed);
        }
        let last = filter
            .last
            .map_or(usize::MAX, |last| usize::try_from(last).unwrap_or(usize::MAX));
        for (key, group) in groups {
            let skipped = group.len().saturating_sub(last);
            let shown = &group[skipped..];
            if !filter.group_by.is_empty() {
                sink.send(Group {
                    by: filter.group_by.clone(),
                    name: key.join("; "),
                    snapshots: shown.len() as u64,
                })
                .await?;
            }
            for listed in shown {
                sink.send(message(listed)).await?;
            }
        }
        Ok(Exit::Done)
    }

    /// All snapshots that are not forgotten, oldest first.
    fn listed(&self) -> Result<Vec<Listed>, Failure> {
        let own = &self.0.home.cert;
        let scene = self.scene(None);
        let listed = self.0.db.read(|conn| {
            let snapshots = tree::by_time(tree::kept(conn)?);
            let names = heads::names(conn)?;
            let broken = Broken::find(conn, &Counter::new(conn, &|key| scene.is_known(key))?)?;
            let ids: HashMap<u64, SnapshotId> = snapshots
                .iter()
                .map(|snapshot| (snapshot.record.seq, snapshot.record.id))
                .collect();
            let mut marks = tree::marks(conn)?;
            let listed = snapshots.into_iter().map(|snapshot| {
                let seq = snapshot.record.seq;
                Ok::<_, DbError>(Listed {
                    complete: tree::snapshot_complete(conn, seq)?,
                    broken: broken.is_broken(&snapshot.record),
                    marks: marks.remove(&seq).unwrap_or_default(),
                    parent: snapshot.record.parent.and_then(|parent| ids.get(&parent).copied()),
                    device_name: match snapshot.device == own.device {
                        true => own.name.clone(),
                        false => names.get(&snapshot.device).cloned().unwrap_or_default(),
                    },
                    snapshot,
                })
            });
            listed.collect::<Result<Vec<_>, DbError>>()
        });
        Ok(listed?)
    }
}

fn fits(listed: &Listed, filter: &SnapshotFilter) -> bool {
    let record = &listed.snapshot.record;
    let device = filter.device.as_ref().is_none_or(|device| {
        let id = listed.snapshot.device.to_string();
        listed.device_name == *device || id.starts_with(&device.to_ascii_lowercase())
    });
    let path = filter
        .path
        .as_ref()
        .is_none_or(|path| record.source_roots.iter().any(|root| tree::covers(&root.0, &path.0)));
    device && path && filter.tags.iter().all(|tag| listed.marks.tags.contains(tag))
}

/// What the snapshots of a group have in common.
fn key(listed: &Listed, group_by: &[GroupBy]) -> Vec<String> {
    let part = |by: &GroupBy| match by {
        GroupBy::Device if listed.device_name.is_empty() => format!("device {}", listed.snapshot.device.short()),
        GroupBy::Device => format!("device {} ({})", listed.device_name, listed.snapshot.device.short()),
        GroupBy::Path => format!("paths {}", paths(&listed.snapshot).join(", ")),
        GroupBy::Tag if listed.marks.tags.is_empty() => "no tags".to_owned(),
        GroupBy::Tag => format!("tags {}", tags(&listed.marks).join(", ")),
    };
    group_by.iter().map(part).collect()
}

fn paths(snapshot: &Snapshot) -> Vec<String> {
    let roots = snapshot.record.source_roots.iter();
    roots
        .map(|root| String::from_utf8_lossy(&root.0).into_owned())
        .collect()
}

fn tags(marks: &Marks) -> Vec<String> {
    marks.tags.iter().cloned().collect()
}

fn message(listed: &Listed) -> message::Snapshot {
    let record = &listed.snapshot.record;
    message::Snapshot {
        id: record.id.to_string(),
        device: listed.snapshot.device.short(),
        device_name: listed.device_name.clone(),
        time: clock::timestamp(record.time_ns),
        complete: listed.complete,
        files: record.files,
        bytes: record.bytes,
        parent: listed.parent.map(|id| id.to_string()),
        paths: paths(&listed.snapshot),
        tags: tags(&listed.marks),
        pinned: listed.marks.pinned,
        broken: listed.broken,
    }
}
