//! The same tree over WebDAV (RFC 4918, class 1, read-only), for systems without FUSE: OPTIONS, PROPFIND of depth 0 and 1,
//! GET and HEAD with ranges; a browser gets folders as pages.
//!
//! Symbolic links are followed, since WebDAV has none; pipes, devices and sockets are left out. Only for this machine, and
//! only with the home's password: other users of the machine can reach the port, too.

use std::io;
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use api::http::template;
use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use backup::restore::RestoreError;
use backup::restore::file::OpenFile;
use backup::view::{Node, View};
use bytes::Bytes;
use data_encoding::BASE64;
use futures::stream::{self, Stream, StreamExt};
use proto::log_record::EntryKind;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

mod folder;
mod range;

use self::folder::Form;
use self::range::Ranged;

/// Bytes read at a time. Chosen: a few segments, and small beside what is fetched ahead.
const PIECE_BYTES: usize = 512 << 10;
/// Longest PROPFIND body that is taken; what it asks for makes no difference.
const BODY_BYTES_MAX: usize = 64 << 10;
/// Answers that are being given have this long to end. Chosen: a piece of any file.
const CLOSE_WAIT: Duration = Duration::from_millis(500);
/// What is allowed, and which WebDAV this is.
const ALLOW: &str = "OPTIONS, GET, HEAD, PROPFIND";

/// The server could not start.
#[derive(Debug, thiserror::Error)]
pub enum WebDavError {
    /// Others could listen in.
    #[error("`{address}` is no loopback address: WebDAV is for this machine only; use 127.0.0.1:PORT")]
    NotLoopback {
        /// As asked.
        address: SocketAddr,
    },
    /// The port is taken, or not ours to take.
    #[error("WebDAV cannot listen on {address}: {source}")]
    Listen {
        /// As asked.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
}

/// A server that listens.
pub struct WebDav {
    listener: TcpListener,
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    view: View,
    password: Zeroizing<String>,
    stop: CancellationToken,
}

impl WebDav {
    /// Listens at `address`, port 0 takes any, to serve until `stop` is cancelled.
    pub async fn bind(
        address: SocketAddr,
        view: View,
        password: Zeroizing<String>,
        stop: CancellationToken,
    ) -> Result<Self, WebDavError> {
        if !address.ip().is_loopback() {
            return Err(WebDavError::NotLoopback { address });
        }
        let failed = |source| WebDavError::Listen { address, source };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let shared = Arc::new(Shared { view, password, stop });
        Ok(Self {
            listener,
            address,
            shared,
        })
    }

    /// Where it listens.
    pub fn url(&self) -> String {
        format!("http://{}/", self.address)
    }

