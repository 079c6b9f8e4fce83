//! One request until it has an answer: signed, sent, retried.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};

use bytes::Bytes;
use data_encoding::BASE64;
use hyper::header::{
    AUTHORIZATION, CONTENT_LENGTH, DATE, HOST, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER, USER_AGENT,
};
use hyper::{Method, Response, StatusCode, Uri};
use jiff::{SignedDuration, Timestamp};
use md5::{Digest, Md5};

use crate::ask::{Answer, Ask};
use crate::credentials::Credentials;
use crate::endpoint::Endpoint;
use crate::error::{Error, Refusal, Region};
use crate::key::shown;
use crate::location::Location;
use crate::retry::{Budget, Patience};
use crate::sign::{Signed, Signer, canonical_query, date, hash};
use crate::time::time;
use crate::transport::{Body, Transport};
use crate::xml;

/// Longest refusal that is read, in bytes.
const REFUSAL_BYTES_MAX: u64 = 64 << 10;

/// Where a bucket is, in refusals of those who looked elsewhere.
const BUCKET_REGION: &str = "x-amz-bucket-region";

/// What we call ourselves.
const AGENT: &str = concat!("gridbackup/", env!("CARGO_PKG_VERSION"));

/// What a client may be told beyond its location.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Access key and secret key; none: the usual chain.
    pub keys: Option<(String, String)>,
    /// Requests for one answer, the first included; none: 10.
    pub attempts_max: Option<u32>,
}

/// When a request may be admitted, by the endpoint's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// From when on. The endpoint's time now, or earlier.
    pub from: Timestamp,
    /// How long, in seconds; from one to a week.
    pub secs: u64,
}

/// Says for each request when it may be admitted; none: not any more.
pub trait Windows: std::fmt::Debug + Send + Sync {
    /// For a request that is sent now.
    fn window(&self) -> Option<Window>;
}

