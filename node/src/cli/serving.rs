//! The engine as the API has it: what is asked about the process itself is answered here.

use std::sync::Arc;
use std::time::Duration;

use api::failure::{Exit, Failure};
use api::http::{Ends, Executor};
use api::message::{Changed, Deed, Ready, Thing};
use api::output::Sink;
use api::request::Request;
use engine::Engine;
use engine::home::HomePaths;
use futures::future::BoxFuture;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// An engine that serves.
pub struct Serving {
    engine: Arc<Engine>,
    /// What a daemon said when it was ready; a command that answers while it runs says nothing.
    ready: Option<watch::Sender<Option<Ready>>>,
    stop: CancellationToken,
}

/// The answer to `stop` is on its way before the process stops.
const STOP_DELAY: Duration = Duration::from_millis(100);

impl Serving {
    /// A daemon's.
    pub fn daemon(engine: Arc<Engine>, ready: watch::Sender<Option<Ready>>, stop: CancellationToken) -> Self {
        Self {
            engine,
            ready: Some(ready),
            stop,
        }
    }
}

/// Answers other processes while a command has the home: `status` during the first backup. When `ends.done` is cancelled what they
/// asked is finished; `ends.stop`, which `Request::Stop` cancels, too, stops it.
pub async fn answer_meanwhile(paths: HomePaths, engine: Arc<Engine>, ends: Ends) {
    match paths.bind_api(None).await {
        Ok(server) => {
            let serving = Serving {
                engine,
                ready: None,
                stop: ends.stop.clone(),
            };
            server.serve(Arc::new(serving), ends).await;
        }
        Err(failure) => tracing::info!("Other commands have to wait for this one: {failure}"),
    }
}

impl Executor for Serving {
    fn execute(self: Arc<Self>, request: Request, sink: Sink) -> BoxFuture<'static, Result<Exit, Failure>> {
        Box::pin(async move {
            match request {
                Request::Stop => {
                    let id = std::process::id().to_string();
                    sink.send(Changed::new(Deed::Stopped, Thing::Process, id)).await?;
                    let stop = self.stop.clone();
                    tokio::spawn(async move {
                        tokio::time::sleep(STOP_DELAY).await;
                        stop.cancel();
                    });
                    Ok(Exit::Done)
                }
                Request::Ready => self.say_ready(&sink).await,
                request => Engine::execute(&self.engine, request, sink).await,
            }
        })
    }
}

impl Serving {
    async fn say_ready(&self, sink: &Sink) -> Result<Exit, Failure> {
        let Some(ready) = &self.ready else {
            return Err(
                Failure::new(Exit::Failed, "No daemon runs in this home, only a command")
                    .hint("wait for it, then start one with `gridbackup run`"),
            );
        };
        let mut ready = ready.subscribe();
        let said = ready
            .wait_for(Option::is_some)
            .await
            .ok()
            .and_then(|ready| ready.clone());
        if let Some(said) = said {
            sink.send(said).await?;
        }
        Ok(Exit::Done)
    }
}
