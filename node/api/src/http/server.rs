//! Serves the API on a Unix socket and, for scripts that cannot use one, on a loopback port with a bearer token.

use std::collections::HashMap;
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::rejection::{BytesRejection, PathRejection};
use axum::extract::{DefaultBodyLimit, Path as PathVariables, RawQuery, Request as HttpRequest, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodFilter, get, on};
use axum::{Json, Router};
use futures::stream::{self, StreamExt};
use tokio::net::{TcpListener, UnixListener};
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use super::gate::{Entered, Gate};
use super::keys::Keys;
use super::problem::{describe, refuse};
use super::replay::{Runs, Step, Steps, Workers};
use super::resource::{decode, entry, needs_key};
use super::stream::Format;
use super::{Executor, template};
use crate::failure::{Exit, Failure, Kind};
use crate::output::Output;
use crate::request::VERBS;
use crate::request::verb::Verb;

/// What answers come as, and what asks for any of it.
const MEDIA_TYPES: [&str; 7] = [
    "text/event-stream",
    "application/jsonl",
    "application/json",
    "application/octet-stream",
    "application/*",
    "text/*",
    "*/*",
];

/// Longest body that is read.
const BODY_BYTES_MAX: usize = 1 << 20;

/// Longest address. Lists travel in bodies.
const URI_BYTES_MAX: usize = 8 << 10;

/// Longest `Idempotency-Key`.
const KEY_BYTES_MAX: usize = 64;

/// What a client on the loopback port shows as `Authorization: Bearer`.
#[derive(Clone)]
pub struct LoopbackToken(Arc<Zeroizing<String>>);

/// Listeners, bound but not yet served.
pub struct ApiServer {
    unix: UnixListener,
    socket: PathBuf,
    keys: PathBuf,
    tcp: Option<(TcpListener, LoopbackToken)>,
}

/// When a server ends.
#[derive(Clone, Debug)]
pub struct Ends {
    /// Told to stop: requests that are being executed are stopped, too.
    pub stop: CancellationToken,
    /// Nothing else is left to do: requests that are being executed are finished first.
    pub done: CancellationToken,
}

/// Requests have this long to end cleanly once they are told to stop, and their last bytes as long to be read. Chosen: longer
/// than any transaction, shorter than the patience of a service manager.
const STOP_WAIT: Duration = Duration::from_secs(10);

#[derive(Clone)]
struct Shared {
    workers: Workers,
    runs: Arc<Runs>,
    gate: Arc<Gate>,
}

impl ApiServer {
    /// Binds. The caller holds the home's lock, so that a socket that is there is a dead process's.
    /// `token` is asked for only where there is a loopback port. `keys` is the file of the keys that clients chose.
    pub async fn bind(
        socket: PathBuf,
        keys: PathBuf,
        loopback: Option<SocketAddr>,
        token: impl FnOnce() -> Result<Zeroizing<String>, Failure>,
    ) -> Result<Self, Failure> {
        let unix = bind_socket(&socket)?;
        let tcp = match loopback {
            None => None,
            Some(address) if !address.ip().is_loopback() => {
                return Err(Failure::new(Exit::Usage, format!("`{address}` is no loopback address"))
                    .hint("the API is for this machine only: use 127.0.0.1:PORT"));
            }
            Some(address) => {
                let listener = TcpListener::bind(address).await.map_err(|error| {
                    Failure::context(format!("The API cannot listen on {address}: {error}"), &error)
                        .hint("choose another port, or 0 for any")
                })?;
                Some((listener, LoopbackToken(Arc::new(token()?))))
            }
        };
        Ok(Self {
            unix,
            socket,
            keys,
            tcp,
        })
    }

    /// Where it listens: `unix:PATH`, or the URL of the loopback port if there is one.
    pub fn address(&self) -> String {
        match self.tcp.as_ref().and_then(|(listener, _)| listener.local_addr().ok()) {
            Some(address) => format!("http://{address}/"),
            None => format!("unix:{}", self.socket.display()),
        }
    }