/// A bucket, through pooled connections; clones share them, the credentials and the budget for retries.
#[derive(Clone, Debug)]
pub struct Client {
    shared: Arc<Inner>,
    windows: Option<Arc<dyn Windows>>,
}

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
    /// The endpoint has answered, whatever it said.
    has_answered: AtomicBool,
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
        let shared = Arc::new(Inner {
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
            has_answered: AtomicBool::new(false),
        });
        Ok(Self { shared, windows: None })
    }

    /// The same client, whose requests endpoints refuse when they come outside of their windows ([`Error::Late`]), however long they
    /// were on their way. The signature is in the query and covers headers, not bodies; those have a `Content-MD5`. Not all
    /// endpoints that take such signatures look at the time.
    pub fn within(&self, windows: Arc<dyn Windows>) -> Self {
        Self {
            shared: self.shared.clone(),
            windows: Some(windows),
        }
    }

    /// Where it works. Keys of its methods are whole keys: the prefix is not added to them.
    pub fn location(&self) -> &Location {
        &self.shared.location
    }

    /// The endpoint as `http(s)://HOST[:PORT]/PATH-OF-THE-BUCKET`: what the same bucket elsewhere differs in.
    pub fn url(&self) -> String {
        let endpoint = &self.shared.endpoint;
        format!("{}://{}{}", endpoint.scheme, endpoint.authority, endpoint.path(None))
    }

    /// Requests for objects sent so far by this client and its clones, repeated ones included.
    pub fn requests(&self) -> u64 {
        self.shared.requests.load(Ordering::Relaxed)
    }

    /// How many of them were repeated because the endpoint was busy, slow or away: a reason to ask for less at once.
    pub fn retries(&self) -> u64 {
        self.shared.retries.load(Ordering::Relaxed)
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
            self.shared.credentials.forget().await;
        }
        if !self.shared.has_answered.load(Ordering::Relaxed) && *attempts >= attempts_before_any_answer(&error) {
            return Err(error);
        }
        // Without randomness all pauses are the longest: worse for the endpoint, and no reason to fail.
        let random = getrandom::u32().unwrap_or(u32::MAX);
        let pause = self.shared.patience.pause(*attempts, error.retry_after(), random);
        let Some(pause) = pause.filter(|_| self.shared.budget.pay(&error)) else {
            return Err(error);
        };
        self.shared.retries.fetch_add(1, Ordering::Relaxed);
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
        self.shared.budget.earn();
        Ok(Answer {
            headers: parts.headers,
            body,
            target,
        })
    }

    async fn once(&self, ask: &Ask<'_>, target: &str) -> Result<Response<Body>, Error> {
        let late = || Error::Late(target.to_owned());
        let window = match &self.windows {
            Some(windows) => Some(windows.window().ok_or_else(late)?),
            None => None,
        };
        let request = self.request(ask, target, window).await?;
        self.shared.requests.fetch_add(1, Ordering::Relaxed);
        let answer = self.shared.transport.send(request, target).await?;
        self.shared.has_answered.store(true, Ordering::Relaxed);
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
        let named = parts.headers.get(BUCKET_REGION).and_then(|value| value.to_str().ok());
        let named = named.map(|region| Box::new(Region(region.to_owned())));
        let region = named.or(refusal.region);
        refusal.region = region.filter(|region| region.0 != self.shared.endpoint.region);
        refusal.status = status.as_u16();
        refusal.retry_after = retry_after(&parts.headers);
        target.clone_into(&mut refusal.target);
        let error = refusal.into_error();
        // Endpoints do not agree on how they call it; their clock tells.
        let is_over = window.is_some_and(|window| window.is_over_at(&parts.headers));
        match error {
            Error::Denied(_) | Error::Refused(_) if is_over => Err(late()),
            error => Err(error),
        }
    }

    async fn request(
        &self,
        ask: &Ask<'_>,
        target: &str,
        window: Option<Window>,
    ) -> Result<hyper::Request<Bytes>, Error> {
        let inner = &self.shared;
        let credential = inner.credentials.current().await?;
        let skew = SignedDuration::from_secs(inner.skew_secs.load(Ordering::Relaxed));
        let token = credential.session_token.as_deref();
        let signer = Signer {
            access_key: &credential.access_key_id,
            secret_key: &credential.secret_access_key,
            region: &inner.endpoint.region,
            service: inner.service,
            now: window.map_or_else(|| Timestamp::now() + skew, |window| window.from),
        };
        let path = inner.endpoint.path(ask.key);
        let mut headers = ask.headers.clone();
        set(&mut headers, HOST, &inner.endpoint.authority, target)?;
        if !ask.body.is_empty() {
            let md5 = BASE64.encode(&Md5::digest(&ask.body));
            set(&mut headers, HeaderName::from_static("content-md5"), &md5, target)?;
        }
        let query = if let Some(window) = window {
            let request = Signed {
                method: ask.method.as_str(),
                path: &path,
                query: "",
                headers: &headers,
                body_hash: "",
            };
            signer.query(&request, &ask.query, token, window.secs)
        } else {
            let (query, body_hash) = (canonical_query(&ask.query), hash(&ask.body));
            let own = [
                ("x-amz-content-sha256", body_hash.as_str()),
                ("x-amz-date", &date(signer.now)),
            ];
            let token = token.map(|token| ("x-amz-security-token", token));
            for (name, value) in own.into_iter().chain(token) {
                set(&mut headers, HeaderName::from_static(name), value, target)?;
            }
            let authorization = signer.authorization(&Signed {
                method: ask.method.as_str(),
                path: &path,
                query: &query,
                headers: &headers,
                body_hash: &body_hash,
            });
            set(&mut headers, AUTHORIZATION, &authorization, target)?;
            query
        };
        set(&mut headers, USER_AGENT, AGENT, target)?;
        if ask.method == Method::PUT || ask.method == Method::POST {
            set(&mut headers, CONTENT_LENGTH, &ask.body.len().to_string(), target)?;
        }
        let mut request = hyper::Request::new(ask.body.clone());
        *request.uri_mut() = self.uri(&path, &query, target)?;
        (*request.method_mut(), *request.headers_mut()) = (ask.method.clone(), headers);
        Ok(request)
    }

    fn uri(&self, path: &str, query: &str, target: &str) -> Result<Uri, Error> {
        let Endpoint { scheme, authority, .. } = &self.shared.endpoint;
        let mark = if query.is_empty() { "" } else { "?" };
        let uri = format!("{scheme}://{authority}{path}{mark}{query}");
        uri.parse().map_err(|_| {
            Error::Refused(Refusal {
                target: target.to_owned(),
                message: "the key is too long for a URL".to_owned(),
                code: "KeyTooLong".to_owned(),
                ..Refusal::default()
            })
        })
    }

    /// Signs by the endpoint's time from now on.
    fn correct_clock(&self, headers: &HeaderMap) {
        let Some(theirs) = time(headers, DATE) else { return };
        let skew = theirs.duration_since(Timestamp::now());
        tracing::warn!(
            secs = skew.as_secs(),
            "This machine's clock is wrong; requests are signed by the endpoint's"
        );
        self.shared.skew_secs.store(skew.as_secs(), Ordering::Relaxed);
    }

    fn target(&self, ask: &Ask<'_>) -> String {
        let bucket = &self.shared.location.bucket;
        let key = shown(ask.key.unwrap_or_default());
        format!("{} {}://{bucket}/{key}", ask.method, self.shared.service)
    }
}

impl Window {
    /// By the clock of an answer.
    fn is_over_at(&self, headers: &HeaderMap) -> bool {
        let secs = i64::try_from(self.secs).unwrap_or(i64::MAX);
        time(headers, DATE).is_some_and(|now| now.as_second() >= self.from.as_second().saturating_add(secs))
    }
}

