//! `publish watch`: publishes whenever the folder has changed and is quiet again.

use std::time::Duration;

use api::failure::{Exit, Failure};
use api::message::{Message, Summary};
use api::output::Sink;
use engine::home::HomePaths;
use publish::{PublishError, Trust, Watch};
use s3::Client;
use tokio_util::sync::CancellationToken;

use super::send::{summarized, tell};
use super::shown::{Words, run_shown};
use crate::render::RenderOptions;

/// First pause after a run that failed; each next one is twice as long.
const PAUSE_FIRST: Duration = Duration::from_secs(5);
/// Longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(300);

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    publish: super::send::Args,
    /// Look at everything at least every so many seconds, with --verify at the bucket, too
    #[arg(long, value_name = "SECONDS", default_value_t = 3600, value_parser = clap::value_parser!(u32).range(1..))]
    every: u32,
}

/// Publishes until it is told to stop; a line for each time that something was published.
pub async fn run(args: Args, paths: HomePaths, options: RenderOptions) -> Result<Exit, Failure> {
    let client = args.publish.client()?;
    let wanted = args.publish.options(&client, &paths)?;
    let every = Duration::from_secs(args.every.into());
    let is_told_all = options.json || options.verbose;
    run_shown(options, Words::Report, async move |sink| {
        let watching = Watching {
            wanted,
            client,
            is_told_all,
            sink,
        };
        watching.run(every).await
    })
    .await
}

struct Watching {
    wanted: publish::Options,
    client: Client,
    is_told_all: bool,
    sink: Sink,
}

impl Watching {
    async fn run(&self, every: Duration) -> Result<(Option<Summary>, Exit), PublishError> {
        let unreadable = |source| PublishError::Source {
            path: self.wanted.source.clone(),
            source,
        };
        let watch = Watch::new(&self.wanted.source).map_err(unreadable)?;
        let stop: &CancellationToken = self.sink.stop();
        let (mut trust, mut pause) = (self.wanted.trust, None);
        loop {
            // Before the run: what changes while it looks is seen by the next.
            if let Err(error) = watch.renew() {
                tracing::warn!(
                    "not all folders can be watched ({error}): changes there are found every {} s",
                    every.as_secs()
                );
            }
            match self.once(trust).await {
                Ok(true) => pause = None,
                Ok(false) => pause = Some(next_pause(pause)),
                Err(PublishError::Stopped) => return Ok((None, Exit::Done)),
                Err(error) => {
                    pause = Some(next_pause(pause));
                    tracing::error!("{error}");
                }
            }
            tokio::select! {
                () = stop.cancelled() => return Ok((None, Exit::Done)),
                () = tokio::time::sleep(every) => trust = self.wanted.trust,
                () = tokio::time::sleep(pause.unwrap_or(every)), if pause.is_some() => {}
                settled = watch.settled(), if pause.is_none() => {
                    settled.map_err(unreadable)?;
                    trust = Trust::Inventory;
                }
            }
        }
    }

    /// False: some of it has to be tried again.
    async fn once(&self, trust: Trust) -> Result<bool, PublishError> {
        let wanted = publish::Options {
            trust,
            ..self.wanted.clone()
        };
        let tell = |event| tell(&self.sink, event, self.is_told_all);
        let summary = publish::publish(&wanted, &self.client, &tell, self.sink.stop()).await?;
        if summary.uploaded + summary.headers_changed + summary.deleted > 0 {
            let line = Summary::Publish(summarized(&summary, wanted.dry_run));
            let _closed = self.sink.send(Message::from(line)).await;
        }
        Ok(summary.failed == 0)
    }
}

fn next_pause(pause: Option<Duration>) -> Duration {
    pause.map_or(PAUSE_FIRST, |pause| (pause * 2).min(PAUSE_MAX))
}
