//! One request until it has an answer: signed, sent, retried.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use bytes::Bytes;
use data_encoding::BASE64;
use hyper::header::{CONTENT_LENGTH, DATE, HOST, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER, USER_AGENT};
use hyper::{Method, Response, StatusCode, Uri};
use jiff::{SignedDuration, Timestamp};
use md5::{Digest, Md5};

use crate::credentials::Credentials;
use crate::endpoint::Endpoint;
use crate::error::{Error, Refusal};
use crate::key::shown;
use crate::location::Location;
use crate::retry::{Budget, Patience};
use crate::sign::{Signed, Signer, canonical_query, date, hash};
use crate::transport::{Body, Transport};
use crate::xml;

/// Longest refusal that is read, in bytes.
const REFUSAL_BYTES_MAX: u64 = 64 << 10;

/// What a client may be told beyond its location.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Access key and secret key; none: the usual chain.
    pub keys: Option<(String, String)>,
    /// Requests for one answer, the first included; none: 10.
    pub attempts_max: Option<u32>,
}

/// A bucket, through pooled connections; clones share them, the credentials and the budget for retries.
#[derive(Clone, Debug)]
pub struct Client(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    service: &'static str,
    location: Location,
    endpoint: Endpoint,
    transport: Transport,
    credentials: Credentials,
    patience: Patience,
    budget: Budget,
    /// What is added to this machine's time, in seconds.
    skew_secs: AtomicI64,
    requests: AtomicU64,
    retries: AtomicU64,
}

/// One request; made again as it is when it has to be.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ask<'a> {
    pub method: Method,
    /// None: the bucket.
    pub key: Option<&'a [u8]>,
    pub query: Vec<(&'a str, &'a [u8])>,
    pub headers: HeaderMap,
    pub body: Bytes,
    /// S3 answers long requests with 200 before they have succeeded, and says in the body how they ended.
    pub may_fail_late: bool,
}

/// An answer that is no refusal, its body read.
#[derive(Debug)]
pub(crate) struct Answer {
    pub headers: HeaderMap,
    pub body: Bytes,
    /// `METHOD s3://…`, for errors.
    pub target: String,
}

impl Client {
    /// A client for the location's bucket. Nothing is sent yet.
    pub fn new(location: Location, options: &Options) -> Result<Self, Error> {
        let endpoint = Endpoint::new(&location, &|name| std::env::var(name).ok())?;
        Self::of_service("s3", location, endpoint, options, Patience::default())
    }

    /// A client for another service of Amazon's that speaks XML; `location` names what is asked about.
    pub(crate) fn of_service(
        service: &'static str,
        location: Location,
        endpoint: Endpoint,
        options: &Options,
        patience: Patience,
    ) -> Result<Self, Error> {
        let transport = Transport::new(&endpoint.scheme)?;
        let credentials = match &options.keys {
            Some((access_key, secret_key)) => Credentials::given(access_key, secret_key),
            None => Credentials::chain(transport.clone()),
        };
        Ok(Self(Arc::new(Inner {
            service,
            location,
            endpoint,
            transport,
            credentials,
            patience: Patience {
                attempts_max: options.attempts_max.unwrap_or(patience.attempts_max),
                ..patience
            },
            budget: Budget::default(),
            skew_secs: AtomicI64::new(0),
            requests: AtomicU64::new(0),
            retries: AtomicU64::new(0),
        })))
    }

    /// Where it works. Keys of its methods are whole keys: the prefix is not added to them.
    pub fn location(&self) -> &Location {
        &self.0.location
    }

    /// The endpoint as `http(s)://HOST[:PORT]/PATH-OF-THE-BUCKET`: what the same bucket elsewhere differs in.
    pub fn url(&self) -> String {
        let endpoint = &self.0.endpoint;
        format!("{}://{}{}", endpoint.scheme, endpoint.authority, endpoint.path(None))
    }

    /// Requests for objects sent so far by this client and its clones, repeated ones included.
    pub fn requests(&self) -> u64 {
        self.0.requests.load(Ordering::Relaxed)
    }

