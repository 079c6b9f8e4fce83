//! Tags and pins of snapshots: recorded here, and told to peers with the next head, so that they outlive the machine.

use std::collections::BTreeSet;

use api::failure::{Exit, Failure};
use api::message::{Changed, Deed, Keeper, Problem, Thing};
use api::output::Sink;
use api::request::{Forget, Tag};
use backup::catalog::tree;
use backup::catalog::tree::{Marks, Snapshot};
use backup::retention::Reason;
use database::DbError;
use proto::root::{TAGS_MAX, check_tag};

use crate::Engine;

impl Engine {
    pub(super) async fn tag(&self, request: &Tag, sink: &Sink) -> Result<Exit, Failure> {
        let named = request
            .add
            .iter()
            .chain(&request.remove)
            .chain(request.set.iter().flatten());
        for tag in named {
            check_tag(tag).map_err(|error| Failure::new(Exit::Usage, error))?;
        }
        self.meet_heads_before_marking().await?;
        let snapshots = self.all_named(&request.snapshots)?;
        let changed = self.0.db.write_durable(|tx| {
            let known = tree::marks(tx)?;
            let mut changed = Vec::new();
            for snapshot in &snapshots {
                let seq = snapshot.record.seq;
                let before = known.get(&seq).map(|marks| marks.tags.clone()).unwrap_or_default();
                let after = tags_after(request, &before);
                if after != before {
                    tree::set_tags(tx, seq, &after)?;
                }
                changed.push(after != before);
            }
            let all: BTreeSet<String> = tree::marks(tx)?.into_values().flat_map(|marks| marks.tags).collect();
            if all.len() > TAGS_MAX {
                let error = format!("There would be {} different tags, {TAGS_MAX} are possible", all.len());
                return Err(Failure::new(Exit::Failed, error).hint("remove some with `gridbackup tag --remove`"));
            }
            Ok(changed)
        })?;
        self.say_marked(&snapshots, &changed, sink).await
    }

    pub(super) async fn pin(&self, names: &[String], pinned: bool, sink: &Sink) -> Result<Exit, Failure> {
        self.meet_heads_before_marking().await?;
        let snapshots = self.all_named(names)?;
        let seqs: Vec<u64> = snapshots.iter().map(|snapshot| snapshot.record.seq).collect();
        let changed = self.0.db.write_durable(|tx| {
            let known = tree::marks(tx)?;
            match pinned {
                true => tree::pin(tx, &seqs)?,
                false => tree::unpin(tx, &seqs)?,
            }
            let was = |seq| known.get(seq).is_some_and(|marks| marks.pinned);
            Ok::<_, DbError>(seqs.iter().map(|seq| was(seq) != pinned).collect::<Vec<_>>())
        })?;
        self.say_marked(&snapshots, &changed, sink).await
    }

    /// A mark in a catalog that is behind would be gone with it. A backup that runs has asked peers, and is not waited for.
    async fn meet_heads_before_marking(&self) -> Result<(), Failure> {
        match self.0.busy.try_lock() {
            Ok(_busy) => self.meet_heads().await,
            Err(_) => Ok(()),
        }
    }

    fn all_named(&self, names: &[String]) -> Result<Vec<Snapshot>, Failure> {
        names.iter().map(|name| self.find_snapshot(name)).collect()
    }

    async fn say_marked(&self, snapshots: &[Snapshot], changed: &[bool], sink: &Sink) -> Result<Exit, Failure> {
        for (snapshot, changed) in snapshots.iter().zip(changed) {
            let action = if *changed { Deed::Changed } else { Deed::Unchanged };
            sink.send(Changed::new(action, Thing::Snapshot, snapshot.record.id.to_string()))
                .await?;
        }
        // A backup that runs posts with its next head; nobody is made to wait for that.
        let posted = match self.0.busy.try_lock() {
            Ok(_busy) => self.post_head().await?,
            Err(_) => return Ok(Exit::Done),
        };
        if posted {
            return Ok(Exit::Done);
        }
        let error = "Too few peers took the new head: it is recorded here only, until the next backup";
        sink.send(Problem::new(error)).await?;
        Ok(Exit::UnderProtected)
    }
}

fn tags_after(request: &Tag, before: &BTreeSet<String>) -> BTreeSet<String> {
    let mut tags = match &request.set {
        Some(set) => set.iter().cloned().collect(),
        None => before.clone(),
    };
    tags.extend(request.add.iter().cloned());
    tags.retain(|tag| !request.remove.contains(tag));
    tags
}

/// What keeps a snapshot: its age, as it was judged, and its marks.
pub(super) fn keepers(reasons: &[Reason], marks: Option<&Marks>, request: &Forget) -> Vec<Keeper> {
    let by_age = reasons.iter().map(|reason| match reason {
        Reason::Last => Keeper::Last,
        Reason::Within => Keeper::Within,
        Reason::Hourly => Keeper::Hourly,
        Reason::Daily => Keeper::Daily,
        Reason::Weekly => Keeper::Weekly,
        Reason::Monthly => Keeper::Monthly,
        Reason::Yearly => Keeper::Yearly,
        Reason::Clock => Keeper::Clock,
    });
    let is_tagged = |marks: &&Marks| request.keep_tags.iter().any(|tag| marks.tags.contains(tag));
    let tag = marks.filter(is_tagged).map(|_| Keeper::Tag);
    let pin = marks.filter(|marks| marks.pinned).map(|_| Keeper::Pinned);
    by_age.chain(tag).chain(pin).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_set_then_added_then_removed() {
        let tags = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
        let before: BTreeSet<String> = tags(&["a", "b"]).into_iter().collect();
        let mut request = Tag {
            snapshots: Vec::new(),
            add: tags(&["c"]),
            remove: tags(&["a"]),
            set: None,
        };
        let after = |request: &Tag| tags_after(request, &before).into_iter().collect::<Vec<_>>();
        assert_eq!(after(&request), ["b", "c"]);
        request.set = Some(tags(&["x"]));
        assert_eq!(after(&request), ["c", "x"]);
        request.set = Some(Vec::new());
        request.add.clear();
        assert!(after(&request).is_empty());
    }
}
