//! Signature Version 4, in the `Authorization` header
//! (<https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html>) or in the query, which can say how long it
//! is good for (<https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-query-string-auth.html>).
//!
//! Ours, because the time has to come from us: a client whose clock is wrong signs by the server's.

use data_encoding::HEXLOWER;
use hmac::{Hmac, KeyInit, Mac};
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use jiff::Timestamp;
use sha2::{Digest, Sha256};

use crate::key::encode_with;

/// What stands for the hash of a body that is not signed: it never is with a signature in the query.
const UNSIGNED: &str = "UNSIGNED-PAYLOAD";

/// With what and for when a request is signed.
pub(crate) struct Signer<'a> {
    pub access_key: &'a str,
    pub secret_key: &'a str,
    pub region: &'a str,
    /// `s3`, or another service of Amazon's.
    pub service: &'a str,
    pub now: Timestamp,
}

/// A request, as far as it is signed. All headers are.
#[derive(Clone, Copy)]
pub(crate) struct Signed<'a> {
    pub method: &'a str,
    /// Percent-encoded.
    pub path: &'a str,
    /// As [`canonical_query`] made it.
    pub query: &'a str,
    pub headers: &'a HeaderMap,
    /// SHA-256 of the body, in hexadecimal.
    pub body_hash: &'a str,
}

/// SHA-256 in hexadecimal.
pub(crate) fn hash(bytes: &[u8]) -> String {
    HEXLOWER.encode(&Sha256::digest(bytes))
}

/// The time as in `x-amz-date`.
pub(crate) fn date(now: Timestamp) -> String {
    now.strftime("%Y%m%dT%H%M%SZ").to_string()
}

/// A query as it is sent and signed: encoded, then sorted.
pub(crate) fn canonical_query(pairs: &[(&str, &[u8])]) -> String {
    let encoded = pairs
        .iter()
        .map(|(name, value)| (encode_with(name.as_bytes(), false), encode_with(value, false)));
    let mut encoded: Vec<_> = encoded.collect();
    encoded.sort();
    let joined: Vec<_> = encoded.iter().map(|(name, value)| format!("{name}={value}")).collect();
    joined.join("&")
}

impl Signer<'_> {
    /// The `Authorization` header.
    pub fn authorization(&self, request: &Signed<'_>) -> String {
        let (credential, signed) = (self.credential(), signed_names(request.headers).join(";"));
        let signature = self.signature(request);
        format!("AWS4-HMAC-SHA256 Credential={credential},SignedHeaders={signed},Signature={signature}")
    }

    /// The query `pairs`, which takes the place of the request's, with a signature that is good for `secs` from [`Self::now`] on.
    /// It does not cover the body.
    pub fn query(
        &self,
        request: &Signed<'_>,
        pairs: &[(&str, &[u8])],
        session_token: Option<&str>,
        secs: u64,
    ) -> String {
        let signed = signed_names(request.headers).join(";");
        let (credential, date, secs) = (self.credential(), date(self.now), secs.to_string());
        let own = [
            ("X-Amz-Algorithm", "AWS4-HMAC-SHA256"),
            ("X-Amz-Credential", &credential),
            ("X-Amz-Date", &date),
            ("X-Amz-Expires", &secs),
            ("X-Amz-SignedHeaders", &signed),
        ];
        let token = session_token.map(|token| ("X-Amz-Security-Token", token));
        let own = own
            .into_iter()
            .chain(token)
            .map(|(name, value)| (name, value.as_bytes()));
        let query = canonical_query(&pairs.iter().copied().chain(own).collect::<Vec<_>>());
        let signature = self.signature(&Signed {
            query: &query,
            body_hash: UNSIGNED,
            ..*request
        });
        format!("{query}&X-Amz-Signature={signature}")
    }

    fn credential(&self) -> String {
        format!("{}/{}", self.access_key, self.scope())
    }

    fn scope(&self) -> String {
        let day = self.now.strftime("%Y%m%d");
        format!("{day}/{}/{}/aws4_request", self.region, self.service)
    }

    fn signature(&self, request: &Signed<'_>) -> String {
        let names = signed_names(request.headers);
        let mut canonical = format!("{}\n{}\n{}\n", request.method, request.path, request.query);
        for name in &names {
            let values: Vec<_> = request.headers.get_all(*name).iter().map(trimmed).collect();
            canonical += &format!("{name}:{}\n", values.join(","));
        }
        canonical += &format!("\n{}\n{}", names.join(";"), request.body_hash);
        let (date, scope) = (date(self.now), self.scope());
        let text = format!("AWS4-HMAC-SHA256\n{date}\n{scope}\n{}", hash(canonical.as_bytes()));
        let day = self.now.strftime("%Y%m%d").to_string();
        let mut key = mac(format!("AWS4{}", self.secret_key).as_bytes(), &day);
        for part in [self.region, self.service, "aws4_request"] {
            key = mac(&key, part);
        }
        HEXLOWER.encode(&mac(&key, &text))
    }
}

