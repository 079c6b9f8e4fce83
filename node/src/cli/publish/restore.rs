//! `publish restore`: the objects of a bucket as files again.

use std::path::PathBuf;

use api::failure::{Exit, Failure};
use api::message::{PublishRestoreSummary, Summary};
use engine::config::ConfigFile;
use engine::home::{HomePaths, OwnFolders, check_deletion};
use publish::{Event, RestoreOptions, Restored, Routes};

use super::send::tell;
use super::shown::{Words, client, run_shown};
use crate::cli::endpoint::EndpointArgs;
use crate::render::RenderOptions;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// s3://BUCKET[/PREFIX][?endpoint=URL&region=NAME&path-style=BOOL]
    #[arg(value_name = "s3://BUCKET[/PREFIX]")]
    location: String,
    #[command(flatten)]
    endpoint: EndpointArgs,
    /// The folder that the files go to; those that are there and right are not fetched
    #[arg(value_name = "DIR")]
    target: PathBuf,
    /// Only these files and folders, as they are called below the prefix
    #[arg(value_name = "PATHS")]
    paths: Vec<String>,
    /// Remove local files that have no object
    #[arg(long)]
    delete: bool,
    /// The routes that the folder is published with: what they do not publish is not removed
    #[arg(long, value_name = "FILE", requires = "delete")]
    routes: Option<PathBuf>,
    /// Also from `/`, and from folders that hold gridbackup's own
    #[arg(long, requires = "delete")]
    unsafe_delete: bool,
    /// Remove none if it would be more than N
    #[arg(long, value_name = "N", default_value_t = 256, requires = "delete")]
    max_delete: u64,
    /// Say what would be done, and do nothing
    #[arg(short = 'n', long)]
    dry_run: bool,
    /// Most objects on their way at once
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=1000))]
    workers: u16,
}

/// Restores, and shows what came of it.
pub async fn run(args: Args, paths: HomePaths, options: RenderOptions) -> Result<Exit, Failure> {
    let client = client(&args.location, &args.endpoint)?;
    let target = std::path::absolute(&args.target)
        .map_err(|error| Failure::context(format!("`{}` is no path", args.target.display()), &error))?;
    let protected = match args.delete {
        true => OwnFolders::of(&paths, ConfigFile::open(&paths.config())?.config()).not_removed(),
        false => Vec::new(),
    };
    if args.delete {
        check_deletion(&target, &protected, args.unsafe_delete || args.dry_run)?;
    }
    let routes = args.routes.as_deref().map(Routes::read).transpose();
    let routes = routes.map_err(|error| Failure::from_error(&error).exit(Exit::Usage))?;
    let wanted = RestoreOptions {
        protected,
        routes: routes.unwrap_or_default(),
        target,
        paths: args.paths,
        deletes_max: args.delete.then_some(args.max_delete),
        dry_run: args.dry_run,
        workers_max: args.workers.into(),
    };
    let is_told_all = options.json || options.verbose || args.dry_run;
    run_shown(options, Words::Report, async move |sink| {
        let tell = |event: Event| tell(&sink, event, is_told_all);
        let restored = publish::restore(&wanted, &client, &tell, sink.stop()).await?;
        let exit = match &restored {
            restored if restored.failed > 0 => Exit::Failed,
            restored if restored.refused > 0 => Exit::SourceUnreadable,
            _ => Exit::Done,
        };
        Ok((
            Some(Summary::PublishRestore(summarized(&restored, wanted.dry_run))),
            exit,
        ))
    })
    .await
}

fn summarized(restored: &Restored, dry_run: bool) -> PublishRestoreSummary {
    PublishRestoreSummary {
        dry_run,
        files: restored.files,
        files_restored: restored.restored,
        files_unchanged: restored.unchanged,
        bytes_received: restored.received_bytes,
        files_unverified: restored.unverified,
        objects_skipped: restored.skipped,
        files_removed: restored.deleted,
        keys_refused: restored.refused,
        files_failed: restored.failed,
        requests: restored.requests,
    }
}
