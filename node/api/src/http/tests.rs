//! The API from client to executor over a real socket, with an executor that is told what to say.

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use super::client::{Client, Followed};
use super::*;
use crate::message::{Message, Rule};
use crate::output::{Output, channel};
use crate::request::{Cat, Join, Verify};

/// Echoes each request as the text of a rule; some are special.
#[derive(Default)]
pub struct Fake {
    executed: AtomicUsize,
    stopped: Notify,
    go_on: Notify,
}

impl Fake {
    /// Requests executed.
    pub fn executed(&self) -> usize {
        self.executed.load(Ordering::SeqCst)
    }

    /// Waits until an endless request was stopped.
    pub async fn stopped(&self) {
        self.stopped.notified().await;
    }
}

impl Executor for Fake {
    fn execute(self: Arc<Self>, request: Request, sink: Sink) -> BoxFuture<'static, Result<Exit, Failure>> {
        Box::pin(async move {
            self.executed.fetch_add(1, Ordering::SeqCst);
            match &request {
                Request::Cat(_) => sink.bytes(bytes::Bytes::from_static(b"\0content\xff")).await?,
                Request::Snapshots(_) => {
                    return Err(Failure::new(Exit::TooFewShares, "No").hint("wait"));
                }
                Request::Join(_) => {
                    sink.send(Rule {
                        pattern: "begun".into(),
                    })
                    .await?;
                    sink.stop().cancelled().await;
                    self.stopped.notify_one();
                    return Err(Failure::interrupted());
                }
                Request::Verify(Verify { files: Some(1) }) => {
                    let pattern = "begun".into();
                    sink.send(Rule { pattern }).await?;
                    tokio::select! {
                        () = self.go_on.notified() => {}
                        () = sink.stop().cancelled() => return Err(Failure::interrupted()),
                    }
                }
                request => {
                    let echo = serde_json::to_string(request).unwrap();
                    sink.send(Rule { pattern: echo }).await?;
                }
            }
            Ok(Exit::UnderProtected)
        })
    }
}

struct Served {
    socket: PathBuf,
    fake: Arc<Fake>,
    address: String,
    ends: Ends,
    serving: tokio::task::JoinHandle<()>,
    _dir: tempfile::TempDir,
}

const TOKEN: &str = "0123456789abcdef";

fn token() -> Result<Zeroizing<String>, Failure> {
    Ok(Zeroizing::new(TOKEN.to_owned()))
}

async fn serve() -> Served {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("api.sock");
    let fake = Arc::new(Fake::default());
    let ends = Ends {
        stop: CancellationToken::new(),
        done: CancellationToken::new(),
    };
    let server = ApiServer::bind(
        socket.clone(),
        dir.path().join("requests.db"),
        Some("127.0.0.1:0".parse().unwrap()),
        token,
    )
    .await
    .unwrap();
    let address = server.address();
    let serving = tokio::spawn(server.serve(fake.clone(), ends.clone()));
    Served {
        socket,
        fake,
        address,
        ends,
        serving,
        _dir: dir,
    }
}

async fn ask(served: &Served, request: Request) -> (Vec<Output>, Result<Exit, Failure>) {
    let client = Client::connect(&served.socket).await.unwrap();
    let (sink, mut outputs) = channel(CancellationToken::new());
    let asking = tokio::spawn(async move { client.execute(&request, &sink).await });
    let mut all = Vec::new();
    while let Some(output) = outputs.next().await {
        all.push(output);
    }
    let Followed::Ended(ending) = asking.await.unwrap() else {
        panic!("not begun")
    };
    (all, ending)
}

#[tokio::test]
async fn every_request_reaches_the_executor_as_it_was_asked() {
    let served = serve().await;
    for request in Request::of_each_kind() {
        if matches!(request, Request::Cat(_) | Request::Snapshots(_) | Request::Join(_)) {
            continue;
        }
        let (outputs, ending) = ask(&served, request.clone()).await;
        let [Output::Message(Message::Rule(rule))] = &outputs[..] else {
            panic!("{outputs:?}")
        };
        assert_eq!(serde_json::from_str::<Request>(&rule.pattern).unwrap(), request);
        assert_eq!(ending, Ok(Exit::UnderProtected));
    }
}

#[tokio::test]
async fn content_and_failures_come_back_as_they_were() {
    let served = serve().await;
    let path = crate::message::PathName(b"/x".to_vec());
    let (outputs, ending) = ask(
        &served,
        Request::Cat(Cat {
            snapshot: "latest".into(),
            path,
        }),
    )
    .await;
    assert_eq!(outputs, [Output::Bytes(bytes::Bytes::from_static(b"\0content\xff"))]);
    assert_eq!(ending, Ok(Exit::Done));
    let (outputs, ending) = ask(&served, Request::Snapshots(Default::default())).await;
    assert_eq!(outputs, []);
    assert_eq!(ending, Err(Failure::new(Exit::TooFewShares, "No").hint("wait")));
}

#[tokio::test]
async fn a_client_that_goes_away_stops_the_work() {
    let served = serve().await;
    let client = Client::connect(&served.socket).await.unwrap();
    let stop = CancellationToken::new();
    let (sink, mut outputs) = channel(stop.clone());
    let request = Request::Join(Join {
        ticket: "endless".into(),
        word: None,
    });
    let asking = tokio::spawn(async move { client.execute(&request, &sink).await });
    outputs.next().await.unwrap();
    stop.cancel();
    assert_eq!(asking.await.unwrap(), Followed::Ended(Err(Failure::interrupted())));
    served.fake.stopped().await;
}