fn signed_names(headers: &HeaderMap) -> Vec<&str> {
    let mut names: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
    names.sort_unstable();
    names
}

/// Without outer spaces, inner ones once.
fn trimmed(value: &HeaderValue) -> String {
    let text = String::from_utf8_lossy(value.as_bytes());
    text.split(' ')
        .filter(|part| !part.is_empty())
        .collect::<Vec<_>>()
        .join(" ")
}

fn mac(key: &[u8], text: &str) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    mac.update(text.as_bytes());
    mac.finalize().into_bytes().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Amazon's published examples: key and time of all of them.
    fn signer() -> Signer<'static> {
        Signer {
            access_key: "AKIAIOSFODNN7EXAMPLE",
            secret_key: "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
            region: "us-east-1",
            service: "s3",
            now: "2013-05-24T00:00:00Z".parse().unwrap(),
        }
    }

    fn signature(method: &str, path: &str, query: &str, headers: &[(&str, &str)], body_hash: &str) -> String {
        let mut map = HeaderMap::new();
        let common = [
            ("host", "examplebucket.s3.amazonaws.com"),
            ("x-amz-content-sha256", body_hash),
        ];
        for (name, value) in headers
            .iter()
            .chain(&common)
            .chain(&[("x-amz-date", "20130524T000000Z")])
        {
            map.insert(
                HeaderName::from_bytes(name.as_bytes()).unwrap(),
                HeaderValue::from_str(value).unwrap(),
            );
        }
        let text = signer().authorization(&Signed {
            method,
            path,
            query,
            headers: &map,
            body_hash,
        });
        text.rsplit_once('=').unwrap().1.to_owned()
    }

    #[test]
    fn signatures_are_those_of_the_published_examples() {
        let empty = hash(b"");
        let range = [("range", "bytes=0-9")];
        assert_eq!(
            signature("GET", "/test.txt", "", &range, &empty),
            "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41"
        );
        let put = [
            ("date", "Fri, 24 May 2013 00:00:00 GMT"),
            ("x-amz-storage-class", "REDUCED_REDUNDANCY"),
        ];
        assert_eq!(
            signature("PUT", "/test%24file.text", "", &put, &hash(b"Welcome to Amazon S3.")),
            "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd"
        );
        let query = canonical_query(&[("prefix", b"J"), ("max-keys", b"2")]);
        assert_eq!(
            signature("GET", "/", &query, &[], &empty),
            "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7"
        );
        assert_eq!(
            signature("GET", "/", &canonical_query(&[("lifecycle", b"")]), &[], &empty),
            "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543"
        );
    }

    #[test]
    fn a_query_is_signed_as_in_the_published_example() {
        let mut headers = HeaderMap::new();
        headers.insert("host", HeaderValue::from_static("examplebucket.s3.amazonaws.com"));
        let request = Signed {
            method: "GET",
            path: "/test.txt",
            query: "",
            headers: &headers,
            body_hash: "",
        };
        let query = signer().query(&request, &[], None, 86_400);
        assert_eq!(
            query,
            "X-Amz-Algorithm=AWS4-HMAC-SHA256\
             &X-Amz-Credential=AKIAIOSFODNN7EXAMPLE%2F20130524%2Fus-east-1%2Fs3%2Faws4_request\
             &X-Amz-Date=20130524T000000Z&X-Amz-Expires=86400&X-Amz-SignedHeaders=host\
             &X-Amz-Signature=aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404"
        );
    }

    #[test]
    fn queries_are_sorted_as_they_are_sent() {
        let pairs: [(&str, &[u8]); 3] = [("b", b"x y"), ("a-c", b"\xff/"), ("a", b"")];
        assert_eq!(canonical_query(&pairs), "a=&a-c=%FF%2F&b=x%20y");
    }
}
