//! A protocol that the transport has never heard of: what holds for all holds for it, too.

use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use futures::future::BoxFuture;

use super::*;
use crate::members::Members;
use crate::net::core::{Core, OpenError};
use crate::net::greet::{Caller, GreetError};
use crate::net::protocol::{Conversation, Protocol};
use crate::net::start;

const ECHO: &str = "/test/echo/1";

/// Sends back what it hears, and counts whom it was asked to welcome.
struct Echo {
    core: Arc<Core>,
    asked: AtomicUsize,
}

impl Protocol for Echo {
    fn id(&self) -> &'static str {
        ECHO
    }

    fn accept<'a>(
        self: Arc<Self>,
        stream: &'a mut Stream,
        _: &'a Caller,
    ) -> BoxFuture<'a, Result<Option<Conversation>, Refusal>> {
        Box::pin(async move {
            self.asked.fetch_add(1, Ordering::Relaxed);
            let welcomed = frames::say(stream, &self.core.welcome(), Bytes::new()).await;
            welcomed.map_err(|_| Refusal::Malformed)?;
            let conversation: Conversation = Box::new(|mut stream| {
                Box::pin(async move {
                    let mut heard = [0; 2];
                    while stream.read_exact(&mut heard).await.is_ok() {
                        stream.write_all(&heard).await.unwrap();
                        stream.flush().await.unwrap();
                    }
                })
            });
            Ok(Some(conversation))
        })
    }
}

/// A transport in the place of `node`, which stops; it speaks nothing but `Echo`.
async fn echo_in_place_of(node: TestNode) -> (Arc<Echo>, TempDir) {
    let TestNode { net, fixture, home } = node;
    drop(net);
    let members = Members::open(&home.path().join("roster"));
    let config = config(home.path(), &fixture, 1, "/ip4/127.0.0.1/tcp/0");
    let transport = start::prepare(config.transport, members.subscribe()).unwrap();
    let core = transport.core.clone();
    let echo = Arc::new(Echo {
        core: core.clone(),
        asked: AtomicUsize::new(0),
    });
    transport.run(vec![echo.clone()]);
    start::await_addresses(&core).await.unwrap();
    (echo, home)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_protocol_that_does_not_say_otherwise_never_meets_a_stranger() {
    let (ada, bob) = friends().await;
    let eve = node(6).await;
    let (echo, _home) = echo_in_place_of(ada).await;
    let _stop = echo.core.stop.clone().drop_guard();
    let open = async |caller: &TestNode, protocol| {
        let core = &caller.net.shared.core;
        caller
            .net
            .hint(echo.core.device, echo.core.links.listening()[0].clone());
        core.open(echo.core.device, protocol, &[Frame::bare(&core.hello(None))])
            .await
    };
    let mut stream = open(&bob, ECHO).await.unwrap();
    let mut heard = [0; 2];
    stream.write_all(b"ho").await.unwrap();
    stream.flush().await.unwrap();
    stream.read_exact(&mut heard).await.unwrap();
    assert_eq!((&heard, echo.asked.load(Ordering::Relaxed)), (b"ho", 1));
    let refused = open(&eve, ECHO).await.err();
    assert!(
        matches!(
            refused,
            Some(OpenError::Greet(GreetError::Refused {
                refusal: Refusal::Stranger,
                ..
            }))
        ),
        "{refused:?}"
    );
    assert_eq!(echo.asked.load(Ordering::Relaxed), 1);
    assert!(open(&bob, SHARE_PROTOCOL).await.is_err(), "nobody here speaks it");
}