fn set(headers: &mut HeaderMap, name: HeaderName, value: &str, target: &str) -> Result<(), Error> {
    let value = HeaderValue::from_str(value).map_err(|_| Error::Header {
        name: name.to_string(),
        target: target.to_owned(),
    })?;
    headers.insert(name, value);
    Ok(())
}

/// Requests that are made until an endpoint that has not answered at all is given up: one whose name or port is wrong, or that
/// is switched off. Chosen: a second of refusals, or two timeouts; one that did answer gets the whole patience.
fn attempts_before_any_answer(error: &Error) -> u32 {
    match error {
        Error::Network { .. } => 4,
        Error::Timeout { .. } => 2,
        _ => u32::MAX,
    }
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

    /// The story: a bucket whose endpoint was switched off made each run take a minute and more.
    #[tokio::test]
    async fn an_endpoint_that_never_answered_is_given_up_sooner_than_one_that_did() {
        let cut = String::new;
        let server = Server::start(vec![cut(), cut(), cut(), cut()]).await;
        let client = server.client();
        assert!(matches!(client.head(b"x").await, Err(Error::Network { .. })));
        assert_eq!(client.requests(), 4);

        let ok = || answer(200, "ETag: \"x\"\r\n", "");
        let server = Server::start(vec![ok(), cut(), cut(), cut(), cut(), cut(), ok()]).await;
        let client = server.client();
        client.head(b"x").await.unwrap();
        client.head(b"x").await.unwrap();
        assert_eq!(client.requests(), 7);
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

    #[derive(Debug)]
    struct Fixed(Option<Window>);

    impl Windows for Fixed {
        fn window(&self) -> Option<Window> {
            self.0
        }
    }

    #[tokio::test]
    async fn a_request_with_a_window_is_refused_when_it_comes_after_it() {
        // By two endpoints that say so differently, and by one that has another reason.
        let (before, after) = (
            "Date: Fri, 24 May 2024 00:00:29 GMT\r\n",
            "Date: Fri, 24 May 2024 00:00:31 GMT\r\n",
        );
        let expired = "<Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>";
        let old = "<Error><Code>InvalidRequest</Code><Message>Date is too old</Message></Error>";
        let server = Server::start(vec![
            answer(403, after, expired),
            answer(400, after, old),
            answer(403, before, expired),
            answer(503, after, ""),
            answer(200, "", ""),
        ])
        .await;
        let window = Window {
            from: "2024-05-24T00:00:01Z".parse().unwrap(),
            secs: 30,
        };
        let client = server.client().within(Arc::new(Fixed(Some(window))));
        let (headers, condition) = (Default::default(), Default::default());
        let put = async || client.put(b"k", Bytes::from_static(b"abc"), &headers, &condition).await;
        assert!(matches!(put().await, Err(Error::Late(target)) if target == "PUT s3://site/k"));
        assert!(matches!(put().await, Err(Error::Late(_))));
        assert!(matches!(put().await, Err(Error::Denied(_))));
        put().await.unwrap();
        let (asked, head) = (
            server.asked(),
            "PUT /site/k?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=key%2F20240524%2F",
        );
        assert!(asked[0].starts_with(head), "{}", asked[0]);
        assert!(
            asked[0].contains("&X-Amz-Date=20240524T000001Z&X-Amz-Expires=30&X-Amz-SignedHeaders=content-md5%3Bhost&")
        );
        let lower = asked[0].to_lowercase();
        assert!(
            !lower.contains("\r\nx-amz-") && !lower.contains("\r\nauthorization"),
            "{lower}"
        );
        // Nothing is sent when there is no time left.
        let over = client.within(Arc::new(Fixed(None)));
        assert!(matches!(over.delete_one(b"k").await, Err(Error::Late(_))));
        assert_eq!(server.asked().len(), 5);
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

    /// Amazon's answers from the wrong region: a HEAD has nothing but the header, other requests a body.
    #[tokio::test]
    async fn the_wrong_region_is_told_the_right_one() {
        let header = "x-amz-bucket-region: eu-west-3\r\n";
        let body =
            "<Error><Code>AuthorizationHeaderMalformed</Code><Message>x</Message><Region>eu-west-3</Region></Error>";
        let server = Server::start(vec![
            answer(301, header, ""),
            answer(403, header, ""),
            answer(400, "", body),
            answer(403, "x-amz-bucket-region: us-east-1\r\n", ""),
            answer(404, "", "<Error><Code>NoSuchBucket</Code></Error>"),
        ])
        .await;
        let client = server.impatient_client();
        for _ in 0..3 {
            let error = client.get(b"key", None, 100).await.unwrap_err();
            assert!(error.to_string().contains("--region eu-west-3"), "{error}");
        }
        let denied = client.get(b"key", None, 100).await.unwrap_err();
        assert!(matches!(denied, Error::Denied(_)), "{denied}");
        let missing = client.get(b"key", None, 100).await.unwrap_err();
        assert!(
            missing.is_general() && missing.to_string().contains("no such bucket"),
            "{missing}"
        );
    }
}
