//! Large objects in parts, each checked by the endpoint, several at once; memory is bounded by the parts on their way.

use bytes::Bytes;
use data_encoding::HEXLOWER;
use futures::{FutureExt, Stream, StreamExt, TryStreamExt};
use hyper::Method;
use hyper::header::HeaderMap;
use md5::{Digest, Md5};

use crate::ask::Ask;
use crate::client::Client;
use crate::error::Error;
use crate::headers::{Headers, unquoted};
use crate::key::shown;
use crate::object::{Condition, Stored};
use crate::xml;

/// Smallest part but the last, in bytes (<https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html>).
pub const PART_BYTES_MIN: u64 = 5 << 20;
/// Most parts of an object (ibid.).
const PARTS_MAX: u64 = 10_000;
/// What parts usually have. Chosen: four on their way take 32 MiB, and one that is lost costs seconds on a home line.
const PART_BYTES: u64 = 8 << 20;
/// Longest answer, in bytes.
const ANSWER_BYTES_MAX: u64 = 64 << 10;

/// How long parts should be for an object of so many bytes: 8 MiB, and more from 80 GB on, because 10,000 must be enough.
pub fn part_bytes(object_bytes: u64) -> u64 {
    let needed = object_bytes.div_ceil(PARTS_MAX);
    needed.next_multiple_of(1 << 20).max(PART_BYTES)
}

/// An upload in parts that was begun and neither completed nor given up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parts {
    /// The whole key.
    pub key: Vec<u8>,
    /// The endpoint's name for it.
    pub upload_id: String,
}

/// Parts that arrived: their numbers and ETags, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SentParts(Vec<(u64, String)>);

impl Client {
    /// Begins an upload in parts. Until it is completed or given up its parts take (paid) room. May be dropped.
    pub async fn begin_parts(&self, key: &[u8], headers: &Headers) -> Result<Parts, Error> {
        let map = headers.to_map(&shown(key))?;
        let query: Vec<(&str, &[u8])> = vec![("uploads", b"")];
        let ask = Ask {
            method: Method::POST,
            key: Some(key),
            query,
            headers: map,
            ..Ask::default()
        };
        let answer = self.ask(&ask, ANSWER_BYTES_MAX).await?;
        let begun: xml::Begun = xml::parse(&answer)?;
        Ok(Parts {
            key: key.to_vec(),
            upload_id: begun.upload_id,
        })
    }

    /// Sends the parts of `bytes`, `parallel` at once; what fails leaves the upload as it is. May be dropped.
    pub async fn put_parts(
        &self,
        parts: &Parts,
        bytes: impl Stream<Item = std::io::Result<Bytes>> + Send,
        parallel: usize,
    ) -> Result<SentParts, Error> {
        let unread = |source| Error::Source {
            target: shown(&parts.key),
            source,
        };
        let sent = bytes.map_err(unread).enumerate().map(|(index, part)| {
            let sending = async move {
                let number = index as u64 + 1;
                Ok::<_, Error>((number, self.put_part(parts, number, part?).await?))
            };
            sending.boxed()
        });
        sent.buffered(parallel.max(1)).try_collect().await.map(SentParts)
    }

    /// Makes the object of its parts. May be dropped: it is then there or not.
    pub async fn complete_parts(
        &self,
        parts: &Parts,
        sent: &SentParts,
        condition: &Condition,
    ) -> Result<Stored, Error> {
        match self.complete(parts, sent, condition).await {
            // The answer to an earlier attempt may have been lost: then the upload is not there any more, or the object is.
            Err(error @ (Error::NotFound(_) | Error::Changed(_))) => {
                let meta = self.head(&parts.key).await.ok();
                let done = meta.filter(|meta| sent.whole_etag().is_some_and(|etag| etag == meta.etag));
                let done = done.ok_or(error)?;
                Ok(Stored {
                    etag: done.etag,
                    version: done.version,
                    answered: done.answered,
                })
            }
            ended => ended,
        }
    }

    /// Sends part `number`, from 1. May be dropped.
    async fn put_part(&self, parts: &Parts, number: u64, body: Bytes) -> Result<String, Error> {
        let text = number.to_string();
        let query = vec![
            ("partNumber", text.as_bytes()),
            ("uploadId", parts.upload_id.as_bytes()),
        ];
        let ask = Ask {
            method: Method::PUT,
            key: Some(&parts.key),
            query,
            body,
            ..Ask::default()
        };
        let answer = self.ask(&ask, ANSWER_BYTES_MAX).await?;
        Ok(Stored::from_map(&answer.headers).etag)
    }

    async fn complete(&self, parts: &Parts, sent: &SentParts, condition: &Condition) -> Result<Stored, Error> {
        let mut headers = HeaderMap::new();
        condition.add_to(&mut headers);
        let query = vec![("uploadId", parts.upload_id.as_bytes())];
        let body = Bytes::from(xml::complete_request(&sent.0));
        let key = Some(parts.key.as_slice());
        let ask = Ask {
            method: Method::POST,
            key,
            query,
            headers,
            body,
            may_fail_late: true,
        };
        let answer = self.ask(&ask, ANSWER_BYTES_MAX).await?;
        let completed: xml::Completed = xml::parse(&answer)?;
        Ok(Stored {
            etag: unquoted(&completed.etag).to_owned(),
            ..Stored::from_map(&answer.headers)
        })
    }

