//! Listing keys, batch by batch (`ListObjectsV2`).

use hyper::Method;
use hyper::header::DATE;
use jiff::Timestamp;

use crate::ask::{Answer, Ask};
use crate::client::Client;
use crate::error::Error;
use crate::headers::unquoted;
use crate::key::decode_listed;
use crate::time::time;
use crate::xml;

/// Most keys of a batch, listed or deleted: what S3 allows.
pub const BATCH_KEYS_MAX: usize = 1000;
/// Longest batch, in bytes: 1,000 keys of 1,024 bytes, each escaped threefold, with their tags.
const BATCH_BYTES_MAX: u64 = 8 << 20;

/// What is listed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListOptions {
    /// What the keys begin with.
    pub prefix: Vec<u8>,
    /// Only keys after this one.
    pub start_after: Vec<u8>,
    /// Where the batch before ended ([`Batch::next`]).
    pub token: Option<String>,
}

/// An object in a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The whole key.
    pub key: Vec<u8>,
    /// Length.
    pub bytes: u64,
    /// Without quotes.
    pub etag: String,
    /// When it was put, by the endpoint's clock.
    pub modified: Option<Timestamp>,
}

/// Up to 1,000 objects.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// The objects.
    pub objects: Vec<Listed>,
    /// For the next batch; none: this is the last.
    pub next: Option<String>,
    /// When the endpoint answered, by its clock.
    pub now: Option<Timestamp>,
}

impl Client {
    /// A batch of the listing, in the endpoint's order: Amazon's is that of the bytes, some others' is not. May be dropped.
    pub async fn list(&self, options: &ListOptions) -> Result<Batch, Error> {
        let mut query: Vec<(&str, &[u8])> = vec![
            ("list-type", b"2"),
            ("encoding-type", b"url"),
            ("max-keys", b"1000"),
            ("prefix", &options.prefix),
        ];
        if let Some(token) = &options.token {
            query.push(("continuation-token", token.as_bytes()));
        }
        if !options.start_after.is_empty() {
            query.push(("start-after", &options.start_after));
        }
        let ask = Ask {
            method: Method::GET,
            query,
            ..Ask::default()
        };
        let answer = self.ask(&ask, BATCH_BYTES_MAX).await?;
        batch(&answer, options)
    }
}

/// The batch in an answer, if it is one of what was asked for.
pub(crate) fn batch(answer: &Answer, options: &ListOptions) -> Result<Batch, Error> {
    let found: xml::Listing = xml::parse(answer)?;
    let wrong = |why: &str| Error::Answer {
        target: answer.target.clone(),
        why: why.to_owned(),
    };
    let is_encoded = found.encoding_type.as_deref() == Some("url");
    let objects: Vec<_> = found
        .contents
        .into_iter()
        .map(|entry| listed(entry, is_encoded))
        .collect();
    if objects.len() > BATCH_KEYS_MAX {
        return Err(wrong("a batch of more than 1,000 keys"));
    }
    if objects.iter().any(|object| !object.key.starts_with(&options.prefix)) {
        return Err(wrong("a key without the prefix"));
    }
    let next = found.next_continuation_token.filter(|_| found.is_truncated);
    if found.is_truncated && next.is_none() {
        return Err(wrong("there are more batches, and no token for them"));
    }
    if next.is_some() && next == options.token {
        return Err(wrong("the next batch is the same again"));
    }
    let now = time(&answer.headers, DATE);
    Ok(Batch { objects, next, now })
}

fn listed(entry: xml::Entry, is_encoded: bool) -> Listed {
    Listed {
        key: if is_encoded {
            decode_listed(&entry.key)
        } else {
            entry.key.into_bytes()
        },
        bytes: entry.size,
        etag: unquoted(&entry.etag).to_owned(),
        modified: entry.last_modified.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{Server, answer};

    fn batch(keys: &[&str], tail: &str) -> String {
        let entries: String = keys
            .iter()
            .map(|key| format!("<Contents><Key>{key}</Key><Size>3</Size><LastModified>2026-01-02T03:04:05.000Z</LastModified><ETag>&quot;e&quot;</ETag></Contents>"))
            .collect();
        let body = format!(
            "<?xml version=\"1.0\"?>\n<ListBucketResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">\
             <Name>site</Name><EncodingType>url</EncodingType>{entries}{tail}</ListBucketResult>"
        );
        answer(200, "", &body)
    }

    #[tokio::test]
    async fn batches_follow_each_other_and_keys_are_decoded() {
        let more = "<IsTruncated>true</IsTruncated><NextContinuationToken>t/1=</NextContinuationToken>";
        let server = Server::start(vec![
            batch(&["p/a+b%FF"], more),
            batch(&["p/z"], "<IsTruncated>false</IsTruncated>"),
        ])
        .await;
        let client = server.client();
        let mut options = ListOptions {
            prefix: b"p/".to_vec(),
            start_after: b"p/a".to_vec(),
            token: None,
        };
        let first = client.list(&options).await.unwrap();
        assert_eq!(
            first.objects,
            [Listed {
                key: b"p/a b\xff".to_vec(),
                bytes: 3,
                etag: "e".into(),
                modified: "2026-01-02T03:04:05Z".parse().ok(),
            }]
        );
        options.token = first.next;
        assert_eq!(client.list(&options).await.unwrap().next, None);
        let asked = server.asked();
        assert!(
            asked[0]
                .starts_with("GET /site?encoding-type=url&list-type=2&max-keys=1000&prefix=p%2F&start-after=p%2Fa ")
        );
        assert!(asked[1].contains("continuation-token=t%2F1%3D"), "{}", asked[1]);
    }

    #[tokio::test]
    async fn a_listing_that_could_mislead_is_an_error() {
        let again = "<IsTruncated>true</IsTruncated><NextContinuationToken>again</NextContinuationToken>";
        for wrong in [
            batch(&["q"], ""),
            batch(&[], "<IsTruncated>true</IsTruncated>"),
            batch(&[], again),
        ] {
            let server = Server::start(vec![wrong]).await;
            let options = ListOptions {
                prefix: b"p/".to_vec(),
                token: Some("again".to_owned()),
                ..ListOptions::default()
            };
            let error = server.impatient_client().list(&options).await.unwrap_err();
            assert!(matches!(error, Error::Answer { .. }), "{error}");
        }
    }
}
