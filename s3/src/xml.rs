//! What is said in XML: listings, batches, refusals. All of it was bounded when it was read.

use quick_xml::escape::escape;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::ask::Answer;
use crate::error::{Error, Refusal, Region};

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Listing {
    #[serde(default)]
    pub is_truncated: bool,
    pub next_continuation_token: Option<String>,
    pub encoding_type: Option<String>,
    #[serde(default)]
    pub contents: Vec<Entry>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Entry {
    pub key: String,
    pub size: u64,
    #[serde(rename = "ETag", default)]
    pub etag: String,
    #[serde(default)]
    pub last_modified: String,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Deleted {
    #[serde(rename = "Error", default)]
    pub errors: Vec<DeleteError>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct DeleteError {
    pub key: String,
    #[serde(default)]
    pub code: String,
    #[serde(default)]
    pub message: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Begun {
    pub upload_id: String,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Completed {
    #[serde(rename = "ETag", default)]
    pub etag: String,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Copied {
    #[serde(rename = "ETag", default)]
    pub etag: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename = "Error", rename_all = "PascalCase")]
struct Refused {
    code: String,
    #[serde(default)]
    message: String,
    region: Option<String>,
}

/// How CloudFront and others wrap it.
#[derive(Debug, Deserialize)]
struct Wrapped {
    #[serde(rename = "Error")]
    error: Refused,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct DistributionConfig {
    pub origins: Origins,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Origins {
    pub items: OriginItems,
}

#[derive(Debug, Deserialize)]
pub(crate) struct OriginItems {
    #[serde(rename = "Origin", default)]
    pub origins: Vec<OriginEntry>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct OriginEntry {
    pub domain_name: String,
    #[serde(default)]
    pub origin_path: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Invalidation {
    pub id: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename = "ObjectLockConfiguration", rename_all = "PascalCase")]
pub(crate) struct LockConfiguration {
    pub object_lock_enabled: String,
    rule: Option<LockRule>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct LockRule {
    default_retention: Option<DefaultRetention>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DefaultRetention {
    mode: Option<String>,
}

impl LockConfiguration {
    /// Of the default rule.
    pub fn mode(&self) -> Option<&str> {
        self.rule.as_ref()?.default_retention.as_ref()?.mode.as_deref()
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Versions {
    #[serde(default)]
    pub is_truncated: bool,
    pub next_key_marker: Option<String>,
    pub next_version_id_marker: Option<String>,
    #[serde(rename = "DeleteMarker", default)]
    pub delete_markers: Vec<VersionEntry>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct VersionEntry {
    pub key: String,
    pub version_id: String,
    #[serde(default)]
    pub is_latest: bool,
}

/// Reads an answer.
pub(crate) fn parse<T: DeserializeOwned>(answer: &Answer) -> Result<T, Error> {
    let wrong = |why: String| Error::Answer {
        target: answer.target.clone(),
        why,
    };
    let text = std::str::from_utf8(&answer.body).map_err(|error| wrong(error.to_string()))?;
    quick_xml::de::from_str(text).map_err(|error| wrong(error.to_string()))
}

/// A refusal, if the body is one.
pub(crate) fn refusal(body: &[u8]) -> Option<Refusal> {
    let text = std::str::from_utf8(body).ok()?.trim_start();
    let root = text
        .strip_prefix("<?xml")
        .and_then(|rest| rest.split_once("?>"))
        .map_or(text, |(_, rest)| rest);
    let root = root.trim_start();
    if !root.starts_with("<Error") {
        return None;
    }
    let refused: Refused = match root.starts_with("<ErrorResponse") {
        true => quick_xml::de::from_str::<Wrapped>(text).ok()?.error,
        false => quick_xml::de::from_str(text).ok()?,
    };
    Some(Refusal {
        code: refused.code,
        message: refused.message,
        region: refused.region.map(|region| Box::new(Region(region))),
        ..Refusal::default()
    })
}

/// `CompleteMultipartUpload`.
pub(crate) fn complete_request(etags: &[(u64, String)]) -> String {
    let mut text = String::from("<CompleteMultipartUpload xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">");
    for (number, etag) in etags {
        let etag = escape(format!("\"{etag}\""));
        text += &format!("<Part><PartNumber>{number}</PartNumber><ETag>{etag}</ETag></Part>");
    }
    text + "</CompleteMultipartUpload>"
}

/// `CreateInvalidation`.
pub(crate) fn invalidation_request(paths: &[String], reference: &str) -> String {
    let mut text = String::from("<InvalidationBatch xmlns=\"http://cloudfront.amazonaws.com/doc/2020-05-31/\">");
    text += &format!("<Paths><Quantity>{}</Quantity><Items>", paths.len());
    for path in paths {
        text += &format!("<Path>{}</Path>", escape(path.as_str()));
    }
    text + &format!(
        "</Items></Paths><CallerReference>{}</CallerReference></InvalidationBatch>",
        escape(reference)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_told_from_other_answers() {
        let text = b"<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>X</Code><Resource>/b</Resource></Error>";
        assert_eq!(refusal(text).unwrap().code, "X");
        let wrapped = b"<ErrorResponse xmlns=\"x\"><Error><Type>Sender</Type><Code>Y</Code></Error></ErrorResponse>";
        assert_eq!(refusal(wrapped).unwrap().code, "Y");
        assert_eq!(refusal(b"<html>502</html>"), None);
        assert_eq!(refusal(b"<Errors/>"), None);
        assert_eq!(refusal(b"\xff"), None);
    }
}
