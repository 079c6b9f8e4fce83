//! Routes: which names get which headers, compression, or are not published. A TOML file of the user.

use globset::{GlobBuilder, GlobMatcher};
use regex::Regex;
use s3::Headers;

use crate::types;

/// A file of routes that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RoutesError {
    /// Not TOML, or other keys than those that are known.
    #[error("The routes cannot be read: {0}")]
    Toml(#[from] toml_edit::de::Error),
    /// Neither `match` nor `regex`, or both.
    #[error("Route {0} needs `match` (a glob) or `regex`, and not both")]
    Pattern(usize),
    /// A glob with a mistake.
    #[error("Route {0}: {1}")]
    Glob(usize, #[source] globset::Error),
    /// A regular expression with a mistake.
    #[error("Route {0}: {1}")]
    Regex(usize, #[source] regex::Error),
}

/// How bytes are stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Compress {
    /// As they are.
    #[default]
    None,
    /// With `Content-Encoding: gzip`, where that is shorter.
    Gzip,
    /// With `Content-Encoding: br`, where that is shorter.
    Brotli,
}

#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    route: Vec<Entry>,
}

#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    r#match: Option<String>,
    regex: Option<String>,
    publish: Option<bool>,
    compress: Option<Compress>,
    #[serde(default)]
    headers: Headers,
}

#[derive(Clone, Debug)]
enum Pattern {
    Glob(GlobMatcher),
    Regex(Regex),
}

#[derive(Clone, Debug)]
struct Route {
    pattern: Pattern,
    publish: Option<bool>,
    compress: Option<Compress>,
    headers: Headers,
}

/// Routes, in the order of their file: all that match apply, later ones win.
#[derive(Clone, Debug, Default)]
pub struct Routes(Vec<Route>);

/// How one object is to be stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wish {
    pub headers: Headers,
    pub compress: Compress,
}

impl Wish {
    /// For comparing with what was stored; any other headers have another.
    pub fn headers_hash(&self) -> [u8; 16] {
        let mut hasher = blake3::Hasher::new_derive_key("gridbackup 2026 publish headers");
        let headers = &self.headers;
        let named = [
            &headers.content_type,
            &headers.content_encoding,
            &headers.content_disposition,
            &headers.content_language,
            &headers.cache_control,
            &headers.expires,
            &headers.acl,
            &headers.storage_class,
            &headers.redirect,
        ];
        let named = named
            .into_iter()
            .map(|value| value.as_deref().map_or(String::new(), |value| format!("={value}")));
        let metadata = headers.metadata.iter().map(|(name, value)| format!("{name}={value}"));
        for part in named.chain(metadata) {
            hasher
                .update(&(part.len() as u64).to_le_bytes())
                .update(part.as_bytes());
        }
        let mut short = [0; 16];
        short.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
        short
    }
}

impl Routes {
    /// Reads a file's text.
    pub fn parse(text: &str) -> Result<Self, RoutesError> {
        let file: File = toml_edit::de::from_str(text)?;
        let routes = file.route.into_iter().enumerate().map(|(index, entry)| {
            let number = index + 1;
            let pattern = match (&entry.r#match, &entry.regex) {
                (Some(glob), None) => {
                    // As in .gitignore: without a slash it is about the name, in any folder.
                    let full = if glob.contains('/') {
                        glob.trim_start_matches('/').to_owned()
                    } else {
                        format!("**/{glob}")
                    };
                    let glob = GlobBuilder::new(&full).literal_separator(true).build();
                    Pattern::Glob(
                        glob.map_err(|error| RoutesError::Glob(number, error))?
                            .compile_matcher(),
                    )
                }
                (None, Some(regex)) => {
                    Pattern::Regex(Regex::new(regex).map_err(|error| RoutesError::Regex(number, error))?)
                }
                _ => return Err(RoutesError::Pattern(number)),
            };
            Ok(Route {
                pattern,
                publish: entry.publish,
                compress: entry.compress,
                headers: entry.headers,
            })
        });
        routes.collect::<Result<_, _>>().map(Self)
    }

