//! Object Lock: objects that nobody may delete or overwrite for a while
//! (<https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-lock.html>). Buckets that have it keep versions: what seems to
//! be deleted is only hidden by a delete marker.

use bytes::Bytes;
use hyper::Method;
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use jiff::Timestamp;

use crate::ask::Ask;
use crate::client::Client;
use crate::error::Error;
use crate::xml;

/// Longest answer about locks, and longest batch of versions, in bytes.
const ANSWER_BYTES_MAX: u64 = 8 << 20;

/// Who may end a lock early.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LockMode {
    /// Whoever has the permission to bypass governance.
    Governance,
    /// Nobody, the owner of the bucket included.
    Compliance,
}

impl LockMode {
    /// As on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::Governance => "GOVERNANCE",
            Self::Compliance => "COMPLIANCE",
        }
    }

    /// The mode of that name.
    pub fn named(name: &str) -> Option<Self> {
        [Self::Governance, Self::Compliance]
            .into_iter()
            .find(|mode| mode.name() == name)
    }
}

/// How long a version of an object is locked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Lock {
    /// Who may end it early.
    pub mode: LockMode,
    /// Until then, by the endpoint's clock.
    pub until: Timestamp,
}

const MODE: HeaderName = HeaderName::from_static("x-amz-object-lock-mode");
const UNTIL: HeaderName = HeaderName::from_static("x-amz-object-lock-retain-until-date");

impl Lock {
    pub(crate) fn from_map(map: &HeaderMap) -> Option<Self> {
        Some(Self {
            mode: LockMode::named(map.get(MODE)?.to_str().ok()?)?,
            until: map.get(UNTIL)?.to_str().ok()?.parse().ok()?,
        })
    }

    pub(crate) fn add_to(self, map: &mut HeaderMap) {
        map.insert(MODE, HeaderValue::from_static(self.mode.name()));
        if let Ok(until) = HeaderValue::from_str(&self.until_text()) {
            map.insert(UNTIL, until);
        }
    }

    fn until_text(&self) -> String {
        self.until.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
    }
}

/// What hides an object whose older versions are still there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeleteMarker {
    /// The whole key.
    pub key: Vec<u8>,
    /// The marker's own version.
    pub version: String,
}

/// Where a listing of markers goes on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MarkersAfter {
    key: String,
    version: String,
}