    /// Serves. Dropping this ends it as `stop` does: connections outlive the listener, but are given nothing more.
    pub async fn serve(self) {
        let stop = self.shared.stop.clone();
        let _ended = stop.clone().drop_guard();
        let app = Router::new().fallback(answer).with_state(self.shared);
        let served = axum::serve(self.listener, app).with_graceful_shutdown(stop.clone().cancelled_owned());
        tokio::select! {
            ended = served.into_future() => {
                if let Err(error) = ended {
                    tracing::error!("WebDAV stopped: {error}");
                }
            }
            () = async { stop.cancelled().await; tokio::time::sleep(CLOSE_WAIT).await } => {}
        }
    }
}

async fn answer(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    if shared.stop.is_cancelled() {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    if !shared.allows(request.headers()) {
        let realm = [(
            header::WWW_AUTHENTICATE,
            "Basic realm=\"gridbackup\", charset=\"UTF-8\"",
        )];
        return (StatusCode::UNAUTHORIZED, realm).into_response();
    }
    let Some(path) = names(request.uri().path()) else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    let method = request.method().as_str().to_owned();
    let answer = match method.as_str() {
        "OPTIONS" => Ok(options(StatusCode::OK)),
        "PROPFIND" => propfind(&shared, path, request).await,
        "GET" | "HEAD" => get(&shared, path, request.headers(), method == "HEAD").await,
        _ => Ok(options(StatusCode::METHOD_NOT_ALLOWED)),
    };
    answer.unwrap_or_else(IntoResponse::into_response)
}

/// The components of a request's path; `None` if it is not one.
fn names(path: &str) -> Option<Vec<Vec<u8>>> {
    let names = path.split('/').filter(|name| !name.is_empty()).map(template::decode);
    let names: Vec<Vec<u8>> = names.collect::<Option<_>>()?;
    let is_name = |name: &Vec<u8>| !name.contains(&b'/') && !name.contains(&0) && name != b"." && name != b"..";
    names.iter().all(is_name).then_some(names)
}

impl Shared {
    /// Whether a request shows the password; the user's name does not matter.
    fn allows(&self, headers: &HeaderMap) -> bool {
        let shown = text(headers, header::AUTHORIZATION).and_then(|value| value.strip_prefix("Basic "));
        let shown = shown.and_then(|value| BASE64.decode(value.trim().as_bytes()).ok());
        let shown = shown.unwrap_or_default();
        let password = shown.split(|byte| *byte == b':').nth(1).unwrap_or_default();
        // Hashes are compared in constant time: the password cannot be guessed byte by byte.
        blake3::hash(password) == blake3::hash(self.password.as_bytes())
    }

    /// What a path means.
    async fn find(&self, path: &[Vec<u8>]) -> Result<Node, StatusCode> {
        let (view, path) = (self.view.clone(), path.to_vec());
        match tokio::task::spawn_blocking(move || view.find(&path)).await {
            Ok(Ok(Some(node))) if is_shown(&node) => Ok(node),
            Ok(Ok(_)) => Err(StatusCode::NOT_FOUND),
            Ok(Err(error)) => {
                tracing::error!("WebDAV cannot read the catalog: {error}");
                Err(StatusCode::INTERNAL_SERVER_ERROR)
            }
            Err(_) => Err(StatusCode::SERVICE_UNAVAILABLE),
        }
    }
}

/// Whether WebDAV has a word for it.
fn is_shown(node: &Node) -> bool {
    matches!(node.entry.kind, EntryKind::File | EntryKind::Directory)
}

fn text(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

fn options(status: StatusCode) -> Response {
    let headers = [
        (HeaderName::from_static("dav"), "1"),
        (HeaderName::from_static("ms-author-via"), "DAV"),
        (header::ALLOW, ALLOW),
    ];
    (status, headers).into_response()
}

async fn propfind(shared: &Shared, path: Vec<Vec<u8>>, request: Request) -> Result<Response, StatusCode> {
    let depth = text(request.headers(), HeaderName::from_static("depth")).map(str::to_owned);
    let is_deep = match depth.as_deref() {
        Some("0") => false,
        Some("1") => true,
        _ => return Ok(folder::depth_is_finite()),
    };
    if axum::body::to_bytes(request.into_body(), BODY_BYTES_MAX).await.is_err() {
        return Err(StatusCode::PAYLOAD_TOO_LARGE);
    }
    let node = shared.find(&path).await?;
    let entries = is_deep && node.entry.kind == EntryKind::Directory;
    let batches = folder::batches(shared.view.clone(), path, node, Form::Properties { entries });
    let headers = [(header::CONTENT_TYPE, "application/xml; charset=utf-8")];
    Ok((StatusCode::MULTI_STATUS, headers, Body::from_stream(batches)).into_response())
}

async fn get(shared: &Shared, path: Vec<Vec<u8>>, headers: &HeaderMap, is_head: bool) -> Result<Response, StatusCode> {
    let node = shared.find(&path).await?;
    if node.entry.kind == EntryKind::Directory {
        let html = [(header::CONTENT_TYPE, "text/html; charset=utf-8")];
        let body = match is_head {
            true => Body::empty(),
            false => Body::from_stream(folder::batches(shared.view.clone(), path, node, Form::Page)),
        };
        return Ok((html, body).into_response());
    }
    let (bytes, etag) = (node.entry.meta.size, folder::etag(&node));
    if text(headers, header::IF_NONE_MATCH).is_some_and(|known| known.contains(&etag) || known.trim() == "*") {
        return Ok((StatusCode::NOT_MODIFIED, [(header::ETAG, etag)]).into_response());
    }
    let is_same = text(headers, header::IF_RANGE).is_none_or(|known| known == etag);
    let asked = text(headers, header::RANGE).filter(|_| is_same);
    let (status, part) = match range::parse(asked, bytes) {
        Ranged::Whole => (StatusCode::OK, 0..bytes),
        Ranged::Part(part) => (StatusCode::PARTIAL_CONTENT, part),
        Ranged::Outside => {
            let length = [(header::CONTENT_RANGE, format!("bytes */{bytes}"))];
            return Ok((StatusCode::RANGE_NOT_SATISFIABLE, length).into_response());
        }
    };
    let body = match is_head {
        true => Body::empty(),
        false => content(shared, &node, part.clone()).await?,
    };
    let mut response = (status, body).into_response();
    let said = response.headers_mut();
    said.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/octet-stream"),
    );
    said.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    said.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    said.insert(header::CONTENT_LENGTH, HeaderValue::from(part.end - part.start));
    let modified = folder::http_date(node.entry.meta.mtime_ns);
    let mut texts = vec![(header::ETAG, etag), (header::LAST_MODIFIED, modified)];
    if status == StatusCode::PARTIAL_CONTENT {
        let range = format!("bytes {}-{}/{bytes}", part.start, part.end - 1);
        texts.push((header::CONTENT_RANGE, range));
    }
    for (name, value) in texts {
        if let Ok(value) = HeaderValue::from_str(&value) {
            said.insert(name, value);
        }
    }
    Ok(response)
}

/// A part of a file, piece by piece; the first is read before anything is said, so that what fails at once has a status.
async fn content(shared: &Shared, node: &Node, part: Range<u64>) -> Result<Body, StatusCode> {
    let name = node.entry.name.escape_ascii().to_string();
    let file = shared.view.open(node).map_err(|error| refused(&name, &error))?;
    let first = piece(&file, &part).await.map_err(|error| refused(&name, &error))?;
    let rest = part.start + first.len() as u64..part.end;
    let pieces = stream::iter([Ok(first)]).chain(rest_of(file, rest, name));
    let stop = shared.stop.clone();
    let pieces = pieces.map(move |piece| match stop.is_cancelled() {
        true => Err(io::ErrorKind::ConnectionAborted.into()),
        false => piece,
    });
    Ok(Body::from_stream(pieces))
}

async fn piece(file: &OpenFile, part: &Range<u64>) -> Result<Bytes, Arc<RestoreError>> {
    let len = (part.end - part.start).min(PIECE_BYTES as u64) as usize;
    file.read_at(part.start, len).await
}

fn rest_of(file: OpenFile, part: Range<u64>, name: String) -> impl Stream<Item = io::Result<Bytes>> {
    stream::try_unfold((file, part, name), |(file, part, name)| async move {
        if part.is_empty() {
            return Ok(None);
        }
        // The length was promised: an answer that breaks off is not taken for the whole.
        let bytes = piece(&file, &part).await.map_err(|error| {
            refused(&name, &error);
            io::Error::other(error.to_string())
        })?;
        if bytes.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let rest = part.start + bytes.len() as u64..part.end;
        Ok(Some((bytes, (file, rest, name))))
    })
}

fn refused(name: &str, error: &RestoreError) -> StatusCode {
    tracing::error!("`{name}` cannot be read: {error}");
    match error {
        RestoreError::TooFewShares { .. } | RestoreError::Waiting { .. } => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_names_of_any_bytes_but_no_way_up() {
        assert_eq!(names("/a%20b//%FF/"), Some(vec![b"a b".to_vec(), b"\xff".to_vec()]));
        assert_eq!(names("/"), Some(Vec::new()));
        for wrong in ["/a/../b", "/%2e%2E/b", "/a%2Fb", "/a%00", "/a%zz"] {
            assert_eq!(names(wrong), None, "{wrong}");
        }
    }
}
