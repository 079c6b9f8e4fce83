//! `status FILE`: how one file or folder stands, by the catalog and by a look at it on the disk.

use std::path::Path;

use api::clock;
use api::failure::{Exit, Failure};
use api::message::{FileState, FileStatus, PathName};
use api::output::Sink;
use backup::catalog::protection::{Gauge, Measure, Standing, visit_below};
use backup::catalog::tree::{Newest, covers};
use backup::catalog::trouble::{Kind, Trouble};
use backup::catalog::{tree, trouble};
use backup::exclude::Rules;
use backup::scan::{Glance, glance};
use database::DbError;
use proto::log_record::{Entry, EntryKind};
use rusqlite::Connection;

use crate::config::Config;
use crate::facts::Scene;
use crate::policy::{peers_within, tolerate};
use crate::{Engine, facts, failures};

/// What all paths of one question are looked at with.
struct Looker<'a> {
    conn: &'a Connection,
    config: &'a Config,
    rules: Rules,
    gauge: Gauge<'a>,
    /// Folders that are backed up.
    folders: Vec<Vec<u8>>,
    /// Roots of all snapshots.
    roots: Vec<Vec<u8>>,
    /// The newest snapshot.
    newest: Option<u64>,
}

impl Engine {
    pub(super) async fn file_status(&self, paths: &[PathName], sink: &Sink) -> Result<Exit, Failure> {
        let (db, scene, paths) = (self.0.db.clone(), self.scene(None), paths.to_vec());
        let looking = move || db.read::<_, Failure>(|conn| look(conn, &scene, &paths));
        let answers = tokio::task::spawn_blocking(looking).await.map_err(failures::worker)??;
        send(answers, sink).await
    }
}

/// Sends the answers; the exit code is the greatest of theirs.
pub(super) async fn send(answers: Vec<FileStatus>, sink: &Sink) -> Result<Exit, Failure> {
    let mut exit = Exit::Done;
    for answer in answers {
        exit = exit_of(answer.state).max(exit);
        sink.send(answer).await?;
    }
    Ok(exit)
}

fn exit_of(state: FileState) -> Exit {
    match state {
        FileState::Protected => Exit::Done,
        FileState::Unreadable => Exit::SourceUnreadable,
        _ => Exit::UnderProtected,
    }
}

/// The answers; blocking.
pub(super) fn look(conn: &Connection, scene: &Scene, paths: &[PathName]) -> Result<Vec<FileStatus>, Failure> {
    let config = &scene.config;
    let rules = Rules::new(&config.exclude).map_err(|error| Failure::from_error(&error).exit(Exit::Usage))?;
    let snapshots = tree::kept(conn)?;
    let roots = snapshots.iter().flat_map(|snapshot| &snapshot.record.source_roots);
    let mut looker = Looker {
        conn,
        config,
        rules,
        gauge: Gauge::new(conn, tolerate(config), &|key| scene.is_known(key))?,
        folders: facts::folders(config),
        roots: roots.map(|root| root.0.clone()).collect(),
        newest: snapshots.last().map(|snapshot| snapshot.record.seq),
    };
    let answers = paths.iter().map(|path| looker.answer(path));
    Ok(answers.collect::<Result<_, DbError>>()?)
}

