//! What is kept beside an object's bytes: what browsers are told, who may read it, metadata.

use std::collections::BTreeMap;

use hyper::header::{
    CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_ENCODING, CONTENT_LANGUAGE, CONTENT_LENGTH, CONTENT_TYPE, DATE, ETAG,
    EXPIRES, HeaderMap, HeaderName, HeaderValue, LAST_MODIFIED,
};
use jiff::Timestamp;

use crate::error::Error;
use crate::object_lock::Lock;
use crate::time::time;

/// What metadata's names begin with on the wire.
const METADATA: &str = "x-amz-meta-";

/// Headers of an object. Empty fields are not sent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Headers {
    /// `Content-Type`.
    pub content_type: Option<String>,
    /// `Content-Encoding`, such as `gzip`.
    pub content_encoding: Option<String>,
    /// `Content-Disposition`.
    pub content_disposition: Option<String>,
    /// `Content-Language`.
    pub content_language: Option<String>,
    /// `Cache-Control`.
    pub cache_control: Option<String>,
    /// `Expires`, an HTTP date.
    pub expires: Option<String>,
    /// Canned ACL, such as `public-read`.
    pub acl: Option<String>,
    /// Storage class, such as `STANDARD_IA`.
    pub storage_class: Option<String>,
    /// Where a web site endpoint sends browsers instead: a key with `/` in front, or a URL.
    pub redirect: Option<String>,
    /// In buckets that have Object Lock.
    #[serde(skip)]
    pub lock: Option<Lock>,
    /// Names, without `x-amz-meta-` and in small letters, and their values: printable ASCII, 2 KiB together.
    pub metadata: BTreeMap<String, String>,
}

impl Headers {
    fn named(&self) -> [(HeaderName, Option<&String>); 9] {
        [
            (CONTENT_TYPE, self.content_type.as_ref()),
            (CONTENT_ENCODING, self.content_encoding.as_ref()),
            (CONTENT_DISPOSITION, self.content_disposition.as_ref()),
            (CONTENT_LANGUAGE, self.content_language.as_ref()),
            (CACHE_CONTROL, self.cache_control.as_ref()),
            (EXPIRES, self.expires.as_ref()),
            (HeaderName::from_static("x-amz-acl"), self.acl.as_ref()),
            (
                HeaderName::from_static("x-amz-storage-class"),
                self.storage_class.as_ref(),
            ),
            (
                HeaderName::from_static("x-amz-website-redirect-location"),
                self.redirect.as_ref(),
            ),
        ]
    }

    /// As a request's headers; `target` is for errors.
    pub(crate) fn to_map(&self, target: &str) -> Result<HeaderMap, Error> {
        let wrong = |name: &str| Error::Header {
            name: name.to_owned(),
            target: target.to_owned(),
        };
        let mut map = HeaderMap::new();
        for (name, value) in self.named() {
            let Some(value) = value else { continue };
            let value = HeaderValue::from_str(value).map_err(|_| wrong(name.as_str()))?;
            map.insert(name, value);
        }
        if let Some(lock) = self.lock {
            lock.add_to(&mut map);
        }
        for (name, value) in &self.metadata {
            let full = HeaderName::from_bytes(format!("{METADATA}{name}").as_bytes()).map_err(|_| wrong(name))?;
            map.insert(full, HeaderValue::from_str(value).map_err(|_| wrong(name))?);
        }
        Ok(map)
    }
}

/// What an endpoint says about an object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Meta {
    /// Length of the whole object, in bytes.
    pub bytes: u64,
    /// Without quotes; of objects put in one piece usually the MD5 of the bytes.
    pub etag: String,
    /// In buckets with versions.
    pub version: Option<String>,
    /// When it was put, by the endpoint's clock.
    pub modified: Option<Timestamp>,
    /// What that clock said when it answered.
    pub answered: Option<Timestamp>,
    /// What was put with it, except its ACL, which is never told.
    pub headers: Headers,
}

impl Meta {
    pub(crate) fn from_map(map: &HeaderMap) -> Self {
        let text = |name: HeaderName| map.get(name)?.to_str().ok().map(str::to_owned);
        let amazon = |name: &'static str| text(HeaderName::from_static(name));
        let metadata = map.iter().filter_map(|(name, value)| {
            let name = name.as_str().strip_prefix(METADATA)?;
            Some((name.to_owned(), value.to_str().ok()?.to_owned()))
        });
        // `Content-Range: bytes 0-9/1234` tells the length of the whole.
        let range = text(hyper::header::CONTENT_RANGE);
        let whole = range
            .as_deref()
            .and_then(|range| range.rsplit_once('/'))
            .and_then(|(_, bytes)| bytes.parse().ok());
        let length = || text(CONTENT_LENGTH).and_then(|bytes| bytes.parse().ok());
        Self {
            bytes: whole.or_else(length).unwrap_or_default(),
            etag: etag(map),
            version: amazon("x-amz-version-id").filter(|version| version != "null"),
            modified: time(map, LAST_MODIFIED),
            answered: time(map, DATE),
            headers: Headers {
                content_type: text(CONTENT_TYPE),
                content_encoding: text(CONTENT_ENCODING),
                content_disposition: text(CONTENT_DISPOSITION),
                content_language: text(CONTENT_LANGUAGE),
                cache_control: text(CACHE_CONTROL),
                expires: text(EXPIRES),
                acl: None,
                storage_class: amazon("x-amz-storage-class"),
                redirect: amazon("x-amz-website-redirect-location"),
                lock: Lock::from_map(map),
                metadata: metadata.collect(),
            },
        }
    }
}

/// The ETag of an answer, without its quotes; empty if there is none.
pub(crate) fn etag(map: &HeaderMap) -> String {
    let text = map.get(ETAG).and_then(|value| value.to_str().ok()).unwrap_or_default();
    unquoted(text).to_owned()
}

/// An ETag without its quotes.
pub(crate) fn unquoted(etag: &str) -> &str {
    etag.trim_matches('"')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object_lock::LockMode;

    #[test]
    fn headers_come_back_as_they_were_sent() {
        let headers = Headers {
            content_type: Some("text/html; charset=utf-8".into()),
            cache_control: Some("max-age=60".into()),
            redirect: Some("/new.html".into()),
            lock: Some(Lock {
                mode: LockMode::Compliance,
                until: "2026-11-22T01:02:03Z".parse().unwrap(),
            }),
            metadata: [("mtime".to_owned(), "12.5".to_owned())].into(),
            ..Headers::default()
        };
        let mut map = headers.to_map("x").unwrap();
        map.insert(ETAG, HeaderValue::from_static("\"abc\""));
        map.insert(hyper::header::CONTENT_RANGE, HeaderValue::from_static("bytes 0-9/1234"));
        map.insert(CONTENT_LENGTH, HeaderValue::from_static("10"));
        let meta = Meta::from_map(&map);
        assert_eq!((meta.headers, meta.etag.as_str(), meta.bytes), (headers, "abc", 1234));
    }

    #[test]
    fn values_that_would_break_the_request_are_refused() {
        let with = |value: &str| Headers {
            cache_control: Some(value.into()),
            ..Headers::default()
        };
        assert!(with("no\r\nx-evil: 1").to_map("x").is_err());
        let named = Headers {
            metadata: [("a b".to_owned(), String::new())].into(),
            ..Headers::default()
        };
        assert!(matches!(named.to_map("x").unwrap_err(), Error::Header { name, .. } if name == "a b"));
    }
}
