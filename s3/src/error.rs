//! What goes wrong, by what can be done about it.

use std::time::Duration;

use hyper::StatusCode;

/// A request that did not do what it should, or could not be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not a location.
    #[error("`{location}` is not s3://BUCKET[/PREFIX]: {why}")]
    Location {
        /// What was given.
        location: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// Not a CloudFront distribution.
    #[error("`{0}` is not the identifier of a CloudFront distribution: that has letters and digits alone")]
    Distribution(String),
    /// Not an endpoint.
    #[error("The endpoint `{endpoint}` cannot be used: {why}")]
    Endpoint {
        /// What was given.
        endpoint: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// TLS cannot be set up.
    #[error("No trusted certificates for https were found: install them, or name a file in SSL_CERT_FILE")]
    Certificates(#[source] std::io::Error),
    /// The whole chain was asked.
    #[error(
        "No credentials for S3 were found: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE with a profile \
         in ~/.aws"
    )]
    NoCredentials,
    /// A place that should have credentials gave none.
    #[error("The credentials for S3 cannot be had: {0}")]
    Credentials(#[source] reqsign_core::Error),
    /// A header's value has bytes that no header may have.
    #[error("The header {name} of {target} has characters that are not printable ASCII")]
    Header {
        /// Which header.
        name: String,
        /// Which object.
        target: String,
    },
    /// No such object, bucket or upload.
    #[error("{0} does not exist")]
    NotFound(String),
    /// No such bucket, wherever in it something was asked for.
    #[error(
        "{0}: there is no such bucket at this endpoint; look at its name, the endpoint and the region, or create it"
    )]
    NoBucket(String),
    /// The condition of a put, get or copy does not hold.
    #[error("{0} was changed by somebody else")]
    Changed(String),
    /// It came, or would have come, after the time that it was signed for.
    #[error("{0} was refused because it came too late")]
    Late(String),
    /// Credentials are fine, or not, but this they may not do.
    #[error("{} refused: {}; look at the credentials and the bucket's policy", .0.target, .0.reason())]
    Denied(Refusal),
    /// The endpoint asks for patience, or has trouble of its own.
    #[error("{} failed for now: {}", .0.target, .0.reason())]
    Busy(Refusal),
    /// Any other refusal: asking again would not help.
    #[error("{} failed: {}", .0.target, .0.reason())]
    Refused(Refusal),
    /// No connection, or a broken one.
    #[error("{target} cannot be reached: {}", innermost(.source.as_ref()))]
    Network {
        /// What was asked for.
        target: String,
        /// What the library said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Nothing came for too long.
    #[error("{target} did not answer for {} s", .waited.as_secs())]
    Timeout {
        /// What was asked for.
        target: String,
        /// How long was waited.
        waited: Duration,
    },
    /// Not what the protocol says.
    #[error("The answer for {target} makes no sense: {why}")]
    Answer {
        /// What was asked for.
        target: String,
        /// What is wrong with it.
        why: String,
    },
    /// More bytes than were asked for, or than can be right.
    #[error("The answer for {target} is longer than {bytes_max} bytes")]
    TooLong {
        /// What was asked for.
        target: String,
        /// The bound.
        bytes_max: u64,
    },
    /// What should be sent could not be read.
    #[error("What should become {target} cannot be read: {source}")]
    Source {
        /// Which object.
        target: String,
        /// What the system said.
        source: std::io::Error,
    },
}

/// What an endpoint said when it refused.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Refusal {
    /// What was asked for: `PUT s3://BUCKET/KEY`.
    pub target: String,
    /// HTTP status.
    pub status: u16,
    /// S3's error code, such as `SlowDown`; may be empty.
    pub code: String,
    /// Its explanation; may be empty.
    pub message: String,
    /// When to come again (`Retry-After`).
    pub retry_after: Option<Duration>,
    /// The bucket's region, if that is another than was asked. Boxed, because errors are passed about by value.
    pub region: Option<Box<Region>>,
}

/// The name of a region, such as `eu-west-3`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Region(pub String);

impl Refusal {
    fn reason(&self) -> String {
        let elsewhere = match (&self.region, self.status) {
            (Some(region), _) => format!("; the bucket is in the region {0}: say --region {0}", region.0),
            (None, 301 | 307) => "; the bucket is elsewhere: name its --endpoint or --region".to_owned(),
            (None, _) => String::new(),
        };
        self.said() + &elsewhere
    }

    fn said(&self) -> String {
        match (self.code.as_str(), self.message.as_str()) {
            ("", _) => format!("HTTP status {}", self.status),
            (code, "") => format!("{code} ({})", self.status),
            (code, message) => format!("{code} ({}): {}", self.status, message.trim_end_matches('.')),
        }
    }