async fn raw(address: &str, request: &str) -> String {
    let address = address.trim_start_matches("http://").trim_end_matches('/');
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn the_loopback_port_wants_the_token_and_bounded_bodies() {
    let served = serve().await;
    let get = |headers: &str| format!("GET /status HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}\r\n");
    assert!(raw(&served.address, &get("")).await.starts_with("HTTP/1.1 401"));
    assert!(
        raw(&served.address, &get("Authorization: Bearer x\r\n"))
            .await
            .starts_with("HTTP/1.1 401")
    );
    let bearer = format!("Authorization: Bearer {TOKEN}\r\n");
    let answer = raw(&served.address, &get(&bearer)).await;
    assert!(
        answer.starts_with("HTTP/1.1 200") && answer.contains(r#"{"code":4}"#),
        "{answer}"
    );
    let post = format!(
        "POST /runs HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{bearer}Idempotency-Key: k\r\nContent-Length: 1048577\r\n\r\n{}",
        "x".repeat((1 << 20) + 1)
    );
    assert!(raw(&served.address, &post).await.starts_with("HTTP/1.1 413"));
    let without_key = format!("POST /runs HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{bearer}\r\n");
    assert!(raw(&served.address, &without_key).await.starts_with("HTTP/1.1 400"));
}

/// Each of these had an empty body, or was taken.
#[tokio::test]
async fn every_refusal_says_what_is_wrong_as_a_problem_document() {
    let served = serve().await;
    let ask = |method: &str, path: &str, headers: &str, body: &str| {
        format!(
            "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer {TOKEN}\r\n{headers}Content-Length: {}\r\n\r\n{body}",
            body.len()
        )
    };
    let keyed = "Idempotency-Key: k\r\n";
    let long = format!("/ls?path={}", "x".repeat(9000));
    let large = "x".repeat((1 << 20) + 1);
    for (status, kind, request) in [
        (404, "not-found", ask("GET", "/nothing", "", "")),
        (404, "not-found", ask("GET", "/problems/nothing", "", "")),
        (405, "wrong-method", ask("PUT", "/status", "", "")),
        (
            406,
            "not-acceptable",
            ask("GET", "/status", "Accept: image/png\r\n", ""),
        ),
        (413, "too-large", ask("POST", "/runs", keyed, &large)),
        (414, "too-long", ask("GET", &long, "", "")),
        (
            415,
            "wrong-type",
            ask(
                "POST",
                "/runs",
                "Content-Type: text/plain\r\nIdempotency-Key: k\r\n",
                "{}",
            ),
        ),
        (400, "failed", ask("POST", "/runs", "", "")),
        (400, "failed", ask("GET", "/queue?limit=x", "", "")),
        (503, "failed", ask("GET", "/snapshots", "", "")),
    ] {
        let answer = raw(&served.address, &request).await;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with(&format!("HTTP/1.1 {status}")), "{status}: {answer}");
        assert!(head.contains("application/problem+json"), "{answer}");
        let problem: serde_json::Value = serde_json::from_str(body).unwrap();
        assert_eq!(problem["status"], status);
        assert_eq!(problem["type"], format!("/problems/{kind}"));
        assert!(!problem["detail"].as_str().unwrap().is_empty());
    }
    let described = raw(&served.address, &ask("GET", "/problems/too-many", "", "")).await;
    assert!(described.starts_with("HTTP/1.1 200"), "{described}");
}

#[tokio::test]
async fn a_stopped_server_leaves_no_socket() {
    let served = serve().await;
    let socket = served.socket.clone();
    assert!(socket.exists());
    served.ends.stop.cancel();
    while socket.exists() {
        tokio::task::yield_now().await;
    }
    assert!(Client::connect(&socket).await.is_err());
}

/// Six of six commands beside a `run --once` exited with 130 or 1 when that ended, their work done.
#[tokio::test]
async fn a_server_that_is_done_finishes_what_it_began_and_sends_back_what_it_did_not() {
    let served = serve().await;
    let socket = served.socket.clone();
    let early = Client::connect(&socket).await.unwrap();
    let late = Client::connect(&socket).await.unwrap();
    let (sink, mut outputs) = channel(CancellationToken::new());
    let asking = tokio::spawn(async move { early.execute(&Request::Verify(Verify { files: Some(1) }), &sink).await });
    outputs.next().await.unwrap();
    served.ends.done.cancel();
    // Sent back at first, answered when it turns out that this takes long.
    loop {
        let client = Client::connect(&socket).await.unwrap();
        let (sink, _outputs) = channel(CancellationToken::new());
        match client.execute(&Request::Stop, &sink).await {
            Followed::NotBegun => tokio::time::sleep(std::time::Duration::from_millis(50)).await,
            Followed::Ended(ending) => break assert_eq!(ending, Ok(Exit::UnderProtected)),
        }
    }
    served.fake.go_on.notify_one();
    assert_eq!(asking.await.unwrap(), Followed::Ended(Ok(Exit::UnderProtected)));
    served.serving.await.unwrap();
    let (sink, _outputs) = channel(CancellationToken::new());
    assert_eq!(late.execute(&Request::Stop, &sink).await, Followed::NotBegun);
    assert_eq!(served.fake.executed(), 2);
    assert!(!socket.exists());
}

#[tokio::test]
async fn only_loopback_addresses_are_bound() {
    let dir = tempfile::tempdir().unwrap();
    let bound = ApiServer::bind(
        dir.path().join("s"),
        dir.path().join("k"),
        Some("0.0.0.0:0".parse().unwrap()),
        token,
    )
    .await;
    let Err(failure) = bound else { panic!("bound") };
    assert_eq!(failure.exit, Exit::Usage);
}
