//! The daemon's API, byte by byte over its socket: what no HTTP client would send, and keys that are used again.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use api::failure::{Exit, Failure};
use api::http::fuzzing::{Entry, Kind, Link};
use api::http::{Ends, Executor};
use api::output::Sink;
use api::request::Request;
use engine::home::HomePaths;
use futures::future::BoxFuture;
use tokio_util::sync::CancellationToken;

use crate::engine::{Cost, Target};
use crate::heard::Heard;

/// The target.
pub const TARGET: Target = Target {
    name: "api",
    run,
    seeds,
    golden: &[],
    words: &[
        b"GET ",
        b"POST ",
        b"PUT ",
        b"DELETE ",
        b"PATCH ",
        b" HTTP/1.1\r\n",
        b"Host: x\r\n",
        b"Idempotency-Key: k\r\n",
        b"Content-Length: ",
        b"Transfer-Encoding: chunked\r\n",
        b"Expect: 100-continue\r\n",
        b"Connection: close\r\n",
        b"\r\n\r\n",
        b"%2e%2e%2f",
        b"%00",
        b"%",
        b"?path=",
        b"{\"path\":\"x\",\"path_bytes\":\"eA==\"}",
        b"[[[[[[[[",
        b"{\"a\":",
        b"18446744073709551616",
    ],
    cost: Cost::SMALL,
};

/// Longest answer that is read.
const ANSWER_BYTES_MAX: u64 = 1 << 20;

/// What can be asked, as the server says.
fn links() -> &'static [Link] {
    static LINKS: OnceLock<Vec<Link>> = OnceLock::new();
    LINKS.get_or_init(|| {
        let entry = ask(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        let entry = String::from_utf8_lossy(&entry).into_owned();
        let body = entry.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        let entry: Entry = serde_json::from_str(body).expect("the entry document is what its type says");
        entry.links
    })
}

/// A request of each kind, with a value for each field.
fn seeds() -> Vec<Vec<u8>> {
    links().iter().map(seed).collect()
}

fn seed(link: &Link) -> Vec<u8> {
    let (path, query) = link.href.split_once("{?").unwrap_or((&link.href, ""));
    let path: Vec<&str> = path
        .split('/')
        .map(|part| if part.starts_with('{') { "a" } else { part })
        .collect();
    let names: Vec<&str> = query
        .trim_end_matches('}')
        .split(',')
        .map(|name| name.trim_end_matches('*'))
        .collect();
    let in_query = link.fields.iter().filter(|field| names.contains(&field.name.as_str()));
    let query: Vec<String> = in_query
        .map(|field| format!("{}={}", field.name, text_of(field.kind)))
        .collect();
    let in_body = link.fields.iter().filter(|field| !link.href.contains(&field.name));
    let body: serde_json::Map<String, serde_json::Value> = in_body
        .map(|field| (field.name.clone(), value_of(field.kind)))
        .collect();
    let body = match body.is_empty() {
        true => String::new(),
        false => serde_json::Value::Object(body).to_string(),
    };
    format!(
        "{} {}?{} HTTP/1.1\r\nHost: x\r\nIdempotency-Key: {}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
        link.method,
        path.join("/"),
        query.join("&"),
        link.rel,
        body.len()
    )
    .into_bytes()
}

fn text_of(kind: Kind) -> &'static str {
    match kind {
        Kind::Integer => "1",
        Kind::Boolean => "true",
        _ => "a",
    }
}

fn value_of(kind: Kind) -> serde_json::Value {
    match kind {
        Kind::Text => serde_json::json!("a"),
        Kind::Texts => serde_json::json!(["a"]),
        Kind::Path => serde_json::json!({"path": "/a"}),
        Kind::Paths => serde_json::json!([{"path": "/a"}]),
        Kind::Integer => serde_json::json!(1),
        Kind::Boolean => serde_json::json!(true),
    }
}

