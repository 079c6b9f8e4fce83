//! The server: takes connections, gives each a thread, and ends them all in order.
//!
//! A connection has a thread with a runtime of its own, for two reasons: what a device does in `apply` and `read_now` takes time, which
//! the threads of a shared runtime should not spend; and a thread that waits for its own socket alone is woken by it directly. Measured
//! beside tasks in a shared runtime in docs/decisions/0062-nbd-server.md.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use crate::nbd::address::Listener;
use crate::nbd::exports::Exports;
use crate::nbd::handshake::Handshake;
use crate::nbd::link::{Link, Reader, Writer};
use crate::nbd::sessions::{Admission, Sessions, Writers};
use crate::nbd::transmission::Transmission;

/// Most connections at a time. Chosen: four exports with sixteen connections each; each holds at most 7 MiB (`inbox`, `transmission`).
pub const CONNECTIONS_MAX: usize = 64;
/// How long a client may take to choose an export; people who type options by hand are quicker.
pub const HANDSHAKE_WAIT: Duration = Duration::from_secs(30);
/// How long clients have to take their last replies when the server stops.
const STOP_WAIT: Duration = Duration::from_secs(5);
/// Pause after a connection could not be taken, for want of descriptors mostly.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What a server allows.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Most connections at a time.
    pub connections_max: usize,
    /// Longest handshake.
    pub handshake_wait: Duration,
    /// Who may write to an export.
    pub writers: Writers,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            connections_max: CONNECTIONS_MAX,
            handshake_wait: HANDSHAKE_WAIT,
            writers: Writers::OneClient,
        }
    }
}

/// Serves exports to whoever connects. Clones are the same server.
#[derive(Clone)]
pub struct Server(Arc<Inner>);

struct Inner {
    exports: Arc<dyn Exports>,
    sessions: Arc<Sessions>,
    options: Options,
    places: Arc<Semaphore>,
    stop: CancellationToken,
}

impl Server {
    /// A server that nobody can connect to yet.
    pub fn new(exports: Arc<dyn Exports>, options: Options) -> Self {
        Self(Arc::new(Inner {
            exports,
            sessions: Arc::new(Sessions::new(options.writers)),
            options,
            places: Arc::new(Semaphore::new(options.connections_max)),
            stop: CancellationToken::new(),
        }))
    }

    /// Takes connections until the server stops. When dropped, those that are there go on.
    pub async fn serve(&self, listener: Listener) {
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = self.0.stop.cancelled() => return,
            };
            let started = match (accepted, self.0.places.clone().try_acquire_owned()) {
                (Ok(link), Ok(place)) => self.start(link, place),
                (Ok(link), Err(_)) => {
                    let most = self.0.options.connections_max;
                    tracing::warn!(
                        "A client of the disk was turned away, {}: there are {most} connections",
                        link.client
                    );
                    Ok(())
                }
                (Err(error), _) => Err(error),
            };
            if let Err(error) = started {
                tracing::warn!("A client of the disk was turned away: {error}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }

    fn start(&self, link: Link, place: OwnedSemaphorePermit) -> io::Result<()> {
        let (inner, beside) = (self.0.clone(), Handle::current());
        let body = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            match runtime {
                Ok(runtime) => runtime.block_on(inner.connection(link, beside)),
                Err(error) => tracing::warn!("A client of the disk was turned away: {error}"),
            }
            drop(place);
        };
        std::thread::Builder::new().name("nbd".to_owned()).spawn(body)?;
        Ok(())
    }

    /// Ends all connections to an export at once. What is not answered yet is not done.
    pub fn cut(&self, export: &str) {
        self.0.sessions.cut(export);
    }

    /// Takes nothing more, answers what is under way, and returns when all connections are closed. Not to be dropped.
    pub async fn stop(&self) {
        self.0.stop.cancel();
        let all = u32::try_from(self.0.options.connections_max).unwrap_or(u32::MAX);
        if tokio::time::timeout(STOP_WAIT, self.0.places.acquire_many(all))
            .await
            .is_err()
        {
            self.0.sessions.cut_all();
            let _none_is_left = self.0.places.acquire_many(all).await;
        }
    }
}

impl Inner {
    async fn connection(&self, link: Link, beside: Handle) {
        let (client, line) = (link.client, link.line());
        let opened = line.and_then(|line| Ok((line, link.open()?)));
        let (line, (mut reader, mut writer)) = match opened {
            Ok(opened) => opened,
            Err(error) => return tracing::warn!("A client of the disk was turned away: {error}"),
        };
        let admission = Admission {
            sessions: &self.sessions,
            client,
            line: Some(line),
            stop: &self.stop,
        };
        if let Some(entered) = self.handshake(&admission, &mut reader, &mut writer).await {
            let device = entered.export.device;
            let session = &entered.session;
            let transmission = Transmission::new(device, entered.terms, writer, session, &self.stop, beside);
            transmission.run(&mut *reader).await;
        }
    }

    async fn handshake(
        &self,
        admission: &Admission<'_>,
        reader: &mut Reader,
        writer: &mut Writer,
    ) -> Option<crate::nbd::handshake::Entered> {
        let handshake = Handshake { reader, writer }.run(&*self.exports, admission);
        tokio::select! {
            // Whoever is silent, talks nonsense or goes away gets no answer, and is no event: port scanners do so.
            ended = tokio::time::timeout(self.options.handshake_wait, handshake) => ended.ok()?.ok()?,
            () = self.stop.cancelled() => None,
        }
    }
}
