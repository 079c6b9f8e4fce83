//! The way back: objects become files again, with their bytes, times and modes, each checked before it takes its place.
//!
//! Leaves out: generated pages, redirects and the lock, which were never files.

use std::path::{Path, PathBuf};

use futures::{StreamExt, stream};
use s3::{Client, ListOptions, shown};
use tokio_util::sync::CancellationToken;

use crate::error::PublishError;
use crate::event::Event;
use crate::lock::is_lock;
use crate::routes::Routes;

mod extra;
mod fetch;
mod place;

use fetch::{Fetched, fetch};
use place::Place;

/// Where events go.
type Sink<'a> = &'a (dyn Fn(Event) + Send + Sync);

/// A restore.
#[derive(Clone, Debug)]
pub struct RestoreOptions {
    /// Where the files go.
    pub target: PathBuf,
    /// Only these names below the prefix, and what lies below them; none: all.
    pub paths: Vec<String>,
    /// Most local files without an object that are removed; none: they stay.
    pub deletes_max: Option<u64>,
    /// Folders in which nothing is removed, wherever they are.
    pub protected: Vec<PathBuf>,
    /// What these do not publish has no object, and is not removed.
    pub routes: Routes,
    /// Nothing is fetched, written or removed.
    pub dry_run: bool,
    /// Most objects on their way at once.
    pub workers_max: usize,
}

/// What a restore did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Restored {
    /// Objects that are files.
    pub files: u64,
    /// Of these: right already.
    pub unchanged: u64,
    /// Fetched.
    pub restored: u64,
    /// Bytes received for them.
    pub received_bytes: u64,
    /// Of these: checked by length alone, because nothing else says what their bytes should be.
    pub unverified: u64,
    /// Objects that are no files: generated pages, redirects.
    pub skipped: u64,
    /// Local files that were removed.
    pub deleted: u64,
    /// Keys that cannot be files here.
    pub refused: u64,
    /// Objects that could not be fetched or written.
    pub failed: u64,
    /// Requests sent.
    pub requests: u64,
}

/// Makes files of the objects at the client's location. Objects that fail are events; the rest goes on.
///
/// When `stop` is cancelled, whole files stay, and the next run goes on from there.
pub async fn restore(
    options: &RestoreOptions,
    client: &Client,
    sink: Sink<'_>,
    stop: &CancellationToken,
) -> Result<Restored, PublishError> {
    let requests = client.requests();
    let mut run = Restoring {
        options,
        client,
        sink,
        summary: Restored::default(),
    };
    tokio::select! {
        ended = run.all() => ended?,
        () = stop.cancelled() => return Err(PublishError::Stopped),
    }
    run.summary.requests = client.requests() - requests;
    Ok(run.summary)
}

struct Restoring<'a> {
    options: &'a RestoreOptions,
    client: &'a Client,
    sink: Sink<'a>,
    summary: Restored,
}

impl Restoring<'_> {
    async fn all(&mut self) -> Result<(), PublishError> {
        let target = &self.options.target;
        let unwritable = |source| PublishError::Target {
            path: target.clone(),
            source,
        };
        if !self.options.dry_run {
            std::fs::create_dir_all(target).map_err(unwritable)?;
        }
        let mut extra = extra::Extra::new(target);
        let mut unmatched = self.options.paths.clone();
        let prefix = self.client.location().prefix.clone().into_bytes();
        let mut listing = ListOptions {
            prefix: prefix.clone(),
            ..ListOptions::default()
        };
        loop {
            let batch = self.client.list(&listing).await?;
            let mut wanted = Vec::new();
            for object in batch.objects {
                let name = &object.key[prefix.len()..];
                unmatched.retain(|path| !is_below(path, name));
                if is_lock(&object.key) || !self.is_wanted(name) {
                    continue;
                }
                match Place::of(target, name) {
                    Ok(place) => {
                        if self.options.deletes_max.is_some() {
                            extra.keep(&place.path);
                        }
                        wanted.push((object, place));
                    }
                    Err(why) => {
                        self.summary.refused += 1;
                        (self.sink)(Event::Broken {
                            path: shown(&object.key),
                            why: why.to_owned(),
                        });
                    }
                }
            }
            self.batch(wanted).await?;
            listing.token = batch.next;
            if listing.token.is_none() {
                break;
            }
        }
        for path in unmatched {
            self.summary.failed += 1;
            (self.sink)(Event::Failed {
                key: path,
                why: "no object is called so, or lies below it".to_owned(),
            });
        }
        self.remove(&extra)
    }

    fn is_wanted(&self, name: &[u8]) -> bool {
        self.options.paths.is_empty() || self.options.paths.iter().any(|path| is_below(path, name))
    }

    async fn batch(&mut self, wanted: Vec<(s3::Listed, Place)>) -> Result<(), PublishError> {
        let (client, dry_run) = (self.client, self.options.dry_run);
        let fetching = stream::iter(wanted).map(|(object, place)| async move {
            let fetched = fetch(client, &object, &place, dry_run).await;
            (object, fetched)
        });
        let mut fetching = fetching.buffer_unordered(self.options.workers_max.max(1));
        while let Some((object, fetched)) = fetching.next().await {
            let key = shown(&object.key);
            match fetched {
                Ok(Fetched::Skipped) => {
                    self.summary.skipped += 1;
                    continue;
                }
                Ok(Fetched::Unchanged) => self.summary.unchanged += 1,
                Ok(Fetched::Written { bytes, is_verified }) => {
                    self.summary.restored += 1;
                    self.summary.received_bytes += bytes;
                    self.summary.unverified += u64::from(!is_verified);
                    (self.sink)(Event::Restored { key, bytes });
                }
                Err(fetch::FetchError::S3(error)) if error.is_general() => return Err(error.into()),
                Err(error) => {
                    self.summary.failed += 1;
                    (self.sink)(Event::Failed {
                        key,
                        why: error.to_string(),
                    });
                }
            }
            self.summary.files += 1;
            (self.sink)(Event::Progress {
                files: self.summary.files,
                done: self.summary.restored,
                needed: self.summary.files,
            });
        }
        Ok(())
    }

    /// Local files without an object, if that was asked for and they are not too many.
    fn remove(&mut self, extra: &extra::Extra) -> Result<(), PublishError> {
        let Some(deletes_max) = self.options.deletes_max else {
            return Ok(());
        };
        let unwritable = |source| PublishError::Target {
            path: self.options.target.clone(),
            source,
        };
        let wanted = |path: &Path| {
            let name = path.strip_prefix(&self.options.target).unwrap_or(path);
            let name = std::os::unix::ffi::OsStrExt::as_bytes(name.as_os_str());
            self.is_wanted(name) && self.options.routes.wish(name).is_some()
        };
        let files = extra.files(&self.options.protected, &wanted).map_err(unwritable)?;
        let deletes = files.len() as u64;
        if deletes > deletes_max {
            return Err(PublishError::TooManyFiles { deletes, deletes_max });
        }
        if self.summary.failed > 0 {
            return Ok(());
        }
        for file in files {
            if !self.options.dry_run {
                std::fs::remove_file(&file).map_err(unwritable)?;
            }
            self.summary.deleted += 1;
            (self.sink)(Event::Deleted {
                key: file.display().to_string(),
            });
        }
        Ok(())
    }
}

/// Whether a name is the path that was asked for, or below it.
fn is_below(path: &str, name: &[u8]) -> bool {
    let path = path.trim_matches('/').as_bytes();
    name.strip_prefix(path)
        .is_some_and(|rest| path.is_empty() || rest.is_empty() || rest.starts_with(b"/"))
}
