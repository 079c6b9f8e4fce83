//! The API's client: begins at `/`, follows links by rel, and turns events back into the outputs that the engine gave.

use std::path::Path;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Request as HttpRequest, Response, header};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;

use super::replay::Step;
use super::resource::{Entry, encode};
use super::stream::EventReader;
use crate::failure::{Exit, Failure};
use crate::output::Sink;
use crate::request::Request;

/// A connection to a daemon.
pub struct Client {
    sender: SendRequest<Full<Bytes>>,
    entry: Entry,
}

/// What became of a request.
#[derive(Debug, PartialEq)]
pub enum Followed {
    /// It was executed, or refused for good.
    Ended(Result<Exit, Failure>),
    /// The process that held the home ended before it began: take the home, or ask whoever has it now.
    NotBegun,
}

/// Nobody to ask.
#[derive(Debug)]
pub enum ConnectError {
    /// Nobody answers, or whoever did went away: perhaps another will.
    Away(Failure),
    /// Another version answers.
    Foreign(Failure),
}

/// Longest entry document or failure that is read.
const DOCUMENT_BYTES_MAX: usize = 1 << 20;

impl Client {
    /// Connects to the process at `socket` that holds the home; an error if nobody answers as one does.
    pub async fn connect(socket: &Path) -> Result<Self, ConnectError> {
        let stream = UnixStream::connect(socket).await.map_err(|error| {
            ConnectError::Away(Failure::context(
                format!("`{}` does not answer", socket.display()),
                &error,
            ))
        })?;
        let away = |error: hyper::Error| ConnectError::Away(lost(&error));
        let (mut sender, connection) = handshake(TokioIo::new(stream)).await.map_err(away)?;
        tokio::spawn(connection);
        let request = request("GET", "/", Vec::new(), None).map_err(ConnectError::Foreign)?;
        let response = send(&mut sender, request).await.map_err(away)?;
        let document = collect(response.into_body()).await.map_err(ConnectError::Away)?;
        let entry = serde_json::from_slice(&document).map_err(|error| {
            ConnectError::Foreign(
                Failure::context(
                    "The process that holds this home does not speak this version's API",
                    &error,
                )
                .hint("restart it, so that both are the same version"),
            )
        })?;
        Ok(Self { sender, entry })
    }

    /// Lets that process execute a request; what it says goes to `sink`. If the sink's stop token is cancelled the
    /// connection is closed, at which it stops the work.
    pub async fn execute(mut self, request: &Request, sink: &Sink) -> Followed {
        let stop = sink.stop().clone();
        tokio::select! {
            followed = self.follow(request, sink) => followed.unwrap_or_else(|failure| Followed::Ended(Err(failure))),
            () = stop.cancelled() => Followed::Ended(Err(Failure::interrupted())),
        }
    }

    async fn follow(&mut self, asked: &Request, sink: &Sink) -> Result<Followed, Failure> {
        let rel = asked.verb().name;
        let link = self.entry.links.iter().find(|link| link.rel == rel).ok_or_else(|| {
            Failure::new(Exit::Failed, format!("The daemon does not know `{rel}`"))
                .hint("restart it, so that both are the same version")
        })?;
        let (method, uri, body) = encode(link, asked)?;
        let key = if link.idempotency_key { Some(new_key()?) } else { None };
        let request = request(&method, &uri, body, key)?;
        // It ended between its list of links and this request, or was killed. Requests are safe to repeat.
        let Ok(response) = send(&mut self.sender, request).await else {
            return Ok(Followed::NotBegun);
        };
        if !response.status().is_success() {
            let status = response.status();
            let document = collect(response.into_body()).await?;
            let failure = serde_json::from_slice(&document)
                .unwrap_or_else(|_| Failure::new(Exit::Failed, format!("The daemon answered {status} to `{rel}`")));
            return match failure.exit {
                Exit::HomeBusy => Ok(Followed::NotBegun),
                _ => Err(failure),
            };
        }
        let content_type = response
            .headers()
            .get(header::CONTENT_TYPE)
            .and_then(|value| value.to_str().ok());
        let ending = if content_type == Some("application/octet-stream") {
            content(response.into_body(), sink).await
        } else {
            events(response.into_body(), sink).await
        };
        Ok(Followed::Ended(ending))
    }
}

async fn content(mut body: Incoming, sink: &Sink) -> Result<Exit, Failure> {
    while let Some(frame) = body.frame().await {
        if let Ok(bytes) = frame.map_err(|error| lost(&error))?.into_data() {
            sink.bytes(bytes).await?;
        }
    }
    Ok(Exit::Done)
}

async fn events(mut body: Incoming, sink: &Sink) -> Result<Exit, Failure> {
    let mut reader = EventReader::default();
    while let Some(frame) = body.frame().await {
        let Ok(piece) = frame.map_err(|error| lost(&error))?.into_data() else {
            continue;
        };
        reader.push(&piece);
        while let Some(step) = reader.next().map_err(|reason| {
            Failure::new(Exit::Failed, format!("The daemon's answer cannot be read: {reason}"))
                .hint("restart it, so that both are the same version")
        })? {
            match step {
                Step::Output(output) => sink.pass(output).await?,
                Step::End(ending) => return ending,
            }
        }
    }
    Err(Failure::new(Exit::Failed, "The daemon went away before it was done").hint("run the command again"))
}

fn request(method: &str, uri: &str, body: Vec<u8>, key: Option<String>) -> Result<HttpRequest<Full<Bytes>>, Failure> {
    let mut request = HttpRequest::builder()
        .method(method)
        .uri(uri)
        .header(header::HOST, "localhost")
        .header(header::ACCEPT, "text/event-stream")
        .header(header::CONTENT_TYPE, "application/json");
    if let Some(key) = key {
        request = request.header("Idempotency-Key", key);
    }
    let request = request.body(Full::new(body.into()));
    request.map_err(|error| Failure::from_error(&error))
}

async fn send(
    sender: &mut SendRequest<Full<Bytes>>,
    request: HttpRequest<Full<Bytes>>,
) -> Result<Response<Incoming>, hyper::Error> {
    // The answer before may have been read to its end while the connection's own task has not noticed yet.
    sender.ready().await?;
    sender.send_request(request).await
}

async fn collect(mut body: Incoming) -> Result<Vec<u8>, Failure> {
    let mut document = Vec::new();
    while let Some(frame) = body.frame().await {
        if let Ok(piece) = frame.map_err(|error| lost(&error))?.into_data() {
            document.extend_from_slice(&piece);
        }
        if document.len() > DOCUMENT_BYTES_MAX {
            return Err(Failure::new(Exit::Failed, "The daemon's answer is too long"));
        }
    }
    Ok(document)
}

fn new_key() -> Result<String, Failure> {
    let mut key = [0; 16];
    getrandom::fill(&mut key)
        .map_err(|error| Failure::new(Exit::Failed, format!("The system gives no random bytes: {error}")))?;
    Ok(data_encoding::HEXLOWER.encode(&key))
}

fn lost(error: &hyper::Error) -> Failure {
    Failure::context("The connection to the daemon broke", error).hint("run the command again")
}
