//! The part of URI templates (RFC 6570) that the API uses: `{name}`, `{?a,b}` and `{?list*}`; percent coding of bytes.

use std::fmt::Write;

/// One hole of a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hole<'a> {
    /// Its variable.
    pub name: &'a str,
    /// In the query, not in the path.
    pub in_query: bool,
}

/// The holes of a template, in order.
pub fn holes(template: &str) -> Vec<Hole<'_>> {
    let expressions = template
        .split('{')
        .skip(1)
        .filter_map(|rest| rest.split_once('}').map(|(inside, _)| inside));
    expressions
        .flat_map(|inside| {
            let (names, in_query) = match inside.strip_prefix('?') {
                Some(names) => (names, true),
                None => (inside, false),
            };
            names.split(',').map(move |name| Hole {
                name: name.trim_end_matches('*'),
                in_query,
            })
        })
        .collect()
}

/// The template without its query: what a router matches.
pub fn path(template: &str) -> &str {
    template.split("{?").next().unwrap_or(template)
}

/// Fills the holes. A variable has any number of values: in the path the first counts, in the query all do.
pub fn expand(template: &str, values: &dyn Fn(&str) -> Vec<Vec<u8>>) -> String {
    let mut expanded = String::new();
    let mut rest = path(template);
    while let Some((before, after)) = rest.split_once('{') {
        let (name, after) = after.split_once('}').unwrap_or((after, ""));
        expanded.push_str(before);
        let value = values(name).into_iter().next().unwrap_or_default();
        expanded.push_str(&encode(&value));
        rest = after;
    }
    expanded.push_str(rest);
    let mut separator = '?';
    for hole in holes(template).iter().filter(|hole| hole.in_query) {
        for value in values(hole.name) {
            let _infallible = write!(expanded, "{separator}{}={}", hole.name, encode(&value));
            separator = '&';
        }
    }
    expanded
}

/// Percent-encodes all but unreserved characters (RFC 3986 §2.3).
pub fn encode(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for &byte in bytes {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            text.push(byte as char);
        } else {
            let _infallible = write!(text, "%{byte:02X}");
        }
    }
    text
}

/// Decodes percent-encoded bytes; `None` if a `%` is not followed by two hexadecimal digits.
pub fn decode(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        if first == b'%' {
            let digits = tail.get(..2)?;
            let pair = data_encoding::HEXLOWER_PERMISSIVE.decode(digits).ok()?;
            bytes.extend(pair);
            rest = &tail[2..];
        } else {
            bytes.push(first);
            rest = tail;
        }
    }
    Some(bytes)
}

/// The pairs of a query.
pub fn query(query: &str) -> Option<Vec<(String, Vec<u8>)>> {
    query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            Some((String::from_utf8(decode(name)?).ok()?, decode(value)?))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn templates_expand_as_rfc_6570_has_it() {
        let values = |name: &str| -> Vec<Vec<u8>> {
            match name {
                "id" => vec![b"a/b".to_vec()],
                "path" => vec![b"/x y".to_vec(), b"\xff".to_vec()],
                _ => Vec::new(),
            }
        };
        assert_eq!(
            expand("/s/{id}/e{?path*,none}", &values),
            "/s/a%2Fb/e?path=%2Fx%20y&path=%FF"
        );
        assert_eq!(expand("/s", &values), "/s");
        assert_eq!(path("/s/{id}/e{?path*}"), "/s/{id}/e");
        assert_eq!(holes("/s/{id}{?path*}").len(), 2);
    }

    #[test]
    fn a_truncated_escape_is_refused() {
        assert_eq!(decode("a%2"), None);
        assert_eq!(decode("%zz"), None);
    }

    proptest! {
        #[test]
        fn any_bytes_survive_the_query(value in proptest::collection::vec(any::<u8>(), 0..40)) {
            let text = format!("k={}", encode(&value));
            prop_assert_eq!(query(&text), Some(vec![("k".to_owned(), value)]));
        }
    }
}