    /// How many of them were repeated because the endpoint was busy, slow or away: a reason to ask for less at once.
    pub fn retries(&self) -> u64 {
        self.0.retries.load(Ordering::Relaxed)
    }

    /// Asks until there is an answer, and reads it: `bytes_max` of it, or it is an error. May be dropped.
    pub(crate) async fn ask(&self, ask: &Ask<'_>, bytes_max: u64) -> Result<Answer, Error> {
        let mut attempts = 0;
        loop {
            match self.read(ask, bytes_max).await {
                Ok(answer) => return Ok(answer),
                Err(error) => self.pause(&mut attempts, error).await?,
            }
        }
    }

    /// Asks until there is an answer, and leaves its body to be read. May be dropped.
    pub(crate) async fn open(&self, ask: &Ask<'_>) -> Result<Response<Body>, Error> {
        let mut attempts = 0;
        loop {
            match self.once(ask, &self.target(ask)).await {
                Ok(answer) => return Ok(answer),
                Err(error) => self.pause(&mut attempts, error).await?,
            }
        }
    }

    /// Waits until it is time to ask again, or gives the error back.
    async fn pause(&self, attempts: &mut u32, error: Error) -> Result<(), Error> {
        *attempts += 1;
        if !error.is_retryable() {
            return Err(error);
        }
        if error.code() == Some("ExpiredToken") {
            self.0.credentials.forget().await;
        }
        // Without randomness all pauses are the longest: worse for the endpoint, and no reason to fail.
        let random = getrandom::u32().unwrap_or(u32::MAX);
        let pause = self.0.patience.pause(*attempts, error.retry_after(), random);
        let Some(pause) = pause.filter(|_| self.0.budget.pay(&error)) else {
            return Err(error);
        };
        self.0.retries.fetch_add(1, Ordering::Relaxed);
        tracing::debug!(attempts, ?pause, %error, "a request is made again");
        tokio::time::sleep(pause).await;
        Ok(())
    }

    async fn read(&self, ask: &Ask<'_>, bytes_max: u64) -> Result<Answer, Error> {
        let target = self.target(ask);
        let (parts, body) = self.once(ask, &target).await?.into_parts();
        let body = body.all(bytes_max).await?;
        if ask.may_fail_late
            && let Some(refusal) = xml::refusal(&body)
        {
            let late = Refusal {
                target,
                status: 200,
                ..refusal
            };
            return Err(late.into_error());
        }
        self.0.budget.earn();
        Ok(Answer {
            headers: parts.headers,
            body,
            target,
        })
    }

    async fn once(&self, ask: &Ask<'_>, target: &str) -> Result<Response<Body>, Error> {
        let request = self.request(ask, target).await?;
        self.0.requests.fetch_add(1, Ordering::Relaxed);
        let answer = self.0.transport.send(request, target).await?;
        let status = answer.status();
        if status.is_success() {
            return Ok(answer);
        }
        let (parts, body) = answer.into_parts();
        let body = body.all(REFUSAL_BYTES_MAX).await.unwrap_or_default();
        let mut refusal = xml::refusal(&body).unwrap_or_default();
        if status == StatusCode::NOT_FOUND && refusal.code.is_empty() {
            // A HEAD has no body.
            refusal.code = "NoSuchKey".to_owned();
        }
        if refusal.code == "RequestTimeTooSkewed" {
            self.correct_clock(&parts.headers);
        }
        refusal.status = status.as_u16();
        refusal.retry_after = retry_after(&parts.headers);
        target.clone_into(&mut refusal.target);
        Err(refusal.into_error())
    }