    /// Gives an upload up; one that is not there (any more) counts as given up. May be dropped.
    pub async fn abort_parts(&self, parts: &Parts) -> Result<(), Error> {
        let query = vec![("uploadId", parts.upload_id.as_bytes())];
        let ask = Ask {
            method: Method::DELETE,
            key: Some(&parts.key),
            query,
            ..Ask::default()
        };
        match self.ask(&ask, ANSWER_BYTES_MAX).await {
            Ok(_) | Err(Error::NotFound(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

impl SentParts {
    /// The ETag of an object in parts (MD5 of their MD5s, and how many), where theirs are MD5s.
    fn whole_etag(&self) -> Option<String> {
        let mut md5 = Md5::new();
        for (_, etag) in &self.0 {
            md5.update(HEXLOWER.decode(etag.as_bytes()).ok()?);
        }
        Some(format!("{}-{}", HEXLOWER.encode(&md5.finalize()), self.0.len()))
    }
}

#[cfg(test)]
mod tests {
    use futures::stream;

    use super::*;
    use crate::fixtures::{Server, answer};

    #[test]
    fn ten_thousand_parts_are_always_enough() {
        // Nothing; usual; the last length with 8 MiB; the largest object of S3.
        for (bytes, expected) in [(0, 8), (1 << 30, 8), (80_000 << 20, 8), (5 << 40, 525)] {
            assert_eq!(part_bytes(bytes), expected << 20);
            assert!(bytes.div_ceil(part_bytes(bytes)) <= PARTS_MAX);
        }
    }

    #[tokio::test]
    async fn parts_are_sent_and_named_in_order() {
        let begun = "<InitiateMultipartUploadResult><UploadId>u+1</UploadId></InitiateMultipartUploadResult>";
        let completed = "<CompleteMultipartUploadResult><ETag>&quot;all-2&quot;</ETag></CompleteMultipartUploadResult>";
        let server = Server::start(vec![
            answer(200, "", begun),
            answer(200, "ETag: \"e1\"\r\n", ""),
            answer(200, "ETag: \"e2\"\r\n", ""),
            answer(200, "", completed),
        ])
        .await;
        let client = server.client();
        let parts = client.begin_parts(b"big", &Headers::default()).await.unwrap();
        let bytes = stream::iter([Ok(Bytes::from_static(b"one")), Ok(Bytes::from_static(b"two"))]);
        let sent = client.put_parts(&parts, bytes, 1).await.unwrap();
        let stored = client.complete_parts(&parts, &sent, &Condition::Absent).await.unwrap();
        assert_eq!(stored.etag, "all-2");
        let asked = server.asked();
        assert!(asked[0].starts_with("POST /site/big?uploads= "));
        assert!(
            asked[2].starts_with("PUT /site/big?partNumber=2&uploadId=u%2B1 "),
            "{}",
            asked[2]
        );
        assert!(
            asked[3].contains("<PartNumber>2</PartNumber><ETag>&quot;e2&quot;</ETag>")
                && asked[3].contains("if-none-match")
        );
    }

    #[tokio::test]
    async fn an_upload_whose_completion_was_not_heard_of_is_found() {
        let md5 = "900150983cd24fb0d6963f7d28e17f72";
        let whole = SentParts(vec![(1, md5.to_owned())]).whole_etag().unwrap();
        for (etag, is_ours) in [(whole.as_str(), true), ("other", false)] {
            let server = Server::start(vec![
                answer(200, &format!("ETag: \"{md5}\"\r\n"), ""),
                answer(404, "", "<Error><Code>NoSuchUpload</Code></Error>"),
                answer(200, &format!("ETag: \"{etag}\"\r\n"), ""),
            ])
            .await;
            let parts = Parts {
                key: b"k".to_vec(),
                upload_id: "u".into(),
            };
            let bytes = stream::iter([Ok(Bytes::from_static(b"abc"))]);
            let client = server.client();
            let sent = client.put_parts(&parts, bytes, 4).await.unwrap();
            let stored = client.complete_parts(&parts, &sent, &Condition::Always).await;
            assert_eq!(stored.is_ok_and(|stored| stored.etag == whole), is_ours);
        }
    }

    #[tokio::test]
    async fn a_source_that_cannot_be_read_ends_the_upload() {
        let server = Server::start(vec![]).await;
        let parts = Parts {
            key: b"k".to_vec(),
            upload_id: "u".into(),
        };
        let bytes = stream::iter([Err(std::io::Error::other("bad sector"))]);
        let error = server.client().put_parts(&parts, bytes, 4).await.unwrap_err();
        assert_eq!(error.to_string(), "What should become k cannot be read: bad sector");
    }
}
