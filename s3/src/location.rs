//! Where objects lie: `s3://BUCKET[/PREFIX][?endpoint=URL&region=NAME&path-style=BOOL]`.

use std::fmt;

use crate::error::Error;
use crate::key::decode;

/// Longest location, in bytes: a key may have 1,024, and an endpoint is no essay.
const LOCATION_BYTES_MAX: usize = 4096;

/// A bucket, a prefix in it, and how to reach the endpoint, as far as that was said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Location {
    /// Name of the bucket.
    pub bucket: String,
    /// What all keys begin with: empty, or ends in `/`.
    pub prefix: String,
    /// `https://HOST[:PORT]` or `http://…`; none: the environment's, else Amazon's of the region.
    pub endpoint: Option<String>,
    /// None: the environment's, else `us-east-1`.
    pub region: Option<String>,
    /// The bucket stands in the path (`true`) or in the host name; none: in the path of endpoints that are not Amazon's.
    pub path_style: Option<bool>,
}

impl Location {
    /// Parses `s3://…`. A prefix is taken as it stands (nothing is decoded in it) and gets its `/`; it cannot contain `?`.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let wrong = |why| Error::Location {
            location: text.chars().take(200).collect(),
            why,
        };
        if text.len() > LOCATION_BYTES_MAX {
            return Err(wrong("it is too long"));
        }
        let rest = text
            .strip_prefix("s3://")
            .ok_or_else(|| wrong("it does not begin with s3://"))?;
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (bucket, prefix) = path.split_once('/').unwrap_or((path, ""));
        if !is_bucket(bucket) {
            return Err(wrong("a bucket's name has 3 to 63 letters, digits, dots and hyphens"));
        }
        let mut location = Self {
            bucket: bucket.to_owned(),
            prefix: prefix.to_owned(),
            ..Self::default()
        };
        if !prefix.is_empty() && !prefix.ends_with('/') {
            location.prefix.push('/');
        }
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').ok_or_else(|| wrong("an option has no value"))?;
            let value = String::from_utf8(decode(value)).map_err(|_| wrong("an option is not UTF-8"))?;
            match name {
                "endpoint" => location.endpoint = Some(value),
                "region" => location.region = Some(value),
                "path-style" => {
                    location.path_style = Some(value.parse().map_err(|_| wrong("path-style is true or false"))?);
                }
                _ => return Err(wrong("the options are endpoint, region and path-style")),
            }
        }
        Ok(location)
    }

    /// The whole key of `name` below the prefix.
    pub fn key(&self, name: &[u8]) -> Vec<u8> {
        [self.prefix.as_bytes(), name].concat()
    }
}

/// Bucket names are part of host names and paths, so that nothing else may be in them. Old buckets have capitals and `_`.
fn is_bucket(name: &str) -> bool {
    (3..=63).contains(&name.len())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte))
        && !name.starts_with('.')
        && !name.contains("..")
}

/// Bucket and prefix, without how to get there: what the same objects are called from everywhere.
impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s3://{}/{}", self.bucket, self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_location_has_a_bucket_and_may_have_more() {
        let plain = Location::parse("s3://my.site").unwrap();
        assert_eq!((plain.bucket.as_str(), plain.prefix.as_str()), ("my.site", ""));
        let full = Location::parse("s3://site/a b/c?endpoint=http%3A%2F%2F127.0.0.1:9000&region=eu-1&path-style=false")
            .unwrap();
        assert_eq!(full.prefix, "a b/c/");
        assert_eq!(full.endpoint.as_deref(), Some("http://127.0.0.1:9000"));
        assert_eq!((full.region.as_deref(), full.path_style), (Some("eu-1"), Some(false)));
        assert_eq!(full.key(b"x\xff"), b"a b/c/x\xff");
        assert_eq!(full.to_string(), "s3://site/a b/c/");
        assert_eq!(Location::parse("s3://site/").unwrap().prefix, "");
    }

    #[test]
    fn nonsense_is_refused() {
        for text in [
            "",
            "s3:/x",
            "s3://",
            "s3://ab",
            "s3://a..b",
            "s3://host:80/x",
            "s3://a b c",
            "s3://site?x=1",
        ] {
            assert!(Location::parse(text).is_err(), "{text}");
        }
        assert!(Location::parse("s3://site?path-style=perhaps").is_err());
        assert!(Location::parse(&format!("s3://site/{}", "x".repeat(5000))).is_err());
    }
}
