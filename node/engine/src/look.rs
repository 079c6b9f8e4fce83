//! Looking at snapshots and the queue; reading one file.

use std::io::{self, Write};

use api::failure::{Exit, Failure, Kind};
use api::message::PathName;
use api::output::Sink;
use api::output::unwaiting::Unwaiting;
use api::request::List;
use api::{clock, message};
use backup::catalog::tree;
use backup::catalog::tree::Snapshot;
use backup::restore::Reader;
use bytes::Bytes;
use proto::log_record;
use proto::log_record::{Content, EntryKind};
use upload_queue::job::JobState;

use crate::{Engine, failures};

/// Bytes of packs that a restore or `cat` holds in memory (chosen: three packs of five peers fetched side by side).
const READ_BYTES_IN_FLIGHT_MAX: usize = 96 << 20;

impl Engine {
    pub(super) async fn list_queue(&self, limit: u64, sink: &Sink) -> Result<Exit, Failure> {
        let jobs = self.0.queue.list(usize::try_from(limit).unwrap_or(usize::MAX))?;
        for job in jobs {
            let message = message::Job {
                path: PathName(job.path),
                bytes: job.bytes,
                score: job.score.total,
                recency: job.score.recency,
                size: job.score.size,
                class: job.score.class,
                class_name: job.class,
                ageing: job.score.ageing,
                state: match job.state {
                    JobState::Waiting => message::JobState::Waiting,
                    JobState::Leased => message::JobState::Leased,
                    JobState::Sending => message::JobState::Sending,
                },
            };
            sink.send(message).await?;
        }
        let spool = self.spool()?;
        if spool.bytes > 0 {
            sink.send(spool).await?;
        }
        Ok(Exit::Done)
    }

    /// The snapshot that a name means.
    pub(super) fn find_snapshot(&self, name: &str) -> Result<Snapshot, Failure> {
        self.0
            .db
            .read(|conn| tree::find_snapshot(conn, name, &clock::utc_offset_secs))
            .map_err(failures::find)
    }

    pub(super) async fn list(&self, asked: List, sink: &Sink) -> Result<Exit, Failure> {
        let snapshot = self.find_snapshot(&asked.snapshot)?;
        let recursive = asked.recursive;
        let paths = match asked.path {
            Some(path) => vec![path.0],
            None => snapshot.record.source_roots.iter().map(|root| root.0.clone()).collect(),
        };
        let (engine, to) = (self.clone(), sink.clone());
        let listing = move || {
            paths
                .iter()
                .try_for_each(|path| engine.list_path(&snapshot, path, recursive, &to))
        };
        tokio::task::spawn_blocking(listing).await.map_err(failures::worker)??;
        Ok(Exit::Done)
    }

    fn list_path(&self, snapshot: &Snapshot, path: &[u8], recursive: bool, sink: &Sink) -> Result<(), Failure> {
        let (seq, id) = (snapshot.record.seq, snapshot.record.id.to_string());
        let missing = || {
            let path = String::from_utf8_lossy(path);
            Failure::new(
                Exit::Failed,
                format!("`{path}` is not in snapshot {}", snapshot.record.id.short()),
            )
            .kind(Kind::NotFound)
            .hint(format!("`gridbackup ls {}` lists what is", snapshot.record.id.short()))
        };
        let mut said = Unwaiting::new(sink);
        self.0.db.read(|conn| {
            let entry = tree::entry(conn, seq, path)?.ok_or_else(missing)?;
            let mut say = |path: &[u8], entry: &log_record::Entry| said.say(entry_message(path, entry, &id));
            if entry.kind != EntryKind::Directory {
                return say(path, &entry);
            }
            if recursive {
                return tree::walk(conn, seq, path, &mut |path, entry| {
                    say(path, entry)?;
                    Ok(true)
                });
            }
            for child in tree::children(conn, seq, path)? {
                say(&join(path, &child.name), &child)?;
            }
            Ok(())
        })?;
        said.finish()
    }

    pub(super) async fn cat(&self, snapshot: &str, path: &PathName, sink: &Sink) -> Result<Exit, Failure> {
        let snapshot = self.find_snapshot(snapshot)?;
        let reader = self.reader().await?;
        let (path, mut out) = (path.0.clone(), SinkWriter(sink.clone()));
        let reading = move || reader.cat(snapshot.record.seq, &path, &mut out);
        tokio::task::spawn_blocking(reading)
            .await
            .map_err(failures::worker)?
            .map_err(failures::read)?;
        Ok(Exit::Done)
    }

    /// The read side, with every peer that can be reached.
    pub(super) async fn reader(&self) -> Result<Reader, Failure> {
        self.connect().await?;
        Ok(Reader {
            db: self.0.db.clone(),
            peers: self.0.peers.clone(),
            spool: None,
            keys: self.0.home.account.clone().into(),
            runtime: tokio::runtime::Handle::current(),
            bytes_in_flight_max: READ_BYTES_IN_FLIGHT_MAX,
        })
    }
}

fn join(folder: &[u8], name: &[u8]) -> Vec<u8> {
    let folder = folder.strip_suffix(b"/").unwrap_or(folder);
    [folder, name].join(&b'/')
}

pub(super) fn entry_message(path: &[u8], entry: &log_record::Entry, snapshot: &str) -> message::Entry {
    let link_target = match (&entry.content, entry.kind) {
        (Content::Inline(target), EntryKind::Symlink) => Some(String::from_utf8_lossy(target).into_owned()),
        _ => None,
    };
    message::Entry {
        path: PathName(path.to_vec()),
        kind: entry.kind.into(),
        bytes: entry.meta.size,
        mode: entry.meta.mode,
        uid: entry.meta.uid,
        gid: entry.meta.gid,
        mtime: clock::timestamp(entry.meta.mtime_ns),
        snapshot: snapshot.to_owned(),
        link_target,
        first_snapshot: None,
        snapshots: None,
    }
}

/// Content on its way to the reader of a sink.
pub(super) struct SinkWriter(pub(super) Sink);

impl Write for SinkWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let sent = self.0.bytes_blocking(Bytes::copy_from_slice(bytes));
        sent.map(|()| bytes.len()).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
