//! Putting, getting, asking about and copying single objects.

use std::ops::Range;

use bytes::Bytes;
use data_encoding::HEXLOWER;
use hyper::Method;
use hyper::header::{DATE, HeaderMap, HeaderName, HeaderValue, IF_MATCH, IF_NONE_MATCH, RANGE};
use jiff::Timestamp;
use md5::{Digest, Md5};

use crate::ask::Ask;
use crate::client::Client;
use crate::error::Error;
use crate::headers::{Headers, Meta, etag, unquoted};
use crate::key::encode;
use crate::time::time;
use crate::xml;

/// Longest answer to a put or copy, in bytes.
const ANSWER_BYTES_MAX: u64 = 64 << 10;

/// When an object may be written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Condition {
    /// Whatever is there.
    #[default]
    Always,
    /// Nothing is there (`If-None-Match: *`).
    Absent,
    /// What is there has this ETag (`If-Match`).
    Is(String),
}

impl Condition {
    pub(crate) fn add_to(&self, map: &mut HeaderMap) {
        match self {
            Self::Always => {}
            Self::Absent => {
                map.insert(IF_NONE_MATCH, HeaderValue::from_static("*"));
            }
            Self::Is(etag) => {
                // An ETag that cannot stand in a header is nobody's: `"-"` is none, either.
                let value = HeaderValue::from_str(&format!("\"{etag}\""));
                map.insert(IF_MATCH, value.unwrap_or(HeaderValue::from_static("\"-\"")));
            }
        }
    }
}

/// An object that was written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stored {
    /// Without quotes.
    pub etag: String,
    /// In buckets with versions.
    pub version: Option<String>,
    /// What the endpoint's clock said when it answered.
    pub answered: Option<Timestamp>,
}

/// The ETag that an endpoint gives to these bytes when they are put in one request, unless it encrypts them with other keys than
/// its own.
pub fn etag_of(bytes: &[u8]) -> String {
    HEXLOWER.encode(&Md5::digest(bytes))
}

impl Stored {
    pub(crate) fn from_map(map: &HeaderMap) -> Self {
        let version = map.get("x-amz-version-id").and_then(|value| value.to_str().ok());
        Self {
            etag: etag(map),
            version: version.filter(|version| *version != "null").map(str::to_owned),
            answered: time(map, DATE),
        }
    }
}

/// An object, or a range of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Object {
    /// What is said about it.
    pub meta: Meta,
    /// What was asked for.
    pub bytes: Bytes,
}

impl Client {
    /// Puts an object in one request; a body damaged on the way is refused by the endpoint (`Content-MD5`, and the signature
    /// covers it). Endpoints take at most 5 GiB so.
    ///
    /// With a condition, [`Error::Changed`] can mean that an earlier attempt of the same call succeeded and its answer was
    /// lost: compare what is there. May be dropped: the object is then written or not.
    pub async fn put(
        &self,
        key: &[u8],
        body: Bytes,
        headers: &Headers,
        condition: &Condition,
    ) -> Result<Stored, Error> {
        let mut map = headers.to_map(&crate::key::shown(key))?;
        condition.add_to(&mut map);
        let ask = Ask {
            method: Method::PUT,
            key: Some(key),
            headers: map,
            body,
            ..Ask::default()
        };
        let answer = self.ask(&ask, ANSWER_BYTES_MAX).await?;
        Ok(Stored::from_map(&answer.headers))
    }

    /// Gets an object, or a range of it that may reach beyond its end, if that is at most `bytes_max`. May be dropped.
    pub async fn get(&self, key: &[u8], range: Option<Range<u64>>, bytes_max: u64) -> Result<Object, Error> {
        let mut headers = HeaderMap::new();
        if let Some(range) = range {
            headers.insert(RANGE, range_header(range.start, Some(range.end)));
        }
        let ask = Ask {
            key: Some(key),
            headers,
            ..Ask::default()
        };
        let answer = self.ask(&ask, bytes_max).await?;
        Ok(Object {
            meta: Meta::from_map(&answer.headers),
            bytes: answer.body,
        })
    }

