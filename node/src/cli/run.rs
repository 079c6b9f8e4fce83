//! `run` and `node`: the daemon, and `run --once`.

use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use api::failure::{Exit, Failure};
use api::http::Ends;
use api::http::client::{Client, Followed};
use api::human::ByteSize;
use api::message::{Message, Ready};
use api::output::{Output, Outputs, channel};
use api::request::{Request, RunOnce};
use engine::bandwidth::Limits;
use engine::home::{Home, HomeLock, HomePaths, busy, no_account};
use engine::{CommandOptions, DaemonOptions, Engine};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::context::{Context, absolute};
use super::serving::Serving;
use super::signals::Signals;
use crate::render::Renderer;

/// Arguments of `run`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Make one snapshot, upload until nothing more can be placed, exit
    #[arg(long)]
    once: bool,
    /// What to back up instead of the config's folders
    #[arg(value_name = "PATH", requires = "once")]
    paths: Vec<PathBuf>,
    /// Take folders that are empty now for emptied; without it, what was in a mount point or a whole folder of the backup is
    /// kept, because an unmounted disk looks the same
    #[arg(long, requires = "once")]
    accept_emptied: bool,
    /// Only store for friends
    #[arg(long, conflicts_with = "once")]
    store_only: bool,
    #[command(flatten)]
    listening: NodeArgs,
}

/// Arguments of `node`.
#[derive(Debug, clap::Args)]
pub struct NodeArgs {
    /// Where friends reach this node, instead of the config's `listen` (may be repeated)
    #[arg(long, value_name = "MULTIADDR")]
    listen: Vec<friendnet::Multiaddr>,
    /// Serve the API on this loopback port, too, for who has the token in `api.token`
    #[arg(long, value_name = "ADDR")]
    api: Option<SocketAddr>,
    /// Send at most so many bytes a second, whatever the config and the hour say
    #[arg(long, value_name = "SIZE")]
    limit_upload: Option<ByteSize>,
    /// Receive at most so many bytes a second
    #[arg(long, value_name = "SIZE")]
    limit_download: Option<ByteSize>,
}

impl Args {
    /// Without `--once`.
    pub fn is_daemon(&self) -> bool {
        !self.once
    }

    /// With `--once`, as a request.
    pub fn request(self) -> Result<Request, Failure> {
        let paths = self.paths.iter().map(|path| absolute(path));
        Ok(Request::RunOnce(RunOnce {
            paths: paths.collect::<Result<_, _>>()?,
            accept_emptied: self.accept_emptied,
        }))
    }
}

impl NodeArgs {
    fn limits(&self) -> Limits {
        Limits {
            upload: self.limit_upload,
            download: self.limit_download,
        }
    }
}

/// Chosen: longer than a short command waits for peers that do not answer.
const COMMAND_WAIT: Duration = Duration::from_secs(30);
/// Time between two looks whether the home is free.
const COMMAND_POLL: Duration = Duration::from_millis(50);

/// `run`.
pub async fn run(context: Context, args: Args) -> Result<Exit, Failure> {
    if !args.once {
        return daemon(context, args.listening, args.store_only).await;
    }
    let options = CommandOptions {
        listen: args.listening.listen.iter().map(ToString::to_string).collect(),
        limits: args.listening.limits(),
    };
    context.execute_with(args.request()?, options, &|_| true).await
}

/// `node`.
pub async fn node(context: Context, args: NodeArgs) -> Result<Exit, Failure> {
    daemon(context, args, true).await
}

/// Takes the home for the daemon. A command may have it for a moment; another daemon keeps it.
async fn take_home(paths: &HomePaths, stop: &CancellationToken) -> Result<HomeLock, Failure> {
    if !paths.has_account() {
        return Err(no_account(paths));
    }
    let deadline = Instant::now() + COMMAND_WAIT;
    loop {
        if let Some(lock) = HomeLock::try_take(paths)? {
            return lock.for_writing(paths);
        }
        if Instant::now() >= deadline || is_daemon(paths).await {
            return Err(busy(paths));
        }
        tokio::select! {
            () = tokio::time::sleep(COMMAND_POLL) => {}
            () = stop.cancelled() => return Err(Failure::interrupted()),
        }
    }
}

/// Whether a daemon has the home: only one says that it is ready.
async fn is_daemon(paths: &HomePaths) -> bool {
    let Ok(client) = Client::connect(&paths.api_socket()).await else {
        return false;
    };
    let (sink, _outputs) = channel(CancellationToken::new());
    let answer = tokio::time::timeout(COMMAND_WAIT, client.execute(&Request::Ready, &sink)).await;
    // One that takes long to be ready is one, too.
    answer.map_or(true, |followed| followed == Followed::Ended(Ok(Exit::Done)))
}

async fn daemon(context: Context, args: NodeArgs, store_only: bool) -> Result<Exit, Failure> {
    let signals = Signals::listen()?;
    let home = Home::open_locked(context.paths.clone(), take_home(&context.paths, &signals.stop).await?)?;
    // Before the engine opens: who asks meanwhile waits for the answer instead of being told that the home is in use.
    let server = context.paths.bind_api(args.api).await?;
    let options = DaemonOptions {
        listen: args.listen.iter().map(ToString::to_string).collect(),
        limits: args.limits(),
        store_only,
        api: server.address(),
    };
    let engine = Arc::new(Engine::open_to_serve(home, options).await?);
    let stop = signals.stop.clone();
    let ready = watch::channel(None).0;
    let daemon = Arc::new(Serving::daemon(engine.clone(), ready.clone(), stop.clone()));
    let ends = Ends {
        stop: stop.clone(),
        done: stop.clone(),
    };
    let serving_api = tokio::spawn(server.serve(daemon, ends));
    let (sink, outputs) = channel(stop.clone());
    let served = engine.clone();
    let serving = tokio::spawn(async move { served.serve(sink).await });
    show(Renderer::stdout(context.options), outputs.decoupled(), &ready).await;
    let ending = serving
        .await
        .unwrap_or_else(|error| Err(Failure::context("The daemon failed inside", &error)));
    stop.cancel();
    let _ended = serving_api.await;
    if ending.is_ok() && engine.starts_anew() {
        return Err(start_anew());
    }
    match ending {
        Ok(_)
        | Err(Failure {
            exit: Exit::Interrupted,
            ..
        }) if signals.interrupted() => Ok(Exit::Interrupted),
        Err(Failure {
            exit: Exit::Interrupted,
            ..
        }) => Ok(Exit::Done),
        ending => ending,
    }
}

/// Becomes the same command anew, as a service manager would start it; what went wrong, if that is not possible.
fn start_anew() -> Failure {
    let program = std::env::current_exe();
    let error = match program {
        Ok(program) => Command::new(program).args(std::env::args_os().skip(1)).exec(),
        Err(error) => error,
    };
    Failure::context(
        "There is room again, and this daemon cannot start anew by itself",
        &error,
    )
    .hint("start it again")
}

/// Shows what the daemon says for as long as it lives. A reader that went away is no reason to stop storing for friends.
async fn show<W: std::io::Write>(
    mut renderer: Renderer<W>,
    mut outputs: Outputs,
    ready: &watch::Sender<Option<Ready>>,
) {
    let mut is_read = true;
    while let Some(output) = outputs.next().await {
        if let Output::Message(Message::Ready(said)) = &output {
            ready.send_replace(Some(said.clone()));
        }
        if is_read {
            is_read = renderer.show(&output).and_then(|()| renderer.flush()).is_ok();
        }
    }
    let _last = renderer.finish();
}
