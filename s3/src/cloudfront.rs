//! Telling a CloudFront distribution what not to serve from its caches any more
//! (<https://docs.aws.amazon.com/cloudfront/latest/APIReference/API_CreateInvalidation.html>).
//!
//! Leaves out: which paths those are.

use std::time::Duration;

use bytes::Bytes;
use hyper::Method;
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderValue};

use crate::ask::Ask;
use crate::client::{Client, Options};
use crate::endpoint::Endpoint;
use crate::error::Error;
use crate::location::Location;
use crate::retry::Patience;
use crate::xml;

/// Most paths that one invalidation may have, and that may be in progress
/// (<https://docs.aws.amazon.com/AmazonCloudFront/latest/DeveloperGuide/cloudfront-limits.html>).
pub const INVALIDATION_PATHS_MAX: usize = 3000;
/// Most of them that may end in `*` (ibid.).
pub const INVALIDATION_WILDCARDS_MAX: usize = 15;
/// Longest answer, in bytes: a distribution's configuration has a few KiB, and may have hundreds of origins.
const ANSWER_BYTES_MAX: u64 = 4 << 20;
/// Chosen: some four minutes on average, because earlier invalidations take minutes to end.
const PATIENCE: Patience = Patience {
    attempts_max: 20,
    first: Duration::from_millis(500),
    longest: Duration::from_secs(30),
};

/// A distribution.
#[derive(Clone, Debug)]
pub struct Distribution(Client);

/// Where a distribution gets objects from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// `BUCKET.s3.REGION.amazonaws.com`, or another host.
    pub domain: String,
    /// What is put before paths; empty or with `/` in front and none at the end.
    pub path: String,
}

impl Distribution {
    /// By its identifier. Nothing is sent yet.
    pub fn new(id: &str, options: &Options) -> Result<Self, Error> {
        Self::within(id, options, &|name| std::env::var(name).ok())
    }

    fn within(id: &str, options: &Options, env: &dyn Fn(&str) -> Option<String>) -> Result<Self, Error> {
        if id.is_empty() || !id.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return Err(Error::Distribution(id.to_owned()));
        }
        let location = Location {
            bucket: id.to_owned(),
            ..Location::default()
        };
        let endpoint = Endpoint::cloudfront(id, env)?;
        Client::of_service("cloudfront", location, endpoint, options, PATIENCE).map(Self)
    }

    /// Where it gets objects from. May be dropped.
    pub async fn origins(&self) -> Result<Vec<Origin>, Error> {
        let ask = Ask {
            key: Some(b"config"),
            ..Ask::default()
        };
        let config: xml::DistributionConfig = xml::parse(&self.0.ask(&ask, ANSWER_BYTES_MAX).await?)?;
        let origins = config.origins.items.origins.into_iter().map(|origin| Origin {
            domain: origin.domain_name,
            path: origin.origin_path,
        });
        Ok(origins.collect())
    }

    /// Begins to forget paths, at most [`INVALIDATION_PATHS_MAX`], and waits while too many earlier ones are in progress. The same
    /// `reference` again is the same invalidation. Returns its identifier. May be dropped.
    pub async fn invalidate(&self, paths: &[String], reference: &str) -> Result<String, Error> {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/xml"));
        let ask = Ask {
            method: Method::POST,
            key: Some(b"invalidation"),
            headers,
            body: Bytes::from(xml::invalidation_request(paths, reference)),
            ..Ask::default()
        };
        let begun: xml::Invalidation = xml::parse(&self.0.ask(&ask, ANSWER_BYTES_MAX).await?)?;
        Ok(begun.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{Server, answer};

    fn distribution(server: &Server) -> Distribution {
        let url = server.url();
        let options = Options {
            keys: Some(("key".to_owned(), "secret".to_owned())),
            ..Options::default()
        };
        let env = move |name: &str| (name == "AWS_ENDPOINT_URL_CLOUDFRONT").then(|| url.clone());
        Distribution::within("E1X", &options, &env).unwrap()
    }

    #[tokio::test]
    async fn paths_are_forgotten_when_earlier_ones_have_been() {
        let busy = "<ErrorResponse><Error><Type>Sender</Type><Code>TooManyInvalidationsInProgress</Code></Error></ErrorResponse>";
        let begun = "<Invalidation xmlns=\"http://cloudfront.amazonaws.com/doc/2020-05-31/\"><Id>I1</Id><Status>InProgress</Status></Invalidation>";
        let server = Server::start(vec![answer(400, "", busy), answer(201, "", begun)]).await;
        let paths = ["/a&b".to_owned(), "/c/*".to_owned()];
        assert_eq!(distribution(&server).invalidate(&paths, "ref").await.unwrap(), "I1");
        let asked = server.asked();
        assert_eq!(asked.len(), 2);
        assert!(
            asked[1].starts_with("POST /2020-05-31/distribution/E1X/invalidation HTTP/1.1\r\n"),
            "{}",
            asked[1]
        );
        assert!(asked[1].contains("/us-east-1/cloudfront/aws4_request,"));
        assert!(asked[1].ends_with(
            "<Paths><Quantity>2</Quantity><Items><Path>/a&amp;b</Path><Path>/c/*</Path></Items></Paths>\
             <CallerReference>ref</CallerReference></InvalidationBatch>"
        ));
    }

    #[tokio::test]
    async fn origins_tell_what_stands_before_paths() {
        let config = "<DistributionConfig xmlns=\"x\"><CallerReference>r</CallerReference><Origins><Quantity>2</Quantity><Items>\
            <Origin><Id>1</Id><DomainName>site.s3.eu-1.amazonaws.com</DomainName><OriginPath>/www</OriginPath></Origin>\
            <Origin><Id>2</Id><DomainName>x.org</DomainName><OriginPath></OriginPath></Origin></Items></Origins></DistributionConfig>";
        let server = Server::start(vec![answer(200, "", config)]).await;
        let origin = |domain: &str, path: &str| Origin {
            domain: domain.to_owned(),
            path: path.to_owned(),
        };
        let expected = [origin("site.s3.eu-1.amazonaws.com", "/www"), origin("x.org", "")];
        assert_eq!(distribution(&server).origins().await.unwrap(), expected);
    }

    #[test]
    fn identifiers_are_letters_and_digits() {
        for wrong in ["", "E1/../x", "arn:x"] {
            assert!(matches!(
                Distribution::new(wrong, &Options::default()),
                Err(Error::Distribution(_))
            ));
        }
    }
}