    /// How `name`, a key below the prefix, is stored; none: it is not published.
    pub(crate) fn wish(&self, name: &[u8]) -> Option<Wish> {
        let text = String::from_utf8_lossy(name);
        let mut wish = Wish {
            headers: Headers::default(),
            compress: Compress::None,
        };
        let mut is_published = true;
        for route in self.0.iter().filter(|route| route.matches(&text)) {
            is_published = route.publish.unwrap_or(is_published);
            wish.compress = route.compress.unwrap_or(wish.compress);
            overlay(&mut wish.headers, &route.headers);
        }
        let content_type = wish
            .headers
            .content_type
            .get_or_insert_with(|| types::content_type(name).to_owned());
        debug_assert!(!content_type.is_empty());
        is_published.then_some(wish)
    }
}

impl Route {
    fn matches(&self, name: &str) -> bool {
        match &self.pattern {
            Pattern::Glob(glob) => glob.is_match(name),
            Pattern::Regex(regex) => regex.is_match(name),
        }
    }
}

fn overlay(under: &mut Headers, over: &Headers) {
    let fields = [
        (&mut under.content_type, &over.content_type),
        (&mut under.content_encoding, &over.content_encoding),
        (&mut under.content_disposition, &over.content_disposition),
        (&mut under.content_language, &over.content_language),
        (&mut under.cache_control, &over.cache_control),
        (&mut under.expires, &over.expires),
        (&mut under.acl, &over.acl),
        (&mut under.storage_class, &over.storage_class),
        (&mut under.redirect, &over.redirect),
    ];
    for (under, over) in fields {
        if over.is_some() {
            under.clone_from(over);
        }
    }
    under.metadata.extend(over.metadata.clone());
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROUTES: &str = r#"
        [[route]]
        match = "*"
        headers = { acl = "public-read", cache-control = "max-age=60" }
        [[route]]
        regex = '\.(css|js)$'
        compress = "gzip"
        headers = { cache-control = "max-age=31536000", metadata = { kind = "asset" } }
        [[route]]
        match = "drafts/**"
        publish = false
    "#;

    #[test]
    fn all_matching_routes_apply_and_later_ones_win() {
        let routes = Routes::parse(ROUTES).unwrap();
        let style = routes.wish(b"deep/style.css").unwrap();
        assert_eq!(style.compress, Compress::Gzip);
        assert_eq!(style.headers.cache_control.as_deref(), Some("max-age=31536000"));
        assert_eq!(style.headers.acl.as_deref(), Some("public-read"));
        assert_eq!(style.headers.content_type.as_deref(), Some("text/css; charset=utf-8"));
        let page = routes.wish(b"index.html").unwrap();
        assert_eq!((page.compress, page.headers.metadata.len()), (Compress::None, 0));
        assert_eq!(routes.wish(b"drafts/x/y.html"), None);
        assert_ne!(page.headers_hash(), style.headers_hash());
        assert_eq!(page.headers_hash(), routes.wish(b"other.html").unwrap().headers_hash());
    }

    #[test]
    fn mistakes_are_named_by_their_route() {
        let both = "[[route]]\nmatch = 'a'\nregex = 'b'";
        assert!(matches!(Routes::parse(both), Err(RoutesError::Pattern(1))));
        assert!(matches!(
            Routes::parse("[[route]]\nregex = '('"),
            Err(RoutesError::Regex(1, _))
        ));
        assert!(matches!(
            Routes::parse("[[route]]\nmatch = '{'"),
            Err(RoutesError::Glob(1, _))
        ));
        assert!(matches!(
            Routes::parse("[[route]]\nmatch='a'\nheaders={cache='1'}"),
            Err(RoutesError::Toml(_))
        ));
    }
}
