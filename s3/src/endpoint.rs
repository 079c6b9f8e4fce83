//! Who is asked, and how an object's address is written: `https://BUCKET.HOST/KEY` or `https://HOST/BUCKET/KEY`.

use hyper::Uri;

use crate::error::Error;
use crate::key::encode;
use crate::location::Location;

/// The region where nobody names one: what endpoints without regions expect, too.
const REGION: &str = "us-east-1";

/// Where CloudFront is asked.
const CLOUDFRONT: &str = "https://cloudfront.amazonaws.com";

/// An endpoint and a bucket there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Endpoint {
    /// `http` or `https`.
    pub scheme: String,
    /// Host and port as in the `Host` header, with the bucket in front if it is not in the path.
    pub authority: String,
    /// What stands before an encoded key: `/` or `/BUCKET/`, percent-encoded.
    pub base: String,
    /// For signatures.
    pub region: String,
}

impl Endpoint {
    /// From a location; what it leaves open comes from the environment: `AWS_ENDPOINT_URL_S3`, `AWS_ENDPOINT_URL`,
    /// `AWS_REGION`, `AWS_DEFAULT_REGION`.
    pub fn new(location: &Location, env: &dyn Fn(&str) -> Option<String>) -> Result<Self, Error> {
        let named = |names: [&str; 2]| names.into_iter().find_map(env).filter(|value| !value.is_empty());
        let region = location
            .region
            .clone()
            .or_else(|| named(["AWS_REGION", "AWS_DEFAULT_REGION"]));
        let region = region.unwrap_or_else(|| REGION.to_owned());
        let own = location
            .endpoint
            .clone()
            .or_else(|| named(["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"]));
        let is_amazon = own.is_none();
        let url = own.unwrap_or_else(|| format!("https://s3.{region}.{}", suffix(&region)));
        let uri = parsed(&url)?;
        let (scheme, authority) = (scheme(&uri), authority(&uri));
        let path = uri.path().trim_end_matches('/');
        // A dot in the bucket's name: no certificate of `*.HOST` covers it.
        let is_path_style = location
            .path_style
            .unwrap_or(!is_amazon || location.bucket.contains('.'));
        let (authority, base) = if is_path_style {
            (authority, format!("{path}/{}/", encode(location.bucket.as_bytes())))
        } else {
            (format!("{}.{authority}", location.bucket), format!("{path}/"))
        };
        Ok(Self {
            scheme,
            authority,
            base,
            region,
        })
    }

    /// CloudFront's for a distribution; `AWS_ENDPOINT_URL_CLOUDFRONT` and `AWS_ENDPOINT_URL` name others. It has one region.
    pub fn cloudfront(distribution: &str, env: &dyn Fn(&str) -> Option<String>) -> Result<Self, Error> {
        let own = ["AWS_ENDPOINT_URL_CLOUDFRONT", "AWS_ENDPOINT_URL"]
            .into_iter()
            .find_map(env);
        let url = own
            .filter(|url| !url.is_empty())
            .unwrap_or_else(|| CLOUDFRONT.to_owned());
        let uri = parsed(&url)?;
        let path = uri.path().trim_end_matches('/');
        Ok(Self {
            scheme: scheme(&uri),
            authority: authority(&uri),
            base: format!("{path}/2020-05-31/distribution/{distribution}/"),
            region: REGION.to_owned(),
        })
    }

    /// The path of a key, or of the bucket itself.
    pub fn path(&self, key: Option<&[u8]>) -> String {
        match key {
            Some(key) => format!("{}{}", self.base, encode(key)),
            // `/BUCKET` in the path style, `/` else.
            None if self.base.len() > 1 => self.base.trim_end_matches('/').to_owned(),
            None => self.base.clone(),
        }
    }
}

/// An endpoint's URL, with a host and without what does not belong there.
fn parsed(url: &str) -> Result<Uri, Error> {
    let wrong = |why| Error::Endpoint {
        endpoint: url.to_owned(),
        why,
    };
    let uri: Uri = url.parse().map_err(|_| wrong("it is not a URL"))?;
    let why = match uri.authority() {
        _ if !["http", "https"].contains(&scheme(&uri).as_str()) => "it begins neither with https:// nor with http://",
        None => "it names no host",
        Some(authority) if authority.as_str().contains('@') => "credentials do not belong into it",
        _ if uri.query().is_some() => "it has a query",
        _ => return Ok(uri),
    };
    Err(wrong(why))
}

fn scheme(uri: &Uri) -> String {
    uri.scheme_str().unwrap_or_default().to_owned()
}

fn authority(uri: &Uri) -> String {
    uri.authority()
        .map(|authority| authority.as_str().to_owned())
        .unwrap_or_default()
}

/// What Amazon's host names in a region end in.
fn suffix(region: &str) -> &'static str {
    if region.starts_with("cn-") {
        "amazonaws.com.cn"
    } else {
        "amazonaws.com"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(location: &str, env: &[(&str, &str)]) -> Result<Endpoint, Error> {
        let find = |name: &str| {
            env.iter()
                .find(|(key, _)| *key == name)
                .map(|(_, value)| (*value).to_owned())
        };
        Endpoint::new(&Location::parse(location).unwrap(), &find)
    }

    #[test]
    fn amazon_has_the_bucket_in_the_host_name_unless_it_has_a_dot() {
        let found = endpoint("s3://site", &[("AWS_REGION", "eu-west-1")]).unwrap();
        assert_eq!(
            (found.authority.as_str(), found.region.as_str()),
            ("site.s3.eu-west-1.amazonaws.com", "eu-west-1")
        );
        assert_eq!(
            (found.path(Some(b"a b")), found.path(None)),
            ("/a%20b".to_owned(), "/".to_owned())
        );
        let dotted = endpoint("s3://www.site.org", &[]).unwrap();
        assert_eq!(dotted.path(Some(b"x")), "/www.site.org/x");
        assert_eq!(
            endpoint("s3://site?region=cn-north-1", &[]).unwrap().authority,
            "site.s3.cn-north-1.amazonaws.com.cn"
        );
    }

    #[test]
    fn other_endpoints_have_it_in_the_path_unless_told_otherwise() {
        let env = [("AWS_ENDPOINT_URL", "http://127.0.0.1:9000/")];
        let found = endpoint("s3://site", &env).unwrap();
        assert_eq!(
            (found.scheme.as_str(), found.authority.as_str()),
            ("http", "127.0.0.1:9000")
        );
        assert_eq!(
            (found.path(None), found.region.as_str()),
            ("/site".to_owned(), "us-east-1")
        );
        let virtual_host = endpoint("s3://site?path-style=false", &env).unwrap();
        assert_eq!(
            (virtual_host.authority.as_str(), virtual_host.base.as_str()),
            ("site.127.0.0.1:9000", "/")
        );
        let named = endpoint("s3://site?endpoint=https://s3.example.org/gate", &env).unwrap();
        assert_eq!(named.path(Some(b"k")), "/gate/site/k");
    }

    #[test]
    fn an_endpoint_is_a_plain_url() {
        for url in ["ftp://x", "127.0.0.1:9000", "http://a:b@c", "https://", "http://x/?y=1"] {
            assert!(endpoint("s3://site", &[("AWS_ENDPOINT_URL", url)]).is_err(), "{url}");
        }
    }
}