    async fn request(&self, ask: &Ask<'_>, target: &str) -> Result<hyper::Request<Bytes>, Error> {
        let inner = &self.0;
        let credential = inner.credentials.current().await?;
        let now = Timestamp::now() + SignedDuration::from_secs(inner.skew_secs.load(Ordering::Relaxed));
        let (path, query) = (inner.endpoint.path(ask.key), canonical_query(&ask.query));
        let body_hash = hash(&ask.body);
        let mut headers = ask.headers.clone();
        let mut set = |name: &'static str, value: &str| -> Result<(), Error> {
            let value = HeaderValue::from_str(value).map_err(|_| Error::Header {
                name: name.to_owned(),
                target: target.to_owned(),
            })?;
            headers.insert(HeaderName::from_static(name), value);
            Ok(())
        };
        set(HOST.as_str(), &inner.endpoint.authority)?;
        set("x-amz-content-sha256", &body_hash)?;
        set("x-amz-date", &date(now))?;
        if let Some(token) = &credential.session_token {
            set("x-amz-security-token", token)?;
        }
        if !ask.body.is_empty() {
            set("content-md5", &BASE64.encode(&Md5::digest(&ask.body)))?;
        }
        let signer = Signer {
            access_key: &credential.access_key_id,
            secret_key: &credential.secret_access_key,
            region: &inner.endpoint.region,
            service: inner.service,
            now,
        };
        let authorization = signer.authorization(&Signed {
            method: ask.method.as_str(),
            path: &path,
            query: &query,
            headers: &headers,
            body_hash: &body_hash,
        });
        let mut set = |name: HeaderName, value: &str| {
            // Signed headers passed above; the rest is ours.
            if let Ok(value) = HeaderValue::from_str(value) {
                headers.insert(name, value);
            }
        };
        set(hyper::header::AUTHORIZATION, &authorization);
        set(USER_AGENT, concat!("gridbackup/", env!("CARGO_PKG_VERSION")));
        if ask.method == Method::PUT || ask.method == Method::POST {
            set(CONTENT_LENGTH, &ask.body.len().to_string());
        }
        let mark = if query.is_empty() { "" } else { "?" };
        let uri = format!(
            "{}://{}{path}{mark}{query}",
            inner.endpoint.scheme, inner.endpoint.authority
        );
        let uri: Uri = uri.parse().map_err(|_| {
            Error::Refused(Refusal {
                target: target.to_owned(),
                message: "the key is too long for a URL".to_owned(),
                code: "KeyTooLong".to_owned(),
                ..Refusal::default()
            })
        })?;
        let mut request = hyper::Request::new(ask.body.clone());
        (*request.method_mut(), *request.uri_mut(), *request.headers_mut()) = (ask.method.clone(), uri, headers);
        Ok(request)
    }

    /// Signs by the endpoint's time from now on.
    fn correct_clock(&self, headers: &HeaderMap) {
        let Some(theirs) = time(headers, DATE) else { return };
        let skew = theirs.duration_since(Timestamp::now());
        tracing::warn!(
            secs = skew.as_secs(),
            "This machine's clock is wrong; requests are signed by the endpoint's"
        );
        self.0.skew_secs.store(skew.as_secs(), Ordering::Relaxed);
    }

    fn target(&self, ask: &Ask<'_>) -> String {
        let bucket = &self.0.location.bucket;
        let key = shown(ask.key.unwrap_or_default());
        format!("{} {}://{bucket}/{key}", ask.method, self.0.service)
    }
}

/// A time in a header (RFC 9110 §5.6.7).
pub(crate) fn time(headers: &HeaderMap, name: HeaderName) -> Option<Timestamp> {
    let text = headers.get(name)?.to_str().ok()?;
    let zoned = jiff::fmt::rfc2822::parse(text).ok()?;
    Some(zoned.timestamp())
}

