//! A run from its first request to its last: list, plan, send assets, then pages; `deletes` is the last part.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use s3::{Client, ListOptions, shown};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::announce;
use crate::error::PublishError;
use crate::event::{Event, Summary};
use crate::folder_page::FolderPages;
use crate::inventory::{Audience, Inventory, InventoryError, Memory};
use crate::lock::{Lock, LockError, is_lock};
use crate::options::{LockMode, Options, Trust};
use crate::plan::{Rules, Source, Step, Work};
use crate::planner::{Hidden, Looked, Planned, Planner, page};
use crate::pool::Pool;
use crate::walk::{Walk, whole_path_key};
use crate::worker::{Done, WorkError, Workshop};

/// Plans that wait for a worker.
const PLANNED_MAX: usize = 256;

/// Where events go. Called from the run's own task; must not block for long.
type Sink<'a> = &'a (dyn Fn(Event) + Send + Sync);

/// How long another run on this machine is left alone before it is asked again for the inventory.
const INVENTORY_WAIT: Duration = Duration::from_millis(250);

/// Publishes a folder at the client's location. Files and objects that fail are events; the rest goes on.
///
/// When `stop` is cancelled, or the future is dropped, what was recorded stays recorded, and the next run goes on from there.
pub async fn publish(
    options: &Options,
    client: &Client,
    sink: Sink<'_>,
    stop: &CancellationToken,
) -> Result<Summary, PublishError> {
    if let Some(cloudfront) = &options.cloudfront {
        // A mistake in its name is noticed before anything is sent.
        s3::Distribution::new(&cloudfront.distribution, &s3::Options::default())?;
    }
    let requests = client.requests();
    let opening = open_inventory(options, client);
    let inventory = tokio::select! {
        inventory = opening => Arc::new(inventory?),
        () = stop.cancelled() => return Err(PublishError::Stopped),
    };
    let mut run = Run::new(options, client, inventory.clone(), sink)?;
    let lock = run.workshop.lock.clone();
    let ended = tokio::select! {
        ended = run.all() => ended,
        () = stop.cancelled() => Err(PublishError::Stopped),
    };
    let is_whole = ended.is_ok() && run.summary.failed == 0;
    if lock.is_weak() {
        run.tell(Event::Warned {
            what: "The endpoint ignores conditions: the lock keeps others out only if they do not start at the same moment".to_owned(),
        });
    }
    if let Err(error) = lock.release(is_whole, run.listed_secs).await {
        run.tell(Event::Warned {
            what: format!("The lock was not given back: {error}"),
        });
    }
    if let Err(PublishError::Lock(LockError::Lost(_))) = &ended {
        lock.doubt()?;
    }
    ended?;
    run.summary.requests = client.requests() - requests;
    Ok(run.summary)
}

async fn open_inventory(options: &Options, client: &Client) -> Result<Inventory, PublishError> {
    let bucket = format!("{}/{}", client.url(), client.location().prefix);
    loop {
        match Inventory::open(&options.inventory, &bucket) {
            Err(InventoryError::Busy(_)) if options.lock.wait => tokio::time::sleep(INVENTORY_WAIT).await,
            opened => {
                let mut inventory = opened?;
                inventory.audience = Audience {
                    cdn: options.cloudfront.is_some(),
                    hook: options.hook.is_some(),
                };
                return Ok(inventory);
            }
        }
    }
}

pub(crate) struct Run<'a> {
    pub options: &'a Options,
    pub client: &'a Client,
    pub workshop: Workshop,
    pub inventory: Arc<Inventory>,
    /// What names for routes are without.
    prefix: Vec<u8>,
    /// What all keys of the folder begin with.
    root: Vec<u8>,
    pub sink: Sink<'a>,
    pub summary: Summary,
    pub looked: Looked,
    needed: u64,
    settled: u64,
    /// When the endpoint answered the first batch of the listing, by its clock.
    listed_secs: Option<i64>,
}

type Ended = (Work, Result<Done, WorkError>);

impl<'a> Run<'a> {
    fn new(
        options: &'a Options,
        client: &'a Client,
        inventory: Arc<Inventory>,
        sink: Sink<'a>,
    ) -> Result<Self, PublishError> {
        let prefix = client.location().prefix.clone().into_bytes();
        let mut root = prefix.clone();
        if options.whole_paths {
            root.extend(whole_path_key(&options.source).map_err(|source| PublishError::Source {
                path: options.source.clone(),
                source,
            })?);
        }
        let lock = Lock::new(client.clone(), inventory.clone(), &root, options.lock, options.dry_run);
        Ok(Self {
            options,
            client,
            workshop: Workshop::new(client.clone(), inventory.clone(), lock, options.dry_run),
            inventory,
            prefix,
            root,
            sink,
            summary: Summary::default(),
            looked: Looked::default(),
            needed: 0,
            settled: 0,
            listed_secs: None,
        })
    }