impl Client {
    /// Whether the bucket can lock objects: the mode of its default rule, or governance; none: it cannot, or the endpoint knows
    /// nothing of locks. May be dropped.
    pub async fn lock_mode(&self) -> Result<Option<LockMode>, Error> {
        let ask = Ask {
            query: vec![("object-lock", b"")],
            ..Ask::default()
        };
        match self.ask(&ask, ANSWER_BYTES_MAX).await {
            // Other answers are those of endpoints that ignore the question, such as a listing.
            Ok(answer) => Ok(xml::parse::<xml::LockConfiguration>(&answer)
                .ok()
                .filter(|said| said.object_lock_enabled == "Enabled")
                .map(|said| said.mode().and_then(LockMode::named).unwrap_or(LockMode::Governance))),
            Err(error) if error.is_retryable() => Err(error),
            Err(error @ Error::Denied(_)) => {
                tracing::warn!("Whether the bucket locks objects is not known: {error}");
                Ok(None)
            }
            Err(Error::NotFound(_) | Error::NoBucket(_) | Error::Refused(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Locks the newest version of an object, or locks it for longer. May be dropped.
    pub async fn lock(&self, key: &[u8], lock: Lock) -> Result<(), Error> {
        let body = format!(
            "<Retention xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Mode>{}</Mode><RetainUntilDate>{}</RetainUntilDate></Retention>",
            lock.mode.name(),
            lock.until_text()
        );
        let ask = Ask {
            method: Method::PUT,
            key: Some(key),
            query: vec![("retention", b"")],
            body: Bytes::from(body),
            ..Ask::default()
        };
        self.ask(&ask, ANSWER_BYTES_MAX).await.map(drop)
    }

    /// A batch of the keys below `prefix` that seem deleted, though versions of them may be there, and where the next batch begins.
    /// May be dropped.
    pub async fn hidden(
        &self,
        prefix: &[u8],
        after: &MarkersAfter,
    ) -> Result<(Vec<DeleteMarker>, Option<MarkersAfter>), Error> {
        let mut query: Vec<(&str, &[u8])> = vec![("versions", b""), ("max-keys", b"1000"), ("prefix", prefix)];
        if !after.key.is_empty() {
            query.push(("key-marker", after.key.as_bytes()));
            query.push(("version-id-marker", after.version.as_bytes()));
        }
        let ask = Ask {
            query,
            ..Ask::default()
        };
        let answer = self.ask(&ask, ANSWER_BYTES_MAX).await?;
        let found: xml::Versions = xml::parse(&answer)?;
        let markers = found.delete_markers.into_iter().filter(|marker| marker.is_latest);
        let markers = markers.map(|marker| DeleteMarker {
            key: marker.key.into_bytes(),
            version: marker.version_id,
        });
        let next = found.next_key_marker.filter(|_| found.is_truncated);
        let next = next.map(|key| MarkersAfter {
            key,
            version: found.next_version_id_marker.unwrap_or_default(),
        });
        Ok((markers.collect(), next))
    }

    /// Takes a marker away, so that the version below it is the object again. May be dropped.
    pub async fn reveal(&self, marker: &DeleteMarker) -> Result<(), Error> {
        let ask = Ask {
            method: Method::DELETE,
            key: Some(&marker.key),
            query: vec![("versionId", marker.version.as_bytes())],
            ..Ask::default()
        };
        match self.ask(&ask, ANSWER_BYTES_MAX).await {
            Ok(_) | Err(Error::NotFound(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{Server, answer};

    #[tokio::test]
    async fn what_is_said_about_locks_is_understood() {
        let locked = |rule: &str| {
            format!(
                "<?xml version=\"1.0\"?>\n<ObjectLockConfiguration xmlns=\"x\"><ObjectLockEnabled>Enabled</ObjectLockEnabled>{rule}</ObjectLockConfiguration>"
            )
        };
        let rule = "<Rule><DefaultRetention><Mode>COMPLIANCE</Mode><Days>1</Days></DefaultRetention></Rule>";
        let none = "<Error><Code>ObjectLockConfigurationNotFoundError</Code></Error>";
        for (status, body, expected) in [
            (200, locked(""), Some(LockMode::Governance)),
            (200, locked(rule), Some(LockMode::Compliance)),
            (404, none.to_owned(), None),
            (403, "<Error><Code>AccessDenied</Code></Error>".to_owned(), None),
            (
                200,
                "<ListBucketResult><Name>b</Name></ListBucketResult>".to_owned(),
                None,
            ),
        ] {
            let server = Server::start(vec![answer(status, "", &body)]).await;
            assert_eq!(server.client().lock_mode().await.unwrap(), expected, "{body}");
        }
    }

    #[tokio::test]
    async fn hidden_keys_are_those_whose_newest_version_is_a_marker() {
        let marker = |key: &str, is_latest: bool| {
            format!(
                "<DeleteMarker><Key>{key}</Key><VersionId>v{key}</VersionId><IsLatest>{is_latest}</IsLatest></DeleteMarker>"
            )
        };
        let version = "<Version><Key>c</Key><VersionId>1</VersionId><IsLatest>true</IsLatest><Size>3</Size></Version>";
        let next = "<IsTruncated>true</IsTruncated><NextKeyMarker>c</NextKeyMarker><NextVersionIdMarker>1</NextVersionIdMarker>";
        let batch = format!(
            "<ListVersionsResult>{next}{}{version}{}</ListVersionsResult>",
            marker("a", true),
            marker("b", false)
        );
        let last = "<ListVersionsResult><IsTruncated>false</IsTruncated></ListVersionsResult>";
        let server = Server::start(vec![
            answer(200, "", &batch),
            answer(200, "", last),
            answer(204, "", ""),
        ])
        .await;
        let client = server.client();
        let (hidden, next) = client.hidden(b"p/", &MarkersAfter::default()).await.unwrap();
        let a = DeleteMarker {
            key: b"a".to_vec(),
            version: "va".into(),
        };
        assert_eq!(hidden, std::slice::from_ref(&a));
        let (hidden, next) = client.hidden(b"p/", &next.unwrap()).await.unwrap();
        assert_eq!((hidden.len(), next), (0, None));
        client.reveal(&a).await.unwrap();
        let asked = server.asked();
        assert!(
            asked[1].contains("key-marker=c") && asked[1].contains("version-id-marker=1"),
            "{}",
            asked[1]
        );
        assert!(asked[2].starts_with("DELETE /site/a?versionId=va "), "{}", asked[2]);
    }
}
