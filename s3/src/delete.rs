//! Deleting objects, up to a thousand in a request.

use bytes::Bytes;
use hyper::Method;

use crate::client::{Ask, Client};
use crate::error::{Error, Refusal};
use crate::list::PAGE_KEYS_MAX;
use crate::xml;

/// Longest answer to a batch, in bytes: a failure of each of 1,000 keys of 1,024 bytes.
const ANSWER_BYTES_MAX: u64 = 8 << 20;

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
        let mut failed = Vec::new();
        let (batched, single): (Vec<_>, Vec<_>) = keys.iter().partition(|key| xml::can_say(key));
        for batch in batched.chunks(PAGE_KEYS_MAX) {
            failed.extend(self.delete_batch(batch).await?);
        }
        for key in single {
            match self.delete_one(key).await {
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
        let ask = Ask {
            method: Method::DELETE,
            key: Some(key),
            ..Ask::default()
        };
        match self.ask(&ask, ANSWER_BYTES_MAX).await {
            Ok(_) => Ok(()),
            Err(Error::NotFound(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn delete_batch(&self, keys: &[&Vec<u8>]) -> Result<Vec<NotDeleted>, Error> {
        let body = Bytes::from(xml::delete_request(keys));
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

#[cfg(test)]
mod tests {
    use crate::fixtures::{Server, answer};

    #[tokio::test]
    async fn keys_that_xml_cannot_say_are_deleted_one_by_one() {
        let body = "<DeleteResult><Error><Key>a&amp;b</Key><Code>AccessDenied</Code><Message>No</Message></Error></DeleteResult>";
        let server = Server::start(vec![answer(200, "", body), answer(404, "", ""), answer(204, "", "")]).await;
        let keys = [b"a&b".to_vec(), b"\x01".to_vec(), b"c".to_vec(), b"\xff".to_vec()];
        let failed = server.client().delete(&keys).await.unwrap();
        assert_eq!((failed.len(), failed[0].key.as_slice()), (1, &b"a&b"[..]));
        let asked = server.asked();
        assert!(
            asked[0].starts_with("POST /site?delete= ")
                && asked[0].contains("<Key>a&amp;b</Key></Object><Object><Key>c<")
        );
        assert!(asked[1].starts_with("DELETE /site/%01 ") && asked[2].starts_with("DELETE /site/%FF "));
    }
}