impl Looker<'_> {
    fn answer(&mut self, path: &PathName) -> Result<FileStatus, DbError> {
        let mut status = FileStatus {
            path: path.clone(),
            state: FileState::Unknown,
            domains: 0,
            tolerates: 0,
            reason: None,
        };
        let real = real(path);
        let known = tree::newest(self.conn, &real)?.filter(|known| known.is_shown(self.newest));
        let measure = match &known {
            Some(known) => self.measure(&real, known)?,
            None => None,
        };
        if let Some(measure) = measure {
            let tolerates = peers_within(self.config, measure.tolerates.into());
            (status.domains, status.tolerates) = (measure.held, tolerates as u32);
        }
        let (state, reason) = self.decide(&real, known.as_ref(), measure)?;
        (status.state, status.reason) = (state, reason);
        Ok(status)
    }

    fn decide(
        &self,
        path: &[u8],
        known: Option<&Newest>,
        measure: Option<Measure>,
    ) -> Result<(FileState, Option<String>), DbError> {
        let found = std::fs::symlink_metadata(as_path(path));
        let is_there = found.is_ok();
        for kind in [Kind::Unread, Kind::Unseen, Kind::Partial] {
            // What could not be listed is not known below, either.
            let concerns = |trouble: &Trouble| kind == Kind::Unseen || trouble.subject == path;
            if let Some(trouble) = trouble::at(self.conn, kind, path)?.filter(concerns)
                && (is_there || known.is_some_and(|known| known.until.is_none()))
            {
                let since = clock::timestamp(trouble.since_ns);
                let reason = format!("{}: {}, since {since:.0}", shown(&trouble.subject), trouble.reason);
                return Ok((FileState::Unreadable, Some(reason)));
            }
        }
        let root = self.root_of(path);
        if let (Ok(meta), Some(root)) = (&found, root)
            && let Some(by) = self.rules.why(root, path, meta.is_dir())
        {
            return Ok((FileState::Excluded, Some(by.to_string())));
        }
        Ok(match (known, found) {
            (None, Err(error)) => (FileState::Missing, Some(error.to_string())),
            (None, Ok(_)) if root.is_some() => (
                FileState::Unknown,
                Some("it is newer than the last backup of its folder".to_owned()),
            ),
            (None, Ok(_)) => (
                FileState::Unknown,
                Some("it is in no folder that is backed up".to_owned()),
            ),
            (Some(_), Err(error)) if is_absence(&error) => (
                FileState::Deleted,
                Some("it is not there any more; it was backed up".to_owned()),
            ),
            (Some(_), Err(error)) => (FileState::Unreadable, Some(error.to_string())),
            (Some(known), Ok(_)) if known.until.is_some() => (
                FileState::Changed,
                Some("it is there again, after a backup in which it was not".to_owned()),
            ),
            (Some(known), Ok(_)) => match self.changed(path, known)? {
                Some(reason) => (FileState::Changed, Some(reason)),
                None => (
                    state_of(measure.map_or(Standing::Protected, |measure| measure.standing)),
                    None,
                ),
            },
        })
    }

    /// The folder that is backed up in which a path lies; the root of a snapshot if no folder of the config is.
    fn root_of(&self, path: &[u8]) -> Option<&[u8]> {
        let all = self.folders.iter().chain(&self.roots);
        all.map(Vec::as_slice).find(|root| covers(root, path))
    }

    /// How it stands, or the worst of everything below it; `None` if there is nothing to protect.
    fn measure(&mut self, path: &[u8], known: &Newest) -> Result<Option<Measure>, DbError> {
        if known.entry.kind != EntryKind::Directory {
            return self.gauge.measure(known.since, &known.entry).map(Some);
        }
        let Some(snapshot) = self.newest.filter(|_| known.until.is_none()) else {
            return Ok(None);
        };
        self.gauge.worst_below(snapshot, path)
    }

    /// What on the disk differs from what was backed up of it.
    fn changed(&self, path: &[u8], known: &Newest) -> Result<Option<String>, DbError> {
        let Some(snapshot) = self.newest.filter(|_| known.entry.kind == EntryKind::Directory) else {
            return Ok(difference(path, &known.entry));
        };
        let mut found = None;
        visit_below(self.conn, snapshot, path, &mut |path, entry| {
            // What only leads to a folder that is backed up may change as it likes.
            let is_inside = self.roots.iter().any(|root| covers(root, path));
            found = difference(path, entry).filter(|_| is_inside);
            Ok(found.is_none())
        })?;
        Ok(found)
    }
}

fn difference(path: &[u8], known: &Entry) -> Option<String> {
    match glance(path, known) {
        Glance::Same => None,
        Glance::Changed => Some(format!("{} changed after it was backed up", shown(path))),
        Glance::Gone => Some(format!("{} went after it was backed up", shown(path))),
        Glance::Unseen(reason) => Some(format!("{} cannot be looked at: {reason}", shown(path))),
    }
}

fn state_of(standing: Standing) -> FileState {
    match standing {
        Standing::Protected => FileState::Protected,
        Standing::AtRisk => FileState::AtRisk,
        Standing::Waiting => FileState::Waiting,
        Standing::Lost => FileState::Lost,
    }
}

/// As snapshots name it: links in the folders above are followed, the last name is itself.
fn real(path: &PathName) -> Vec<u8> {
    let typed = path.to_path();
    let real = match (typed.parent(), typed.file_name()) {
        (Some(parent), Some(name)) => std::fs::canonicalize(parent).map(|parent| parent.join(name)),
        _ => return path.0.clone(),
    };
    real.map_or_else(|_| path.0.clone(), |real| PathName::from(real.as_path()).0)
}

fn is_absence(error: &std::io::Error) -> bool {
    matches!(
        error.kind(),
        std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory
    )
}

fn as_path(path: &[u8]) -> &Path {
    use std::os::unix::ffi::OsStrExt;
    Path::new(std::ffi::OsStr::from_bytes(path))
}

fn shown(path: &[u8]) -> String {
    String::from_utf8_lossy(path).into_owned()
}
