//! What the commands of `publish` share: a client, and work whose answers are shown while it goes on.

use std::future::Future;
use std::io;

use api::failure::{Exit, Failure};
use api::message::{Message, Summary};
use api::output::{Outputs, Sink, channel};
use publish::PublishError;
use s3::Client;

use crate::cli::endpoint::EndpointArgs;
use crate::cli::execute::unwritable;
use crate::cli::signals::Signals;
use crate::render::{RenderOptions, Renderer};

/// A client for a location as typed.
pub(super) fn client(location: &str, endpoint: &EndpointArgs) -> Result<Client, Failure> {
    Client::new(endpoint.location(location)?, &s3::Options::default()).map_err(|error| Failure::from_error(&error))
}

/// What a command's words are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Words {
    /// What it is for: it waits for their reader, and ends with it.
    Answer,
    /// A report of work that goes on to its end, whoever reads.
    Report,
}

/// Works on a task of its own while its answers are shown; its last word is the summary.
pub(super) async fn run_shown<F>(
    options: RenderOptions,
    words: Words,
    work: impl FnOnce(Sink) -> F + Send + 'static,
) -> Result<Exit, Failure>
where
    F: Future<Output = Result<(Option<Summary>, Exit), PublishError>> + Send + 'static,
{
    let signals = Signals::listen()?;
    let (sink, outputs) = channel(signals.stop.clone());
    let working = tokio::spawn(async move {
        let (summary, exit) = work(sink.clone()).await?;
        if let Some(summary) = summary {
            // Whoever does not read it any more has the exit code.
            let _closed = sink.send(Message::from(summary)).await;
        }
        Ok(exit)
    });
    let outputs = match words {
        Words::Answer => outputs,
        Words::Report => outputs.decoupled(),
    };
    let shown = show(Renderer::stdout(options), outputs).await;
    let ended = working
        .await
        .map_err(|error| Failure::context("The command failed inside", &error))?;
    match (ended, shown) {
        // That the work was stopped then is because of this.
        (_, Err(error)) if error.kind() != io::ErrorKind::BrokenPipe => Err(unwritable(&error)),
        (Err(PublishError::Stopped), _) => Err(Failure::interrupted()),
        (Err(error), _) => Err(Failure::from_error(&error)),
        (Ok(exit), _) => Ok(exit),
    }
}

async fn show<W: io::Write>(mut renderer: Renderer<W>, mut outputs: Outputs) -> io::Result<()> {
    while let Some(output) = outputs.next().await {
        renderer.show(&output)?;
        if outputs.is_empty() {
            renderer.flush()?;
        }
    }
    renderer.finish()
}