    async fn all(&mut self) -> Result<(), PublishError> {
        self.give_up_parts().await?;
        let memory = match self.options.lock.mode {
            LockMode::None => Memory::default(),
            LockMode::Auto | LockMode::Require => self.inventory.lock_memory()?,
        };
        // Not known what is there: nobody else is to change it while it is listed.
        let is_unsettled = self.inventory.is_empty || memory.is_unsettled();
        if is_unsettled {
            match self.workshop.lock.enter().await {
                Ok(()) | Err(LockError::Doubted) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let mut is_listed = is_unsettled || self.options.trust == Trust::Bucket || memory.doubt_until.is_some();
        loop {
            match self.once(is_listed).await {
                // Nothing was sent yet.
                Err(PublishError::Lock(LockError::Doubted)) => {
                    self.inventory.clear()?;
                    (self.summary, self.looked) = (Summary::default(), Looked::default());
                    (self.needed, self.settled, is_listed) = (0, 0, true);
                }
                ended => return ended,
            }
        }
    }

    async fn once(&mut self, is_listed: bool) -> Result<(), PublishError> {
        if is_listed {
            self.list().await?;
            self.workshop.lock.listed().await;
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
        if !matches!(deleted, Err(PublishError::Lock(LockError::Doubted))) {
            self.announce().await;
        }
        deleted
    }

    /// Who could not be told is a failure, and not the end: the bucket is as it should be.
    async fn announce(&mut self) {
        if self.options.dry_run {
            return;
        }
        if let Some(cloudfront) = &self.options.cloudfront {
            match announce::tell_cloudfront(&self.inventory, self.client, cloudfront).await {
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
            match announce::run_hook(&self.inventory, self.client, hook).await {
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
        for parts in self.inventory.parts_left()? {
            self.client.abort_parts(&parts).await?;
            self.inventory.parts_ended(&parts)?;
        }
        Ok(())
    }

    async fn list(&mut self) -> Result<(), PublishError> {
        let mut options = ListOptions {
            prefix: self.root.clone(),
            ..ListOptions::default()
        };
        self.listed_secs = None;
        loop {
            let mut batch = self.client.list(&options).await?;
            batch.objects.retain(|object| !is_lock(&object.key));
            self.inventory.see(&batch.objects)?;
            self.listed_secs = self.listed_secs.or(batch.now.map(|time| time.as_second()));
            options.token = batch.next;
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
        let walk = Walk::open(
            &self.options.source,
            &self.root,
            self.options.links,
            self.folder_pages(&self.root),
        );
        let walk = walk.map_err(unreadable)?;
        let (sender, mut planned) = mpsc::channel(PLANNED_MAX);
        let planner = Planner {
            inventory: self.inventory.clone(),
            routes: self.options.routes.clone(),
            prefix: self.prefix.clone(),
            rules,
            owns_all: self.options.trust == Trust::Bucket,
            planned: sender,
            looked: Looked::default(),
            hidden: Hidden::default(),
        };
        let planning = tokio::task::spawn_blocking(move || planner.run(walk));
        let working = self.work(&mut planned).await;
        // A planner that nobody listens to stops.
        drop(planned);
        let planned = planning.await.unwrap_or(Err(PublishError::Stopped));
        working?;
        planned.map(drop)
    }

    async fn work(&mut self, planned: &mut mpsc::Receiver<Planned>) -> Result<(), PublishError> {
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
        Ok(())
    }

    async fn pages(&mut self, rules: Rules) -> Result<(), PublishError> {
        let inventory = self.inventory.clone();
        let mut pages = inventory.put_off_until_now();
        let mut pool = Pool::new(self.options.workers_max);
        let mut waiting = VecDeque::new();
        loop {
            while waiting.len() < PLANNED_MAX
                && let Some(next) = pages.next()
            {
                match page(&self.inventory, &self.options.routes, &self.prefix, rules, next?)? {
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
                    if let Some(drift) = done.drift {
                        let key = shown(&work.key);
                        self.tell(Event::Drifted { key, drift });
                    }
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
                Err(WorkError::Inventory(error)) => first_general = Some(PublishError::Inventory(error)),
                Err(WorkError::Lock(error @ LockError::Late(_))) => self.tell(Event::Failed {
                    key: shown(&work.key),
                    why: error.to_string(),
                }),
                Err(WorkError::Lock(error)) => first_general = Some(PublishError::Lock(error)),
                Err(WorkError::S3(error)) if error.is_general() => first_general = Some(PublishError::S3(error)),
                Err(WorkError::S3(error)) => self.tell(Event::Failed {
                    key: shown(&work.key),
                    why: error.to_string(),
                }),
            }
        }
        if !self.options.dry_run {
            self.inventory.store(&rows)?;
        }
        self.progress();
        first_general.map_or(Ok(()), Err)
    }

    pub(crate) fn tell(&mut self, event: Event) {
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
