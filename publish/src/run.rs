//! A run from its first request to its last: list, plan, send assets, then pages, then delete.

use std::collections::VecDeque;
use std::sync::Arc;

use s3::{Client, ListOptions, shown};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::announce;
use crate::error::PublishError;
use crate::event::{Event, Summary};
use crate::folder_page::FolderPages;
use crate::index::{Audience, Index};
use crate::options::{Deletes, Options, Trust};
use crate::plan::{Rules, Source, Step, Work};
use crate::planner::{Hidden, Looked, Planned, Planner, page};
use crate::pool::Pool;
use crate::walk::{Walk, whole_path_key};
use crate::worker::{Done, WorkError, Workshop};

/// Plans that wait for a worker.
const PLANNED_MAX: usize = 256;

/// Where events go. Called from the run's own task; must not block for long.
type Sink<'a> = &'a (dyn Fn(Event) + Send + Sync);

/// Publishes a folder at the client's location. Files and objects that fail are events; the rest goes on.
///
/// When `stop` is cancelled, or the future is dropped, what was recorded stays recorded, and the next run goes on from there.
pub async fn publish(
    options: &Options,
    client: &Client,
    sink: Sink<'_>,
    stop: &CancellationToken,
) -> Result<Summary, PublishError> {
    let bucket = format!("{}/{}", client.url(), client.location().prefix);
    if let Some(cloudfront) = &options.cloudfront {
        // A mistake in its name is noticed before anything is sent.
        s3::Distribution::new(&cloudfront.distribution, &s3::Options::default())?;
    }
    let mut index = Index::open(&options.index, &bucket)?;
    index.audience = Audience {
        cdn: options.cloudfront.is_some(),
        hook: options.hook.is_some(),
    };
    let index = Arc::new(index);
    let mut run = Run {
        options,
        client,
        workshop: Workshop::new(client.clone(), index.clone(), options.dry_run),
        index,
        prefix: client.location().prefix.clone().into_bytes(),
        sink,
        summary: Summary::default(),
        looked: Looked::default(),
        needed: 0,
        settled: 0,
    };
    let requests = client.requests();
    tokio::select! {
        ended = run.all() => ended?,
        () = stop.cancelled() => return Err(PublishError::Stopped),
    }
    run.summary.requests = client.requests() - requests;
    Ok(run.summary)
}

struct Run<'a> {
    options: &'a Options,
    client: &'a Client,
    workshop: Workshop,
    index: Arc<Index>,
    prefix: Vec<u8>,
    sink: Sink<'a>,
    summary: Summary,
    looked: Looked,
    needed: u64,
    settled: u64,
}

type Ended = (Work, Result<Done, WorkError>);

