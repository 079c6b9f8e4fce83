//! Deleting objects, up to a thousand in a request.

use bytes::Bytes;
use hyper::Method;
use hyper::header::HeaderMap;
use quick_xml::escape::escape;

use crate::ask::Ask;
use crate::client::Client;
use crate::error::{Error, Refusal};
use crate::list::BATCH_KEYS_MAX;
use crate::object::Condition;
use crate::xml;

/// Longest answer to a batch, in bytes: a failure of each of 1,000 keys of 1,024 bytes.
const ANSWER_BYTES_MAX: u64 = 8 << 20;

/// An object that is to be deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Doomed {
    /// The whole key.
    pub key: Vec<u8>,
    /// Only if it still has this ETag; endpoints that do not know such conditions delete it anyway.
    pub etag: Option<String>,
}

/// A key that was not deleted, and why.
#[derive(Debug)]
pub struct NotDeleted {
    /// The whole key.
    pub key: Vec<u8>,
    /// What was said.
    pub error: Error,
}

impl Client {
    /// Deletes objects; those that are not there count as deleted. What single keys fail with is the answer, what a whole request
    /// fails with is the error; some may be deleted then. May be dropped.
    pub async fn delete(&self, keys: &[Vec<u8>]) -> Result<Vec<NotDeleted>, Error> {
        let doomed = keys.iter().map(|key| Doomed {
            key: key.clone(),
            etag: None,
        });
        self.delete_these(&doomed.collect::<Vec<_>>()).await
    }

    /// The same, each only if it is still what it was. May be dropped.
    pub async fn delete_these(&self, doomed: &[Doomed]) -> Result<Vec<NotDeleted>, Error> {
        let mut failed = Vec::new();
        let (batched, single): (Vec<_>, Vec<_>) = doomed.iter().partition(|doomed| can_say(&doomed.key));
        for batch in batched.chunks(BATCH_KEYS_MAX) {
            failed.extend(self.delete_batch(batch).await?);
        }
        for Doomed { key, etag } in single {
            let condition = etag.clone().map_or(Condition::Always, Condition::Is);
            match self.delete_if(key, &condition).await {
                Ok(()) => {}
                Err(error) if error.is_general() => return Err(error),
                Err(error) => failed.push(NotDeleted {
                    key: key.clone(),
                    error,
                }),
            }
        }
        Ok(failed)
    }

    /// Deletes one object. May be dropped.
    pub async fn delete_one(&self, key: &[u8]) -> Result<(), Error> {
        self.delete_if(key, &Condition::Always).await
    }

    async fn delete_if(&self, key: &[u8], condition: &Condition) -> Result<(), Error> {
        let mut headers = HeaderMap::new();
        condition.add_to(&mut headers);
        let ask = Ask {
            method: Method::DELETE,
            key: Some(key),
            headers,
            ..Ask::default()
        };
        match self.ask(&ask, ANSWER_BYTES_MAX).await {
            Ok(_) => Ok(()),
            Err(Error::NotFound(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn delete_batch(&self, doomed: &[&Doomed]) -> Result<Vec<NotDeleted>, Error> {
        let body = Bytes::from(delete_request(doomed));
        let query: Vec<(&str, &[u8])> = vec![("delete", b"")];
        let ask = Ask {
            method: Method::POST,
            query,
            body,
            may_fail_late: true,
            ..Ask::default()
        };
        let answer = self.ask(&ask, ANSWER_BYTES_MAX).await?;
        let deleted: xml::Deleted = xml::parse(&answer)?;
        let failed = deleted
            .errors
            .into_iter()
            .filter(|error| error.code != "NoSuchKey")
            .map(|error| {
                let target = format!("DELETE s3://{}/{}", self.location().bucket, error.key);
                let refusal = Refusal {
                    target,
                    code: error.code,
                    message: error.message,
                    ..Refusal::default()
                };
                NotDeleted {
                    key: error.key.into_bytes(),
                    error: refusal.into_error(),
                }
            });
        Ok(failed.collect())
    }
}

/// XML 1.0 has no way to write other bytes than UTF-8, nor most control characters; CR does not survive line ends.
fn can_say(key: &[u8]) -> bool {
    let is_char = |char| matches!(char, '\t' | '\n' | '\u{20}'..='\u{fffd}' | '\u{10000}'..='\u{10ffff}');
    std::str::from_utf8(key).is_ok_and(|text| text.chars().all(is_char))
}

/// `DeleteObjects`: only failures are answered.
fn delete_request(doomed: &[&Doomed]) -> String {
    let mut text = String::from("<Delete xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Quiet>true</Quiet>");
    for Doomed { key, etag } in doomed {
        let key = String::from_utf8_lossy(key);
        text += &format!("<Object><Key>{}</Key>", escape(key.as_ref()));
        if let Some(etag) = etag {
            text += &format!("<ETag>{}</ETag>", escape(format!("\"{etag}\"")));
        }
        text += "</Object>";
    }
    text + "</Delete>"
}

#[cfg(test)]
mod tests {
    use super::{Doomed, can_say};
    use crate::fixtures::{Server, answer};

    #[tokio::test]
    async fn keys_that_xml_cannot_say_are_deleted_one_by_one() {
        let body = "<DeleteResult><Error><Key>a&amp;b</Key><Code>AccessDenied</Code><Message>No</Message></Error></DeleteResult>";
        let server = Server::start(vec![answer(200, "", body), answer(404, "", ""), answer(204, "", "")]).await;
        let doomed = [
            (&b"a&b"[..], None),
            (b"\x01", Some("e1")),
            (b"c", Some("e2")),
            (b"\xff", None),
        ];
        let doomed = doomed.map(|(key, etag)| Doomed {
            key: key.to_vec(),
            etag: etag.map(str::to_owned),
        });
        let failed = server.client().delete_these(&doomed).await.unwrap();
        assert_eq!((failed.len(), failed[0].key.as_slice()), (1, &b"a&b"[..]));
        let asked = server.asked();
        assert!(
            asked[0].starts_with("POST /site?delete= ")
                && asked[0].contains("<Key>a&amp;b</Key></Object><Object><Key>c</Key><ETag>&quot;e2&quot;</ETag><")
        );
        assert!(asked[1].contains("if-match: \"e1\"\r\n"), "{}", asked[1]);
        assert!(asked[1].starts_with("DELETE /site/%01 ") && asked[2].starts_with("DELETE /site/%FF "));
    }

    #[test]
    fn only_what_survives_xml_is_said_in_it() {
        for (key, expected) in [
            (&b"a<&\"\xc3\xbc"[..], true),
            (b"\x01", false),
            (b"a\rb", false),
            (b"\xff", false),
        ] {
            assert_eq!(can_say(key), expected, "{key:?}");
        }
    }
}
