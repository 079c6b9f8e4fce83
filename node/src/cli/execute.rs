//! Executes a request: by the daemon that holds the home, or here. What comes back is shown the same either way.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::context::Context;
use super::serving::answer_meanwhile;
use super::signals::Signals;
use crate::api::client::Client;
use crate::config;
use crate::engine::onlook::onlook;
use crate::engine::{CommandOptions, Engine, Mode};
use crate::failure::{Exit, Failure};
use crate::home::{Home, HomeLock, HomePaths, busy, no_account};
use crate::output::{Output, Outputs, Sink, channel};
use crate::render::Renderer;
use crate::request::Request;

/// Who executes.
enum Executing {
    Here(HomeLock),
    Daemon(Client),
    /// Whoever holds the home answers nobody: the catalog can be read all the same.
    Onlooking,
}

/// A daemon that was just started holds the lock before its socket answers. Chosen: longer than any start that was seen.
const DAEMON_START_WAIT: Duration = Duration::from_secs(3);

impl Context {
    /// Executes a request and shows its answers.
    pub async fn execute(&self, request: Request) -> Result<Exit, Failure> {
        self.execute_with(request, CommandOptions::default(), &|_| true).await
    }

    /// The same, with these options if it is executed here, and showing only the outputs to `keep`.
    pub async fn execute_with(
        &self,
        request: Request,
        options: CommandOptions,
        keep: &dyn Fn(&Output) -> bool,
    ) -> Result<Exit, Failure> {
        let signals = Signals::listen()?;
        let (sink, outputs) = channel(signals.stop.clone());
        let executing = match executing(&self.paths, &signals.stop).await {
            Err(failure) if failure.exit == Exit::HomeBusy && matches!(request, Request::Status { .. }) => {
                Executing::Onlooking
            }
            executing => executing?,
        };
        let paths = self.paths.clone();
        let work = tokio::spawn(async move {
            match executing {
                Executing::Daemon(client) => client.execute(request, sink).await,
                Executing::Here(lock) => here(paths, lock, request, sink, options).await,
                Executing::Onlooking => match request {
                    Request::Status { paths: asked } => onlook(paths, asked, sink).await,
                    _ => Err(busy(&paths)),
                },
            }
        });
        let shown = show(Renderer::stdout(self.options), outputs, keep).await;
        let ending = work.await.unwrap_or_else(|error| {
            Err(Failure::context("The command failed inside", &error)
                .hint("please report this, with the output of -vv"))
        });
        settle(ending, shown, &signals)
    }
}

async fn executing(paths: &HomePaths, stop: &CancellationToken) -> Result<Executing, Failure> {
    if !paths.has_account() {
        return Err(no_account(paths));
    }
    let deadline = tokio::time::Instant::now() + DAEMON_START_WAIT;
    loop {
        if let Some(lock) = HomeLock::try_take(paths)? {
            return Ok(Executing::Here(lock));
        }
        match Client::connect(&paths.api_socket()).await {
            Ok(client) => return Ok(Executing::Daemon(client)),
            Err(failure) if failure.hint.is_some() => return Err(failure),
            Err(failure) if tokio::time::Instant::now() >= deadline => {
                let mut busy = busy(paths);
                busy.causes.push(failure.error);
                busy.causes.extend(failure.causes);
                return Err(busy);
            }
            Err(_) => tokio::select! {
                () = tokio::time::sleep(Duration::from_millis(50)) => {}
                () = stop.cancelled() => return Err(Failure::interrupted()),
            },
        }
    }
}

async fn here(
    paths: HomePaths,
    lock: HomeLock,
    request: Request,
    sink: Sink,
    options: CommandOptions,
) -> Result<Exit, Failure> {
    if matches!(request, Request::Stop | Request::Ready) {
        return Err(Failure::new(Exit::Failed, "No daemon runs in this home").hint("start one with `gridbackup run`"));
    }
    if is_config_only(&request)
        && let Some(answer) = config::answer(&paths.config(), &request)
    {
        for message in answer? {
            sink.send(message).await?;
        }
        return Ok(Exit::Done);
    }
    let (only_reads, is_to_read) = (request.only_reads(), lock.is_to_read());
    let lock = if only_reads { lock } else { lock.for_writing(&paths)? };
    let home = Home::open_locked(paths.clone(), lock)?;
    let engine = match request {
        Request::Recover { .. } => Engine::open_to_recover(home, Mode::Command(options)).await?,
        _ if only_reads => Engine::open_to_read(home, options).await?,
        _ => Engine::open(home, Mode::Command(options)).await?,
    };
    let engine = Arc::new(engine);
    // Whoever can only read has no socket to make, and nobody has to wait for it.
    if !is_long(&request) || is_to_read {
        return Engine::execute(&engine, request, sink).await;
    }
    let (work, done) = (sink.stop().clone(), sink.stop().child_token());
    let answering = tokio::spawn(answer_meanwhile(paths, engine.clone(), done.clone(), work));
    let ending = Engine::execute(&engine, request, sink).await;
    done.cancel();
    let _answered = answering.await;
    ending
}

/// May take hours, in which others want to know how it stands.
fn is_long(request: &Request) -> bool {
    matches!(
        request,
        Request::RunOnce { .. }
            | Request::Restore(_)
            | Request::Mount(_)
            | Request::Recover { .. }
            | Request::Check { .. }
            | Request::Verify { .. }
            | Request::Repair { .. }
            | Request::Dump { .. }
            | Request::Forget(_)
            | Request::Prune { .. }
            | Request::Undelete { .. }
    )
}

/// Needs config.toml and nothing else: no database is opened and no port bound for it.
fn is_config_only(request: &Request) -> bool {
    // Whether a steward is a member, the roster says.
    let needs_roster = matches!(request, Request::ConfigSet { key, .. } if key == "steward");
    let reads_config = matches!(
        request,
        Request::FolderAdd { .. }
            | Request::FolderList
            | Request::FolderRemove { .. }
            | Request::ExcludeAdd { .. }
            | Request::ExcludeList
            | Request::ExcludeRemove { .. }
            | Request::ConfigGet { .. }
            | Request::ConfigSet { .. }
    );
    reads_config && !needs_roster
}

/// Shows outputs until there are no more; an error if whoever reads this process's stdout went away.
async fn show<W: io::Write>(
    mut renderer: Renderer<W>,
    mut outputs: Outputs,
    keep: &dyn Fn(&Output) -> bool,
) -> io::Result<()> {
    while let Some(output) = outputs.next().await {
        if keep(&output) {
            renderer.show(&output)?;
        }
        if outputs.is_empty() {
            renderer.flush()?;
        }
    }
    renderer.finish()
}

/// What this process says cannot be written.
pub(super) fn unwritable(error: &io::Error) -> Failure {
    Failure::context(format!("Standard output cannot be written: {error}"), error)
}

/// How the command ends, from how the work ended, whether its answers could be written, and signals.
fn settle(ending: Result<Exit, Failure>, shown: io::Result<()>, signals: &Signals) -> Result<Exit, Failure> {
    match (ending, shown) {
        (Ok(_), _)
        | (
            Err(Failure {
                exit: Exit::Interrupted,
                ..
            }),
            _,
        ) if signals.caught() => Ok(Exit::Interrupted),
        // The reader (`head`, a pager) has all it wanted.
        (_, Err(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(Exit::Done),
        // That the work was interrupted then is because of this.
        (_, Err(error)) => Err(unwritable(&error)),
        (Err(failure), _) => Err(failure),
        (Ok(exit), Ok(())) => Ok(exit),
    }
}