    /// The error that it is.
    pub(crate) fn into_error(self) -> Error {
        // https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html: by code first, since several share a status.
        match (self.code.as_str(), self.status) {
            ("PreconditionFailed", _) | (_, 412) => Error::Changed(self.target),
            (
                "RequestTimeout"
                | "SlowDown"
                | "ServiceUnavailable"
                | "InternalError"
                | "OperationAborted"
                | "ConditionalRequestConflict"
                | "BadDigest"
                | "IncompleteBody"
                | "Throttling"
                | "TooManyRequests"
                | "TooManyInvalidationsInProgress"
                | "RequestTimeTooSkewed"
                | "ExpiredToken",
                _,
            ) => Error::Busy(self),
            ("NoSuchBucket", _) => Error::NoBucket(self.target),
            // Some endpoints answer 403, or 400, where the region is all that is wrong.
            (_, 400..=403) if self.region.is_some() => Error::Refused(self),
            (_, 404) => Error::NotFound(self.target),
            (_, 401 | 403) => Error::Denied(self),
            (_, 408 | 425 | 429) => Error::Busy(self),
            (_, status) if status >= 500 && status != StatusCode::NOT_IMPLEMENTED => Error::Busy(self),
            _ => Error::Refused(self),
        }
    }
}

impl Error {
    /// The same request may succeed when it is made again.
    pub fn is_retryable(&self) -> bool {
        matches!(
            self,
            Self::Busy(_) | Self::Network { .. } | Self::Timeout { .. } | Self::Answer { .. }
        )
    }

    /// When the endpoint wants to be asked again.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Busy(refusal) => refusal.retry_after,
            _ => None,
        }
    }

    /// S3's code of a refusal.
    pub fn code(&self) -> Option<&str> {
        match self {
            Self::Denied(refusal) | Self::Busy(refusal) | Self::Refused(refusal) => Some(&refusal.code),
            _ => None,
        }
    }

    /// It is not about one object: no other request would fare better.
    pub fn is_general(&self) -> bool {
        let whole = ["InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidBucketName"];
        matches!(
            self,
            Self::NoCredentials
                | Self::Credentials(_)
                | Self::Certificates(_)
                | Self::Endpoint { .. }
                | Self::Network { .. }
                | Self::NoBucket(_)
        ) || self.is_elsewhere()
            || self.code().is_some_and(|code| whole.contains(&code))
    }
}

impl Error {
    /// The bucket is not where it was asked for.
    fn is_elsewhere(&self) -> bool {
        matches!(self, Self::Refused(refusal) if refusal.region.is_some() || matches!(refusal.status, 301 | 307))
    }
}

/// The cause that names the trouble: the outer ones say only that a connection failed.
fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let chain = std::iter::successors(Some(error), |error| error.source());
    chain.last().map(ToString::to_string).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(status: u16, code: &str) -> Error {
        let refusal = Refusal {
            target: "PUT s3://b/k".into(),
            status,
            code: code.into(),
            ..Refusal::default()
        };
        refusal.into_error()
    }

    #[test]
    fn trouble_of_the_endpoint_is_retried_and_refusals_are_not() {
        for (status, code) in [
            (503, "SlowDown"),
            (500, ""),
            (400, "RequestTimeout"),
            (429, ""),
            (409, "OperationAborted"),
        ] {
            assert!(refused(status, code).is_retryable(), "{status} {code}");
        }
        for (status, code) in [
            (400, "InvalidArgument"),
            (403, "AccessDenied"),
            (404, "NoSuchKey"),
            (412, ""),
            (501, ""),
        ] {
            assert!(!refused(status, code).is_retryable(), "{status} {code}");
        }
    }

    #[test]
    fn a_refusal_says_what_was_asked_and_why_not() {
        let refusal = Refusal {
            target: "PUT s3://b/k".into(),
            status: 400,
            code: "InvalidArgument".into(),
            message: "Bad ACL.".into(),
            ..Refusal::default()
        };
        assert_eq!(
            refusal.into_error().to_string(),
            "PUT s3://b/k failed: InvalidArgument (400): Bad ACL"
        );
        assert_eq!(refused(404, "").to_string(), "PUT s3://b/k does not exist");
        assert!(matches!(refused(404, "NoSuchBucket"), Error::NoBucket(_)));
    }

    /// Amazon answers 301, 400 or 403, and names the region in a header or in the body.
    #[test]
    fn a_bucket_in_another_region_is_said_to_be_there() {
        for (status, code) in [
            (301, "PermanentRedirect"),
            (400, "AuthorizationHeaderMalformed"),
            (403, ""),
        ] {
            let refusal = Refusal {
                target: "HEAD s3://b".into(),
                status,
                code: code.into(),
                region: Some(Box::new(Region("eu-west-3".into()))),
                ..Refusal::default()
            };
            let error = refusal.into_error();
            assert!(error.to_string().contains("--region eu-west-3"), "{error}");
            assert!(error.is_general() && !error.is_retryable());
        }
        assert!(refused(301, "").to_string().contains("--region"));
    }
}