fn run(input: &[u8], heard: &mut Heard) {
    let server = Server::get();
    let before = server.deeds();
    let first = ask(input);
    let after = server.deeds();
    for status in statuses(&first) {
        heard.count("status", status.into());
        assert_ne!(status, 500, "a request of one's own making is no fault of the daemon");
    }
    heard.count("deeds", after - before);
    // A key repeats the answer, not the deed: if it was answered to its end the first time.
    let is_answered =
        after == before + 1 && statuses(&first).len() == 1 && String::from_utf8_lossy(&first).contains("\"code\":0");
    if is_answered {
        let second = ask(input);
        assert_eq!(server.deeds(), after, "a repeated key does it again");
        // Of a client that has stopped speaking the server may think that it has gone.
        let second = statuses(&second);
        assert!(second.is_empty() || second == statuses(&first), "{second:?}");
    }
}

/// The status of each answer.
fn statuses(answers: &[u8]) -> Vec<u16> {
    let text = String::from_utf8_lossy(answers);
    let starts = text.match_indices("HTTP/1.1 ").map(|(at, found)| at + found.len());
    starts.filter_map(|at| text.get(at..at + 3)?.parse().ok()).collect()
}

/// Says it to the server and reads until the server has nothing more to say.
fn ask(bytes: &[u8]) -> Vec<u8> {
    let mut answer = Vec::new();
    let mut socket = UnixStream::connect(&Server::get().socket).expect("the server listens");
    socket
        .set_read_timeout(Some(Duration::from_secs(20)))
        .expect("a socket has a timeout");
    // A server that has heard enough hangs up.
    let _hung_up = socket.write_all(bytes);
    let _hung_up = socket.shutdown(Shutdown::Write);
    match socket.take(ANSWER_BYTES_MAX).read_to_end(&mut answer) {
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => panic!("no end of an answer"),
        _ => answer,
    }
}

/// One server for all inputs, on threads of its own.
struct Server {
    socket: PathBuf,
    executor: Arc<Fake>,
    _home: tempfile::TempDir,
    _runtime: tokio::runtime::Runtime,
}

impl Server {
    fn get() -> &'static Self {
        static SERVER: OnceLock<Server> = OnceLock::new();
        SERVER.get_or_init(|| {
            let home = tempfile::tempdir().expect("a folder can be made");
            let paths = HomePaths::locate(Some(home.path())).expect("a folder can be a home");
            let executor = Arc::new(Fake::default());
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(1)
                .enable_all()
                .build();
            let runtime = runtime.expect("a runtime can be made");
            let server = runtime.block_on(paths.bind_api(None)).expect("a socket can be bound");
            let ends = Ends {
                stop: CancellationToken::new(),
                done: CancellationToken::new(),
            };
            runtime.spawn(server.serve(executor.clone(), ends));
            Self {
                socket: paths.api_socket(),
                executor,
                _home: home,
                _runtime: runtime,
            }
        })
    }

    /// Requests that change something, executed so far.
    fn deeds(&self) -> usize {
        let is_read = |kind: &str| links().iter().any(|link| link.rel == kind && link.method == "GET");
        let executed = self.executor.0.lock().unwrap_or_else(PoisonError::into_inner);
        let deeds = executed.iter().filter(|(kind, _)| !is_read(kind));
        deeds.map(|(_, count)| count).sum()
    }
}

/// Executes everything at once, says nothing, and counts by kind.
#[derive(Default)]
struct Fake(Mutex<HashMap<String, usize>>);

impl Executor for Fake {
    fn execute(self: Arc<Self>, request: Request, _: Sink) -> BoxFuture<'static, Result<Exit, Failure>> {
        Box::pin(async move {
            let said = serde_json::to_value(&request).ok();
            let kind = said.and_then(|said| said["request"].as_str().map(str::to_owned));
            let mut executed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            *executed.entry(kind.unwrap_or_default()).or_default() += 1;
            Ok(Exit::Done)
        })
    }
}