impl Run<'_> {
    async fn all(&mut self) -> Result<(), PublishError> {
        let is_listed = self.options.trust == Trust::Bucket || self.index.is_empty;
        self.give_up_parts().await?;
        if is_listed {
            self.list().await?;
        }
        let rules = Rules {
            is_listed,
            checksum: self.options.checksum,
        };
        self.assets(rules).await?;
        // A page may show what the endpoint refused: it waits for the next run. What it does not show any more does, too.
        if self.summary.failed == 0 {
            self.pages(rules).await?;
        }
        let looked = self.looked;
        (self.summary.files, self.summary.bytes, self.summary.unchanged) =
            (looked.files, looked.bytes, self.summary.unchanged + looked.unchanged);
        let deleted = self.deletes().await;
        self.announce().await;
        deleted
    }

    /// Who could not be told is a failure, and not the end: the bucket is as it should be.
    async fn announce(&mut self) {
        if self.options.dry_run {
            return;
        }
        if let Some(cloudfront) = &self.options.cloudfront {
            match announce::tell_cloudfront(&self.index, self.client, cloudfront).await {
                Ok(paths) => paths
                    .into_iter()
                    .for_each(|path| self.tell(Event::Invalidated { path })),
                Err(error) => self.tell(Event::Failed {
                    key: format!("CloudFront {}", cloudfront.distribution),
                    why: format!("{error}; the next run tells it again"),
                }),
            }
        }
        if let Some(hook) = &self.options.hook {
            let command = hook.command.clone();
            match announce::run_hook(&self.index, self.client, hook).await {
                Ok(true) => self.tell(Event::HookRan { command }),
                Ok(false) => {}
                Err(error) => self.tell(Event::Failed {
                    key: format!("The command of --hook ({command})"),
                    why: format!("{error}; the next run runs it again"),
                }),
            }
        }
    }

    async fn give_up_parts(&self) -> Result<(), PublishError> {
        if self.options.dry_run {
            return Ok(());
        }
        for parts in self.index.parts_left()? {
            self.client.abort_parts(&parts).await?;
            self.index.parts_ended(&parts)?;
        }
        Ok(())
    }

    async fn list(&mut self) -> Result<(), PublishError> {
        let mut options = ListOptions {
            prefix: self.prefix.clone(),
            ..ListOptions::default()
        };
        loop {
            let page = self.client.list(&options).await?;
            self.index.see(&page.objects)?;
            options.token = page.next;
            if options.token.is_none() {
                return Ok(());
            }
        }
    }

    /// What makes pages for folders below `root`, a key.
    fn folder_pages(&self, root: &[u8]) -> Option<FolderPages> {
        let routes = &self.options.routes;
        let asked = routes.folder_pages.as_ref();
        let asked = asked
            .cloned()
            .or_else(|| self.options.index_pages.then(Default::default))?;
        let whole = String::from_utf8_lossy(root);
        let name = whole.trim_end_matches('/').rsplit('/').next();
        let name = name.filter(|name| !name.is_empty());
        let name = name.unwrap_or(&self.client.location().bucket);
        Some(FolderPages::new(&asked, routes.clone(), &self.prefix, root, name))
    }

    async fn assets(&mut self, rules: Rules) -> Result<(), PublishError> {
        let unreadable = |source| PublishError::Source {
            path: self.options.source.clone(),
            source,
        };
        let mut key = self.prefix.clone();
        if self.options.whole_paths {
            key.extend(whole_path_key(&self.options.source).map_err(unreadable)?);
        }
        let walk =
            Walk::open(&self.options.source, &key, self.options.links, self.folder_pages(&key)).map_err(unreadable)?;
        let (sender, mut planned) = mpsc::channel(PLANNED_MAX);
        let planner = Planner {
            index: self.index.clone(),
            routes: self.options.routes.clone(),
            prefix: self.prefix.clone(),
            rules,
            // Without an index nothing is known of who put what there: then it stays, unless the bucket was to be repaired.
            // Other folders' objects, when keys are whole paths, are not ours either.
            owns_all: self.options.trust == Trust::Bucket && !self.options.whole_paths,
            planned: sender,
            looked: Looked::default(),
            hidden: Hidden::default(),
        };
        let planning = tokio::task::spawn_blocking(move || planner.run(walk));
        let mut pool = Pool::new(self.options.workers_max);
        let mut waiting = VecDeque::new();
        let mut is_open = true;
        while is_open || !waiting.is_empty() || !pool.is_idle() {
            let workshop = &self.workshop;
            pool.fill(&mut waiting, |work| work_in(workshop.clone(), work));
            let retries = || self.client.retries();
            tokio::select! {
                next = planned.recv(), if is_open && waiting.len() < PLANNED_MAX => match next {
                    Some(Planned::Work(work)) => {
                        self.needed += 1;
                        waiting.push_back(*work);
                    }
                    Some(Planned::Event(event)) => self.tell(event),
                    Some(Planned::Looked(looked)) => {
                        self.looked = looked;
                        self.progress();
                    }
                    None => is_open = false,
                },
                ended = pool.ended(retries), if !pool.is_idle() => self.settle(ended)?,
            }
        }
        planning.await.unwrap_or(Err(PublishError::Stopped)).map(drop)
    }

    async fn pages(&mut self, rules: Rules) -> Result<(), PublishError> {
        let index = self.index.clone();
        let mut pages = index.put_off_until_now();
        let mut pool = Pool::new(self.options.workers_max);
        let mut waiting = VecDeque::new();
        loop {
            while waiting.len() < PLANNED_MAX
                && let Some(next) = pages.next()
            {
                match page(&self.index, &self.options.routes, &self.prefix, rules, next?)? {
                    Ok(work) if work.step == Step::Keep => self.summary.unchanged += 1,
                    Ok(work) => {
                        self.needed += 1;
                        waiting.push_back(work);
                    }
                    Err(event) => self.tell(event),
                }
            }
            let workshop = &self.workshop;
            pool.fill(&mut waiting, |work| work_in(workshop.clone(), work));
            if pool.is_idle() {
                return Ok(());
            }
            let ended = pool.ended(|| self.client.retries()).await;
            self.settle(ended)?;
        }
    }

    /// Records what ended, in one transaction, and tells of it.
    fn settle(&mut self, ended: Vec<Ended>) -> Result<(), PublishError> {
        let mut rows = Vec::new();
        let mut first_general = None;
        for (work, result) in ended {
            self.settled += 1;
            match result {
                Ok(done) => {
                    match done.sent_bytes {
                        Some(bytes) => {
                            (self.summary.uploaded, self.summary.sent_bytes) =
                                (self.summary.uploaded + 1, self.summary.sent_bytes + bytes)
                        }
                        None if done.event.is_some() => self.summary.headers_changed += 1,
                        None => self.summary.unchanged += 1,
                    }
                    rows.push(done.row);
                    done.event.into_iter().for_each(self.sink);
                }
                Err(WorkError::Source(error)) => {
                    self.tell(Event::Broken {
                        path: match &work.source {
                            Source::File(path) => path.display().to_string(),
                            Source::Made => shown(&work.key),
                        },
                        why: error.to_string(),
                    });
                }
                Err(WorkError::Index(error)) => first_general = Some(PublishError::Index(error)),
                Err(WorkError::S3(error)) if error.is_general() => first_general = Some(PublishError::S3(error)),
                Err(WorkError::S3(error)) => self.tell(Event::Failed {
                    key: shown(&work.key),
                    why: error.to_string(),
                }),
            }
        }
        if !self.options.dry_run {
            self.index.store(&rows)?;
        }
        self.progress();
        first_general.map_or(Ok(()), Err)
    }

    async fn deletes(&mut self) -> Result<(), PublishError> {
        let count = self.index.dead_count()?;
        if count == 0 {
            return Ok(());
        }
        let Deletes::UpTo(deletes_max) = self.options.deletes else {
            self.summary.kept = count;
            return Ok(());
        };
        if self.looked.files == 0 && !self.options.allow_empty {
            return Err(PublishError::Empty {
                path: self.options.source.clone(),
            });
        }
        if count > deletes_max {
            return Err(PublishError::TooManyDeletes {
                deletes: count,
                deletes_max,
            });
        }
        if self.summary.failed > 0 {
            self.summary.kept = count;
            return Ok(());
        }
        loop {
            let keys = self.index.dead()?;
            if keys.is_empty() {
                return Ok(());
            }
            let failed = if self.options.dry_run {
                Vec::new()
            } else {
                self.index.doom(&keys)?;
                self.client.delete(&keys).await?
            };
            self.index.bury(&keys)?;
            let is_failed = |key: &[u8]| failed.iter().any(|failed| failed.key == key);
            let deleted: Vec<_> = keys.into_iter().filter(|key| !is_failed(key)).collect();
            if !self.options.dry_run {
                self.index.forget(&deleted)?;
            }
            self.summary.deleted += deleted.len() as u64;
            deleted
                .iter()
                .for_each(|key| (self.sink)(Event::Deleted { key: shown(key) }));
            for failed in failed {
                self.tell(Event::Failed {
                    key: shown(&failed.key),
                    why: failed.error.to_string(),
                });
            }
        }
    }

    fn tell(&mut self, event: Event) {
        match &event {
            Event::Broken { .. } => self.summary.broken += 1,
            Event::Failed { .. } => self.summary.failed += 1,
            Event::Drifted { .. } => self.summary.drifted += 1,
            _ => {}
        }
        (self.sink)(event);
    }

    fn progress(&self) {
        (self.sink)(Event::Progress {
            files: self.looked.files,
            done: self.settled,
            needed: self.needed,
        });
    }
}

async fn work_in(workshop: Workshop, work: Work) -> Ended {
    let result = workshop.work(work.clone()).await;
    (work, result)
}