    /// Asks about an object. May be dropped.
    pub async fn head(&self, key: &[u8]) -> Result<Meta, Error> {
        let ask = Ask {
            method: Method::HEAD,
            key: Some(key),
            ..Ask::default()
        };
        let answer = self.ask(&ask, 0).await?;
        Ok(Meta::from_map(&answer.headers))
    }

    /// Copies an object within the bucket, up to 5 GiB, with new headers; if it has this ETag, when one is given. Onto itself
    /// it changes headers without sending bytes. May be dropped.
    pub async fn copy(&self, from: &[u8], to: &[u8], headers: &Headers, etag: Option<&str>) -> Result<Stored, Error> {
        let shown = crate::key::shown(to);
        let mut map = headers.to_map(&shown)?;
        let mut set = |name: &'static str, value: String| -> Result<(), Error> {
            let value = HeaderValue::from_str(&value).map_err(|_| Error::Header {
                name: name.to_owned(),
                target: shown.clone(),
            })?;
            map.insert(HeaderName::from_static(name), value);
            Ok(())
        };
        set(
            "x-amz-copy-source",
            format!("/{}/{}", self.location().bucket, encode(from)),
        )?;
        set("x-amz-metadata-directive", "REPLACE".to_owned())?;
        if let Some(etag) = etag {
            set("x-amz-copy-source-if-match", format!("\"{etag}\""))?;
        }
        let ask = Ask {
            method: Method::PUT,
            key: Some(to),
            headers: map,
            may_fail_late: true,
            ..Ask::default()
        };
        let answer = self.ask(&ask, ANSWER_BYTES_MAX).await?;
        let copied: xml::Copied = xml::parse(&answer)?;
        Ok(Stored {
            etag: unquoted(&copied.etag).to_owned(),
            ..Stored::from_map(&answer.headers)
        })
    }
}

/// A range from `start` to before `end`.
pub(crate) fn range_header(start: u64, end: Option<u64>) -> HeaderValue {
    let last = end.map(|end| end.saturating_sub(1).to_string()).unwrap_or_default();
    HeaderValue::from_str(&format!("bytes={start}-{last}")).expect("digits may stand in headers")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{Server, answer};

    #[tokio::test]
    async fn conditions_and_headers_are_sent() {
        let server = Server::start(vec![answer(412, "", ""), answer(200, "ETag: \"e2\"\r\n", "")]).await;
        let client = server.client();
        let headers = Headers {
            acl: Some("public-read".into()),
            ..Headers::default()
        };
        let error = client
            .put(b"lock", Bytes::new(), &headers, &Condition::Absent)
            .await
            .unwrap_err();
        assert!(matches!(error, Error::Changed(_)), "{error}");
        let stored = client
            .put(b"lock", Bytes::new(), &headers, &Condition::Is("e1".into()))
            .await
            .unwrap();
        assert_eq!(
            stored,
            Stored {
                etag: "e2".into(),
                ..Stored::default()
            }
        );
        let asked = server.asked();
        assert!(asked[0].contains("if-none-match: *\r\n") && asked[0].contains("x-amz-acl: public-read\r\n"));
        assert!(asked[1].contains("if-match: \"e1\"\r\n"), "{}", asked[1]);
    }

    #[tokio::test]
    async fn a_range_tells_the_length_of_the_whole() {
        let head = "ETag: \"e\"\r\nContent-Range: bytes 2-4/9\r\n";
        let server = Server::start(vec![answer(206, head, "cde")]).await;
        let object = server.client().get(b"x", Some(2..5), 3).await.unwrap();
        assert_eq!((object.meta.bytes, &object.bytes[..]), (9, &b"cde"[..]));
        assert!(server.asked()[0].contains("range: bytes=2-4\r\n"));
    }
}