fn retry_after(headers: &HeaderMap) -> Option<std::time::Duration> {
    if let Some(secs) = headers
        .get(RETRY_AFTER)?
        .to_str()
        .ok()
        .and_then(|text| text.trim().parse().ok())
    {
        return Some(std::time::Duration::from_secs(secs));
    }
    let wait = time(headers, RETRY_AFTER)?.duration_since(time(headers, DATE).unwrap_or_else(Timestamp::now));
    Some(wait.try_into().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{Server, answer};

    #[tokio::test]
    async fn an_endpoint_in_trouble_is_asked_again() {
        let server = Server::start(vec![
            answer(503, "Retry-After: 0\r\n", "<Error><Code>SlowDown</Code></Error>"),
            String::new(),
            answer(200, "ETag: \"x\"\r\n", ""),
        ])
        .await;
        let client = server.client();
        let put = client
            .put(
                b"k y",
                Bytes::from_static(b"abc"),
                &Default::default(),
                &Default::default(),
            )
            .await;
        assert_eq!(put.unwrap().etag, "x");
        assert_eq!((client.requests(), client.retries()), (3, 2));
        let asked = server.asked();
        assert_eq!(asked.len(), 3);
        assert!(asked[0].starts_with("PUT /site/k%20y HTTP/1.1\r\n"), "{}", asked[0]);
        assert!(asked[0].contains("content-md5: kAFQmDzST7DWlj99KOF/cg==\r\n"));
        assert!(asked[2].ends_with("\r\n\r\nabc"));
    }

    #[tokio::test]
    async fn a_wrong_clock_is_corrected_once_by_the_endpoints() {
        let skewed = "<Error><Code>RequestTimeTooSkewed</Code></Error>";
        let date = "Date: Fri, 24 May 2024 00:00:00 GMT\r\n";
        let server = Server::start(vec![answer(403, date, skewed), answer(204, "", "")]).await;
        server.client().delete_one(b"x").await.unwrap();
        assert!(
            server.asked()[1].contains("x-amz-date: 20240524T0000"),
            "{}",
            server.asked()[1]
        );
    }

    #[tokio::test]
    async fn a_refusal_is_final_and_says_why() {
        let body = "<?xml version=\"1.0\"?>\n<Error><Code>AccessDenied</Code><Message>No &amp; never</Message></Error>";
        let server = Server::start(vec![answer(403, "", body)]).await;
        let error = server.client().head(b"x").await.unwrap_err();
        assert!(matches!(error, Error::Denied(_)), "{error}");
        // A HEAD has no body, so that the code is not known; what was asked is.
        assert!(error.to_string().starts_with("HEAD s3://site/x refused"), "{error}");
        let server = Server::start(vec![answer(403, "", body)]).await;
        let error = server.client().get(b"x", None, 10).await.unwrap_err();
        assert!(error.to_string().contains("AccessDenied (403): No & never"), "{error}");
    }

    #[tokio::test]
    async fn an_answer_longer_than_asked_for_is_not_read() {
        let server = Server::start(vec![answer(200, "ETag: x\r\n", &"y".repeat(5000))]).await;
        let error = server.client().get(b"x", None, 100).await.unwrap_err();
        assert!(matches!(error, Error::TooLong { bytes_max: 100, .. }), "{error}");
    }

    #[tokio::test]
    async fn a_success_that_failed_after_all_is_asked_for_again() {
        let failed = "<?xml version=\"1.0\"?>\n<Error><Code>InternalError</Code></Error>";
        let done = "<CopyObjectResult><ETag>\"z\"</ETag></CopyObjectResult>";
        let server = Server::start(vec![answer(200, "", failed), answer(200, "", done)]).await;
        let copied = server
            .client()
            .copy(b"a", b"b", &Default::default(), None)
            .await
            .unwrap();
        assert_eq!((copied.etag.as_str(), server.asked().len()), ("z", 2));
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let headers = |text: &str| {
            let mut map = HeaderMap::new();
            map.insert(RETRY_AFTER, HeaderValue::from_str(text).unwrap());
            map.insert(DATE, HeaderValue::from_static("Wed, 21 Oct 2015 07:28:00 GMT"));
            map
        };
        assert_eq!(retry_after(&headers("7")).unwrap().as_secs(), 7);
        assert_eq!(
            retry_after(&headers("Wed, 21 Oct 2015 07:28:30 GMT"))
                .unwrap()
                .as_secs(),
            30
        );
        assert_eq!(
            retry_after(&headers("Wed, 21 Oct 2015 07:00:00 GMT"))
                .unwrap()
                .as_secs(),
            0
        );
        assert_eq!(retry_after(&headers("soon")), None);
    }
}
