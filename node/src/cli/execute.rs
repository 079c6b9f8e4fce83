//! Executes a request: by the daemon that holds the home, or here. What comes back is shown the same either way.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use api::failure::{Exit, Failure};
use api::http::Ends;
use api::http::client::{Client, ConnectError, Followed};
use api::message::Message;
use api::output::{Output, Outputs, Sink, channel};
use api::request::verb::Needs;
use api::request::{Needing, Request, Status};
use engine::home::{Home, HomeLock, HomePaths, busy, no_account};
use engine::onlook::onlook;
use engine::{CommandOptions, Engine, Mode, config, no_daemon};
use tokio_util::sync::CancellationToken;

use super::context::Context;
use super::serving::answer_meanwhile;
use super::signals::Signals;
use crate::render::Renderer;

/// Who executes.
enum Executing {
    Here(HomeLock),
    Daemon(Client),
}

/// A process that was just started holds the lock before its socket answers, and one that ends until it has gone. Chosen: longer than
/// any start and end that was seen, on a machine with more to do than it can.
const SILENCE_WAIT: Duration = Duration::from_secs(15);

/// The same of `status`, which can be answered beside a process that answers nobody. Chosen: as long as somebody looks at a
/// terminal that says nothing.
const ONLOOKER_WAIT: Duration = Duration::from_secs(2);

/// Time between two looks whether the home is free, or somebody answers.
const HOME_POLL: Duration = Duration::from_millis(50);

/// How the work ended.
struct Worked {
    ending: Result<Exit, Failure>,
    /// By a signal. One that comes when the work is done, and only others are still answered, changes nothing of it.
    caught: bool,
}

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
        let paths = self.paths.clone();
        let stop = signals.stop.clone();
        let is_answer = request.verb().how.is_answer();
        let outputs = if is_answer { outputs } else { outputs.decoupled() };
        let work = tokio::spawn(async move { work(paths, request, sink, options, stop).await });
        let shown = show(Renderer::stdout(self.options), outputs, keep).await;
        let worked = work.await.unwrap_or_else(|error| Worked {
            ending: Err(Failure::context("The command failed inside", &error)
                .hint("please report this, with the output of -vv")),
            caught: false,
        });
        settle(worked, shown, is_answer)
    }
}

/// Executes a request, here or by the process that holds the home; if that ends before it began, again.
async fn work(
    paths: HomePaths,
    request: Request,
    sink: Sink,
    options: CommandOptions,
    stop: CancellationToken,
) -> Worked {
    let patience = match request {
        Request::Status(_) => ONLOOKER_WAIT,
        _ => SILENCE_WAIT,
    };
    let ending = loop {
        match executing(&paths, &stop, patience).await {
            Ok(Executing::Here(lock)) => return here(paths, lock, request, sink, options, stop).await,
            Ok(Executing::Daemon(client)) => match client.execute(&request, &sink).await {
                Followed::Ended(ending) => break ending,
                Followed::NotBegun => tokio::time::sleep(HOME_POLL).await,
            },
            Err(failure) => {
                break match request {
                    Request::Status(Status { paths: asked }) if failure.exit == Exit::HomeBusy => {
                        onlook(paths, asked, sink).await
                    }
                    _ => Err(failure),
                };
            }
        }
    };
    Worked {
        ending,
        caught: stop.is_cancelled(),
    }
}

async fn executing(paths: &HomePaths, stop: &CancellationToken, patience: Duration) -> Result<Executing, Failure> {
    if !paths.has_account() {
        return Err(no_account(paths));
    }
    let deadline = tokio::time::Instant::now() + patience;
    loop {
        if let Some(lock) = HomeLock::try_take(paths)? {
            return Ok(Executing::Here(lock));
        }
        match Client::connect(&paths.api_socket()).await {
            Ok(client) => return Ok(Executing::Daemon(client)),
            Err(ConnectError::Foreign(failure)) => return Err(failure),
            Err(ConnectError::Away(failure)) if tokio::time::Instant::now() >= deadline => {
                let mut busy = busy(paths);
                busy.causes.push(failure.error);
                busy.causes.extend(failure.causes);
                return Err(busy);
            }
            Err(_) => tokio::select! {
                () = tokio::time::sleep(HOME_POLL) => {}
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
    stop: CancellationToken,
) -> Worked {
    let worked = |ending| Worked {
        ending,
        caught: stop.is_cancelled(),
    };
    match request.clone().sorted() {
        Needing::Process(_) => return worked(Err(no_daemon())),
        Needing::Settings(asked) if !config::needs_roster(&asked) => {
            let answer = config::answer(&paths.config(), &paths.last_config(), &asked);
            return worked(say(answer, &sink).await);
        }
        _ => {}
    }
    let (how, is_to_read) = (request.verb().how, lock.is_to_read());
    let engine = async {
        let lock = match how.only_reads() {
            true => lock,
            false => lock.for_writing(&paths)?,
        };
        let home = Home::open_locked(paths.clone(), lock)?;
        match request {
            Request::Recover(_) => Engine::open_to_recover(home, Mode::Command(options)).await,
            _ if how.needs == Needs::Roster => Engine::open_for_roster(home, options).await,
            _ if how.only_reads() => Engine::open_to_read(home, options).await,
            _ => Engine::open(home, Mode::Command(options)).await,
        }
    };
    let engine = match engine.await {
        Ok(engine) => Arc::new(engine),
        Err(failure) => return worked(Err(failure)),
    };
    // Whoever can only read has no socket to make, and nobody has to wait for it; a short look writes nothing for others.
    if is_to_read || !how.is_long() {
        return worked(Engine::execute(&engine, request, sink).await);
    }
    let ends = Ends {
        stop: stop.clone(),
        done: CancellationToken::new(),
    };
    let answering = tokio::spawn(answer_meanwhile(paths, engine.clone(), ends.clone()));
    let worked = worked(Engine::execute(&engine, request, sink).await);
    ends.done.cancel();
    let _answered = answering.await;
    worked
}

async fn say(answer: Result<Vec<Message>, Failure>, sink: &Sink) -> Result<Exit, Failure> {
    for message in answer? {
        sink.send(message).await?;
    }
    Ok(Exit::Done)
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

/// How the command ends, from how the work ended and whether what it said could be written.
fn settle(worked: Worked, shown: io::Result<()>, is_answer: bool) -> Result<Exit, Failure> {
    let was_interrupted = matches!(&worked.ending, Err(failure) if failure.exit == Exit::Interrupted);
    if worked.caught && (worked.ending.is_ok() || was_interrupted) {
        return Ok(Exit::Interrupted);
    }
    match (worked.ending, shown) {
        // The reader (`head`, a pager) has all it wanted.
        (_, Err(error)) if is_answer && error.kind() == io::ErrorKind::BrokenPipe => Ok(Exit::Done),
        // That the answer was interrupted then is because of this.
        (_, Err(error)) if is_answer => Err(unwritable(&error)),
        (Err(failure), _) => Err(failure),
        (Ok(exit), Err(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(exit),
        (Ok(_), Err(error)) => Err(unwritable(&error)),
        (Ok(exit), Ok(())) => Ok(exit),
    }
}