    /// Serves until the end. What was begun is answered to the last byte; what comes too late is refused before it is begun.
    pub async fn serve(self, executor: Arc<dyn Executor>, ends: Ends) {
        let workers = Workers::new(executor, ends.stop.clone());
        let gate = Arc::new(Gate::default());
        let path = self.keys;
        let keys = tokio::task::spawn_blocking(move || Keys::open(&path)).await;
        let app = router(Shared {
            workers: workers.clone(),
            runs: Runs::new(keys.unwrap_or_else(|_panicked| Keys::none())),
            gate: gate.clone(),
        });
        let closed = CancellationToken::new();
        let tcp = self.tcp.map(|(listener, token)| {
            let app = app.clone().layer(middleware::from_fn_with_state(token, authorize));
            axum::serve(listener, app).with_graceful_shutdown(closed.clone().cancelled_owned())
        });
        let unix = axum::serve(self.unix, app).with_graceful_shutdown(closed.clone().cancelled_owned());
        let serving = async {
            match tcp {
                Some(tcp) => drop(tokio::join!(unix.into_future(), tcp.into_future())),
                None => drop(unix.await),
            }
        };
        let closing = async {
            close(&gate, &ends).await;
            let _gone = fs::remove_file(&self.socket);
            closed.cancel();
            tokio::time::sleep(STOP_WAIT).await;
        };
        tokio::select! {
            () = serving => {}
            () = closing => tracing::info!("Some connections did not end in time and are broken off"),
        }
        if tokio::time::timeout(STOP_WAIT, workers.finish()).await.is_err() {
            tracing::warn!("Some requests did not stop in time and are broken off");
        }
    }
}

/// Shuts the gate for good when it is time.
async fn close(gate: &Gate, ends: &Ends) {
    let late = || tracing::warn!("The work is done; this process ends with the other commands that it still executes");
    let finished = async {
        ends.done.cancelled().await;
        gate.close_when_idle(late).await;
    };
    tokio::select! {
        biased;
        () = ends.stop.cancelled() => {}
        () = finished => return,
    }
    gate.shut();
    let _forced = tokio::time::timeout(STOP_WAIT, gate.idle()).await;
}

fn bind_socket(socket: &Path) -> Result<UnixListener, Failure> {
    let failed = |error: &std::io::Error| {
        Failure::context(
            format!("The API cannot listen on `{}`: {error}", socket.display()),
            error,
        )
    };
    match fs::remove_file(socket) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(&error)),
        _ => {}
    }
    let listener = UnixListener::bind(socket).map_err(|error| failed(&error))?;
    fs::set_permissions(socket, fs::Permissions::from_mode(0o600)).map_err(|error| failed(&error))?;
    Ok(listener)
}

async fn authorize(State(token): State<LoopbackToken>, request: HttpRequest, next: Next) -> Response {
    let shown = request
        .headers()
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok());
    let shown = shown
        .and_then(|value| value.strip_prefix("Bearer "))
        .unwrap_or_default();
    // Hashes are compared in constant time: the token cannot be guessed byte by byte.
    if blake3::hash(shown.as_bytes()) == blake3::hash(token.0.as_bytes()) {
        return next.run(request).await;
    }
    let failure = Failure::new(Exit::Failed, "The request has no valid bearer token")
        .hint("send `Authorization: Bearer` with the content of api.token in the home");
    let mut refused = refuse(&failure);
    *refused.status_mut() = StatusCode::UNAUTHORIZED;
    let headers = refused.headers_mut();
    headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    refused
}

/// Refuses what no request may be, before anything looks at it.
async fn check_form(request: HttpRequest, next: Next) -> Response {
    let refused = |error: String, kind| refuse(&Failure::new(Exit::Usage, error).kind(kind));
    if request.uri().to_string().len() > URI_BYTES_MAX {
        return refused(format!("An address has {URI_BYTES_MAX} bytes at most"), Kind::TooLong);
    }
    let headers = request.headers();
    let accepted = header_text(headers, header::ACCEPT.as_str());
    if !accepted.is_empty() && !MEDIA_TYPES.iter().any(|media_type| accepted.contains(media_type)) {
        let error = format!("`{accepted}` cannot be given; there is {}", MEDIA_TYPES.join(", "));
        return refused(error, Kind::NotAcceptable);
    }
    let sent = header_text(headers, header::CONTENT_TYPE.as_str());
    if !sent.is_empty() && sent.split(';').next().map(str::trim) != Some("application/json") {
        return refused(format!("A body is application/json, not `{sent}`"), Kind::WrongType);
    }
    next.run(request).await
}

async fn nothing_there(uri: Uri) -> Response {
    let failure = Failure::new(Exit::Usage, format!("There is nothing at `{}`", uri.path()));
    refuse(
        &failure
            .kind(Kind::NotFound)
            .hint("GET / lists every request and its fields"),
    )
}

async fn other_method(uri: Uri) -> Response {
    let failure = Failure::new(Exit::Usage, format!("`{}` is asked in another way", uri.path()));
    refuse(
        &failure
            .kind(Kind::WrongMethod)
            .hint("GET / lists every request and its method"),
    )
}

async fn problem(PathVariables(name): PathVariables<String>) -> Response {
    describe(&name).map_or_else(|failure| refuse(&failure), IntoResponse::into_response)
}

