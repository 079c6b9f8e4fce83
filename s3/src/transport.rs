//! HTTP/1.1 over pooled connections, plain or TLS (rustls with ring, the system's certificates), with time limits.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::{Request, Response};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::time::timeout;

use crate::error::Error;

/// Longest wait for a connection.
const CONNECT_WAIT: Duration = Duration::from_secs(10);
/// Longest wait for the first byte of an answer, after the body was sent; large copies take S3 so long.
const ANSWER_WAIT: Duration = Duration::from_secs(60);
/// Slowest upload that is waited for, in bytes a second: slower lines should use smaller parts.
const UPLOAD_BYTES_PER_SEC_MIN: u64 = 16 << 10;
/// Longest pause within an answer.
const BODY_WAIT: Duration = Duration::from_secs(30);
/// Connections kept for the next request. Chosen: more workers than that are slower on every endpoint that was tried.
const IDLE_CONNECTIONS_MAX: usize = 64;
/// Kept so long: less than the 20 s after which S3 closes them.
const IDLE_KEPT: Duration = Duration::from_secs(15);

/// Sends requests; clones share the connections.
#[derive(Clone, Debug)]
pub(crate) struct Transport(Client<HttpsConnector<HttpConnector>, Full<Bytes>>);

/// The body of an answer, not read yet.
#[derive(Debug)]
pub(crate) struct Body {
    incoming: Incoming,
    target: String,
}

impl Transport {
    /// For `http` and, if `https` is asked for, with the system's certificates (`SSL_CERT_FILE` names others).
    pub fn new(scheme: &str) -> Result<Self, Error> {
        let mut tcp = HttpConnector::new();
        tcp.set_connect_timeout(Some(CONNECT_WAIT));
        tcp.set_nodelay(true);
        tcp.enforce_http(false);
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = HttpsConnectorBuilder::new();
        let builder = if scheme == "https" {
            builder
                .with_provider_and_native_roots(provider)
                .map_err(Error::Certificates)?
        } else {
            // No certificate is trusted: token services behind https then fail, and say so.
            let config = rustls::ClientConfig::builder_with_provider(provider)
                .with_safe_default_protocol_versions()
                .expect("ring has ciphers for the default versions")
                .with_root_certificates(rustls::RootCertStore::empty())
                .with_no_client_auth();
            builder.with_tls_config(config)
        };
        let connector = builder.https_or_http().enable_http1().wrap_connector(tcp);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_KEPT)
            .pool_max_idle_per_host(IDLE_CONNECTIONS_MAX)
            .build(connector);
        Ok(Self(client))
    }

    /// Sends, and waits for the head of the answer. May be dropped: the connection is then closed.
    pub async fn send(&self, request: Request<Bytes>, target: &str) -> Result<Response<Body>, Error> {
        let request = request.map(Full::new);
        let bytes = hyper::body::Body::size_hint(request.body()).lower();
        let wait = ANSWER_WAIT + Duration::from_secs(bytes / UPLOAD_BYTES_PER_SEC_MIN);
        let answer = timeout(wait, self.0.request(request)).await;
        let answer = answer.map_err(|_| Error::Timeout {
            target: target.to_owned(),
            waited: wait,
        })?;
        let answer = answer.map_err(|error| Error::Network {
            target: target.to_owned(),
            source: Box::new(error),
        })?;
        Ok(answer.map(|incoming| Body {
            incoming,
            target: target.to_owned(),
        }))
    }
}

impl Body {
    /// The next bytes; none at the end. May be dropped.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        loop {
            let frame = timeout(BODY_WAIT, self.incoming.frame()).await;
            let frame = frame.map_err(|_| Error::Timeout {
                target: self.target.clone(),
                waited: BODY_WAIT,
            })?;
            match frame {
                None => return Ok(None),
                Some(Err(error)) => {
                    return Err(Error::Network {
                        target: self.target.clone(),
                        source: Box::new(error),
                    });
                }
                Some(Ok(frame)) => {
                    if let Ok(bytes) = frame.into_data() {
                        return Ok(Some(bytes));
                    }
                }
            }
        }
    }

    /// All of it, if it is not longer than `bytes_max`.
    pub async fn all(mut self, bytes_max: u64) -> Result<Bytes, Error> {
        let mut whole = BytesMut::new();
        while let Some(bytes) = self.next().await? {
            if (whole.len() + bytes.len()) as u64 > bytes_max {
                return Err(Error::TooLong {
                    target: self.target,
                    bytes_max,
                });
            }
            whole.extend_from_slice(&bytes);
        }
        Ok(whole.freeze())
    }
}
