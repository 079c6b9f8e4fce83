//! An object as a stream of bytes that goes on where its connection broke.

use bytes::Bytes;
use hyper::header::{HeaderMap, RANGE};

use crate::ask::Ask;
use crate::client::Client;
use crate::error::Error;
use crate::headers::Meta;
use crate::object::{Condition, range_header};
use crate::transport::Body;

/// Connections that may break within one object without a byte in between.
const BREAKS_MAX: u32 = 5;

/// An object that is being read.
#[derive(Debug)]
pub struct Download {
    client: Client,
    key: Vec<u8>,
    meta: Meta,
    body: Option<Body>,
    at: u64,
    breaks: u32,
}

impl Client {
    /// Opens an object for reading; none of it is kept in memory. May be dropped.
    pub async fn download(&self, key: &[u8]) -> Result<Download, Error> {
        let answer = self
            .open(&Ask {
                key: Some(key),
                ..Ask::default()
            })
            .await?;
        let meta = Meta::from_map(answer.headers());
        let body = Some(answer.into_body());
        Ok(Download {
            client: self.clone(),
            key: key.to_vec(),
            meta,
            body,
            at: 0,
            breaks: 0,
        })
    }
}

impl Download {
    /// What is said about the object.
    pub fn meta(&self) -> &Meta {
        &self.meta
    }

    /// The next bytes; none at the end. After a break it goes on with a range of the same object, or fails with
    /// [`Error::Changed`] if that is no longer there. May be dropped.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        loop {
            let read = match &mut self.body {
                Some(body) => body.next().await,
                None => {
                    self.body = Some(self.go_on().await?);
                    continue;
                }
            };
            match read {
                Ok(Some(bytes)) => {
                    (self.at, self.breaks) = (self.at + bytes.len() as u64, 0);
                    return Ok(Some(bytes));
                }
                Ok(None) => return Ok(None),
                Err(error) if self.breaks < BREAKS_MAX && error.is_retryable() => {
                    (self.body, self.breaks) = (None, self.breaks + 1);
                }
                Err(error) => return Err(error),
            }
        }
    }

    async fn go_on(&self) -> Result<Body, Error> {
        let mut headers = HeaderMap::new();
        headers.insert(RANGE, range_header(self.at, None));
        Condition::Is(self.meta.etag.clone()).add_to(&mut headers);
        let answer = self
            .client
            .open(&Ask {
                key: Some(&self.key),
                headers,
                ..Ask::default()
            })
            .await?;
        Ok(answer.into_body())
    }
}

#[cfg(test)]
mod tests {
    use crate::fixtures::{Server, answer};

    #[tokio::test]
    async fn a_broken_download_goes_on_where_it_broke() {
        let broken = "HTTP/1.1 200 OK\r\nETag: \"e\"\r\nContent-Length: 6\r\n\r\nabc".to_owned();
        let server = Server::start(vec![broken, answer(206, "Content-Range: bytes 3-5/6\r\n", "def")]).await;
        let mut download = server.client().download(b"x").await.unwrap();
        let mut whole = Vec::new();
        while let Some(bytes) = download.next().await.unwrap() {
            whole.extend_from_slice(&bytes);
        }
        assert_eq!((whole.as_slice(), download.meta().bytes), (&b"abcdef"[..], 6));
        let asked = server.asked();
        assert!(
            asked[1].contains("range: bytes=3-\r\n") && asked[1].contains("if-match: \"e\"\r\n"),
            "{}",
            asked[1]
        );
    }
}