fn router(shared: Shared) -> Router {
    let mut router = Router::new()
        .route("/", get(|| async { Json(entry()) }))
        .route("/problems/{name}", get(problem));
    for verb in VERBS {
        let method = match verb.method {
            "GET" => MethodFilter::GET,
            "PUT" => MethodFilter::PUT,
            "PATCH" => MethodFilter::PATCH,
            "DELETE" => MethodFilter::DELETE,
            _ => MethodFilter::POST,
        };
        let handler = move |state: State<Shared>,
                            variables: Result<PathVariables<HashMap<String, String>>, PathRejection>,
                            query: RawQuery,
                            headers: HeaderMap,
                            body: Result<Bytes, BytesRejection>| async move {
            let Some(entered) = state.gate.enter() else {
                return refuse(
                    &Failure::new(Exit::HomeBusy, "The process that holds this home is ending")
                        .hint("run the command again"),
                );
            };
            let asked = Asked {
                verb,
                variables,
                query: query.0,
                headers: &headers,
                body,
            };
            match answer(&state, asked).await {
                Ok(steps) => {
                    let format = Format::of(header_text(&headers, header::ACCEPT.as_str()));
                    respond(until_read(steps, entered), format).await
                }
                Err(failure) => refuse(&failure),
            }
        };
        router = router.route(template::path(verb.href), on(method, handler));
    }
    router
        .fallback(nothing_there)
        .method_not_allowed_fallback(other_method)
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(middleware::from_fn(check_form))
        .with_state(shared)
}

/// A request as it came.
struct Asked<'a> {
    verb: &'static Verb,
    variables: Result<PathVariables<HashMap<String, String>>, PathRejection>,
    query: Option<String>,
    headers: &'a HeaderMap,
    body: Result<Bytes, BytesRejection>,
}

async fn answer(shared: &Shared, asked: Asked<'_>) -> Result<Steps, Failure> {
    let wrong = |what: &str| Failure::new(Exit::Usage, what).hint("GET / lists every request and its fields");
    let Asked { verb, headers, .. } = asked;
    let body = asked.body.map_err(|rejected| match rejected.status() {
        StatusCode::PAYLOAD_TOO_LARGE => {
            wrong(&format!("A body has {BODY_BYTES_MAX} bytes at most")).kind(Kind::TooLarge)
        }
        _ => wrong(&rejected.body_text()),
    })?;
    let variables = asked.variables.map_err(|rejected| wrong(&rejected.body_text()))?;
    let mut pairs: Vec<_> = variables
        .0
        .into_iter()
        .map(|(name, value)| (name, value.into_bytes()))
        .collect();
    let query = template::query(asked.query.as_deref().unwrap_or_default());
    pairs.extend(query.ok_or_else(|| wrong("The query is not percent-encoded"))?);
    let request = decode(verb, pairs, &body)?;
    if !needs_key(verb) {
        return Ok(shared.workers.execute(request));
    }
    let key = header_text(headers, "idempotency-key");
    if key.is_empty() || key.len() > KEY_BYTES_MAX {
        return Err(wrong("The request has no Idempotency-Key of 1 to 64 characters"));
    }
    shared.runs.execute(&shared.workers, key, request).await
}

/// The same steps, counted as being answered until they are read or nobody reads them any more.
fn until_read(steps: Steps, entered: Entered) -> Steps {
    steps
        .chain(stream::once(async move { drop(entered) }).filter_map(|()| async { None }))
        .boxed()
}

fn header_text<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers
        .get(name)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default()
}

/// Waits for the first step, so that what fails at once has a status that says so.
async fn respond(mut steps: Steps, format: Format) -> Response {
    let Some(first) = steps.next().await else {
        return StatusCode::NO_CONTENT.into_response();
    };
    let content_type = match &first {
        Step::End(Err(failure)) => return refuse(failure),
        Step::Output(Output::Bytes(_)) => "application/octet-stream",
        _ => format.content_type(),
    };
    let is_content = content_type == "application/octet-stream";
    let pieces = stream::iter([first]).chain(steps).filter_map(move |step| async move {
        match step {
            // Content has no place for an ending: a failure breaks the connection off, so that no half is taken for all.
            Step::End(Err(failure)) if is_content => Some(Err(std::io::Error::other(failure.to_string()))),
            Step::End(Ok(_)) if is_content => None,
            Step::Output(Output::Message(_)) if is_content => None,
            step => Some(format.encode(step).map_err(std::io::Error::other)),
        }
    });
    (
        [
            (header::CONTENT_TYPE, content_type),
            (header::CACHE_CONTROL, "no-store"),
        ],
        Body::from_stream(pieces),
    )
        .into_response()
}
