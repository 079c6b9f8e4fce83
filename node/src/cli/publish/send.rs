//! `publish`: a folder as objects of an S3 bucket. Needs no account and no daemon; its inventory lies beside the home's state.

use std::path::{Path, PathBuf};
use std::time::Duration;

use api::failure::{Exit, Failure};
use api::message::{Changed, Deed, Message, Phase, Problem, Progress, PublishSummary, Summary, Thing};
use api::output::Sink;
use engine::home::HomePaths;
use publish::{
    Cloudfront, Deletes, Drift, Event, Hook, KeyFormat, Links, LockMode, LockOptions, Options, Routes, Trust,
};
use s3::Client;

use super::shown::{Words, client, run_shown};
use crate::cli::endpoint::EndpointArgs;
use crate::render::RenderOptions;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The folder
    #[arg(value_name = "DIR")]
    source: PathBuf,
    /// s3://BUCKET[/PREFIX][?endpoint=URL&region=NAME&path-style=BOOL]
    #[arg(value_name = "s3://BUCKET[/PREFIX]")]
    location: String,
    // Not flattened: clap takes an `Option` of arguments (`super::Args`) that hold others for absent, whatever is typed.
    /// S3 endpoint if not Amazon's
    #[arg(long, value_name = "URL", visible_alias = "endpoint-url")]
    endpoint: Option<String>,
    /// S3 region
    #[arg(long, value_name = "REGION")]
    region: Option<String>,
    /// TOML file of headers, compression and exceptions by name (docs/publish.md)
    #[arg(long, value_name = "FILE")]
    routes: Option<PathBuf>,
    /// Say what would be done, and do nothing
    #[arg(short = 'n', long)]
    dry_run: bool,
    /// Leave objects whose file is gone
    #[arg(long, conflicts_with = "max_delete")]
    no_delete: bool,
    /// Delete nothing if it would be more than N objects
    #[arg(long, value_name = "N", default_value_t = 256)]
    max_delete: u64,
    /// Publish a folder without files: delete everything that was published
    #[arg(long)]
    allow_empty: bool,
    /// List the bucket, and repair what others changed in it
    #[arg(long, conflicts_with = "trust")]
    verify: bool,
    /// Believe the inventory (the default: where nothing changed, nothing is asked)
    #[arg(long)]
    trust: bool,
    /// Read all files, whatever their times say
    #[arg(long)]
    checksum: bool,
    /// What becomes of symbolic links
    #[arg(long, value_enum, default_value_t = LinkPolicy::Inside)]
    links: LinkPolicy,
    /// Make an index.html for folders without one
    #[arg(long)]
    index_pages: bool,
    /// Tell a CloudFront distribution which updated and deleted paths to forget; PATH is what it puts before paths, else it is asked
    #[arg(long, value_name = "ID[:PATH]")]
    cloudfront: Option<String>,
    /// Tell it of whole folders when there would be more paths than this (1,000 a month are free)
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..=3000), requires = "cloudfront")]
    cloudfront_paths: u16,
    /// Run a command (sh -c) after a run that changed something: keys on its standard input, GRIDBACKUP_BUCKET, _PREFIX and _URL
    #[arg(long, value_name = "COMMAND")]
    hook: Option<String>,
    /// How the hook gets the keys
    #[arg(long, value_enum, default_value_t = HookFormat::Lines, requires = "hook")]
    hook_format: HookFormat,
    /// Keys are whole paths: for several folders below one prefix, as in a backup
    #[arg(long)]
    whole_paths: bool,
    /// Most objects on their way at once
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=1000))]
    workers: u16,
    /// Wait while another publisher is at work, here or elsewhere
    #[arg(long)]
    wait: bool,
    /// The lock in the bucket
    #[arg(long, value_enum, default_value_t = LockPolicy::Auto)]
    lock: LockPolicy,
    /// Others believe that this publisher is at work for so many seconds after its last word
    #[arg(long = "lease", value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u16).range(3..=3600))]
    term: u16,
    /// Where the inventory is kept [default: in the state folder, one for each folder and location]
    #[arg(long = "index", value_name = "FILE")]
    inventory: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum HookFormat {
    /// One a line
    Lines,
    /// With a zero byte after each
    Nul,
    /// {"change":"added|updated|deleted","key":"…"} on a line each
    Json,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum LinkPolicy {
    /// Publish what they lead to if it lies in the folder, too
    Inside,
    /// Publish what they lead to, wherever it lies
    Follow,
    /// Leave them out
    Skip,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum LockPolicy {
    /// As well as the endpoint can
    Auto,
    /// Publish nothing where the endpoint ignores conditions
    Require,
    /// No lock, and no conditions
    None,
}

/// Publishes, and shows what came of it.
pub(super) async fn run(args: Args, paths: HomePaths, options: RenderOptions) -> Result<Exit, Failure> {
    let client = args.client()?;
    let wanted = args.options(&client, &paths)?;
    let is_told_all = options.json || options.verbose || args.dry_run;
    run_shown(options, Words::Report, async move |sink| {
        let tell = |event| tell(&sink, event, is_told_all);
        let summary = publish::publish(&wanted, &client, &tell, sink.stop()).await?;
        let exit = match &summary {
            summary if summary.failed > 0 => Exit::Failed,
            summary if summary.broken > 0 => Exit::SourceUnreadable,
            _ => Exit::Done,
        };
        Ok((Some(Summary::Publish(summarized(&summary, wanted.dry_run))), exit))
    })
    .await
}

impl Args {
    pub(super) fn client(&self) -> Result<Client, Failure> {
        let endpoint = EndpointArgs {
            endpoint: self.endpoint.clone(),
            region: self.region.clone(),
        };
        client(&self.location, &endpoint)
    }

    /// Believe the inventory.
    pub(super) fn is_trusting(&self) -> bool {
        self.trust
    }

    pub(super) fn options(&self, client: &Client, paths: &HomePaths) -> Result<Options, Failure> {
        let source = std::path::absolute(&self.source)
            .map_err(|error| Failure::context(format!("`{}` is no path", self.source.display()), &error))?;
        let inventory = match &self.inventory {
            Some(inventory) => inventory.clone(),
            None => paths.publish_inventory(&inventory_name(&source, client)),
        };
        let routes = self.routes.as_deref().map(Routes::read).transpose();
        let routes = routes.map_err(|error| Failure::from_error(&error).exit(Exit::Usage))?;
        Ok(Options {
            routes: routes.unwrap_or_default(),
            trust: if self.verify { Trust::Bucket } else { Trust::Inventory },
            checksum: self.checksum,
            deletes: if self.no_delete {
                Deletes::Never
            } else {
                Deletes::UpTo(self.max_delete)
            },
            allow_empty: self.allow_empty,
            links: match self.links {
                LinkPolicy::Inside => Links::Inside,
                LinkPolicy::Follow => Links::Follow,
                LinkPolicy::Skip => Links::Skip,
            },
            whole_paths: self.whole_paths,
            index_pages: self.index_pages,
            cloudfront: self.cloudfront(),
            hook: self.hook(),
            dry_run: self.dry_run,
            workers_max: self.workers.into(),
            lock: LockOptions {
                mode: match self.lock {
                    LockPolicy::Auto => LockMode::Auto,
                    LockPolicy::Require => LockMode::Require,
                    LockPolicy::None => LockMode::None,
                },
                wait: self.wait,
                term: Duration::from_secs(self.term.into()),
            },
            ..Options::new(source, inventory)
        })
    }
}

impl Args {
    fn cloudfront(&self) -> Option<Cloudfront> {
        let asked = self.cloudfront.as_deref()?;
        let (distribution, path) = asked
            .split_once(':')
            .map_or((asked, None), |(id, path)| (id, Some(path)));
        Some(Cloudfront {
            distribution: distribution.to_owned(),
            origin_path: path.map(str::to_owned),
            paths_max: self.cloudfront_paths.into(),
        })
    }

    fn hook(&self) -> Option<Hook> {
        Some(Hook {
            command: self.hook.clone()?,
            format: match self.hook_format {
                HookFormat::Lines => KeyFormat::Lines,
                HookFormat::Nul => KeyFormat::Nul,
                HookFormat::Json => KeyFormat::Json,
            },
        })
    }
}

/// The bucket's name, for people, and what tells folders and locations apart.
fn inventory_name(source: &Path, client: &Client) -> String {
    let text = format!("{}\n{}\n{}", source.display(), client.url(), client.location().prefix);
    let hash = blake3::hash(text.as_bytes()).to_hex();
    format!("{}-{}.db", client.location().bucket, &hash[..16])
}

/// Problems always; each object only to who wants to know.
pub(super) fn tell(sink: &Sink, event: Event, is_told_all: bool) {
    let object = |action, name: String| Changed::new(action, Thing::Object, name);
    let message = match event {
        Event::Progress { files, done, needed } => {
            return sink.progress(Progress {
                phase: Phase::Publish,
                files_done: done,
                files_total: Some(needed),
                current: Some(format!("{files} files looked at")),
                ..Progress::default()
            });
        }
        Event::Broken { path, why } => Message::from(Problem::of_path(Path::new(&path), why)),
        Event::Failed { key, why } => Message::from(Problem::new(format!("{key}: {why}"))),
        Event::Warned { what } => {
            tracing::warn!("{what}");
            return;
        }
        _ if !is_told_all => return,
        Event::Uploaded { key, .. } => Message::from(object(Deed::Uploaded, key)),
        Event::Restored { key, .. } => Message::from(object(Deed::Restored, key)),
        Event::Headers { key } => Message::from(object(Deed::GivenHeaders, key)),
        Event::Deleted { key } => Message::from(object(Deed::Removed, key)),
        Event::Invalidated { path } => Message::from(Changed::new(Deed::Invalidated, Thing::Path, path)),
        Event::HookRan { command } => Message::from(Changed::new(Deed::Run, Thing::Hook, command)),
        Event::Drifted { key, drift } => {
            let action = match drift {
                Drift::Missing => Deed::RemovedByOthers,
                Drift::Changed => Deed::ChangedByOthers,
                Drift::Unknown => Deed::AddedByOthers,
            };
            Message::from(object(action, key))
        }
    };
    // Nobody reads: the run is stopped by the same channel.
    let _closed = sink.send_blocking(message);
}

pub(super) fn summarized(summary: &publish::Summary, dry_run: bool) -> PublishSummary {
    PublishSummary {
        dry_run,
        files: summary.files,
        bytes: summary.bytes,
        files_unchanged: summary.unchanged,
        objects_uploaded: summary.uploaded,
        bytes_sent: summary.sent_bytes,
        headers_changed: summary.headers_changed,
        objects_deleted: summary.deleted,
        objects_kept: summary.kept,
        drifted: summary.drifted,
        files_broken: summary.broken,
        objects_failed: summary.failed,
        requests: summary.requests,
    }
}
