//! Routes: which names get which headers, compression, or are not published; redirects; how made pages look. A TOML file of the user.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use globset::{GlobBuilder, GlobMatcher};
use regex::Regex;
use s3::Headers;

use crate::mark::Mark;
use crate::template::{TEMPLATE_BYTES_MAX, Template, TemplateError};
use crate::types;

/// Longest file of routes, in bytes.
const ROUTES_BYTES_MAX: u64 = 1 << 20;

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
    /// A name that only gridbackup may give.
    #[error("Route {number} gives the metadata `{name}`: names that begin with `gridbackup` are its own marks")]
    Metadata {
        /// Which, from 1.
        number: usize,
        /// The name.
        name: String,
    },
    /// A redirect that leads nowhere, or from nowhere.
    #[error("The redirect from `{from}` to `{to}` cannot be used: {why}")]
    Redirect {
        /// What it is at.
        from: String,
        /// What it leads to.
        to: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The template of made pages.
    #[error("The template `{path}` cannot be used: {source}", path = .path.display())]
    Template {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: TemplateError,
    },
    /// A file.
    #[error("`{path}` cannot be read: {source}", path = .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
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
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct File {
    #[serde(default)]
    route: Vec<Entry>,
    #[serde(default)]
    redirect: Vec<Redirect>,
    index_pages: Option<IndexPages>,
}

#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Redirect {
    from: String,
    to: String,
}

#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct IndexPages {
    name: Option<String>,
    template: Option<PathBuf>,
    stylesheet: Option<String>,
    #[serde(default)]
    short_links: bool,
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
pub struct Routes {
    routes: Vec<Route>,
    redirects: BTreeMap<Vec<u8>, String>,
    /// How pages are made for folders without one; none: the file says nothing about them.
    pub(crate) folder_pages: Option<FolderPageOptions>,
}

/// How pages are made.
#[derive(Clone, Debug, Default)]
pub(crate) struct FolderPageOptions {
    /// Of the outermost folder.
    pub name: Option<String>,
    pub template: Option<Template>,
    /// What is linked to instead of the built-in style.
    pub stylesheet: Option<String>,
    pub short_links: bool,
}

/// How one object is to be stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wish {
    pub headers: Headers,
    pub compress: Compress,
}

impl Wish {
    /// With the file's mode in the metadata, as rclone writes it: when it changes, so do the headers.
    pub fn with_mode(mut self, mode: u32) -> Self {
        let metadata = &mut self.headers.metadata;
        metadata.entry("mode".to_owned()).or_insert_with(|| format!("{mode:o}"));
        self
    }

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
    /// Reads a file, and the template that it names beside it.
    pub fn read(path: &Path) -> Result<Self, RoutesError> {
        let folder = path.parent().unwrap_or(Path::new(""));
        Self::parse_in(&text(path, ROUTES_BYTES_MAX)?, folder)
    }

    /// Reads a file's text; a template lies in the current folder.
    pub fn parse(text: &str) -> Result<Self, RoutesError> {
        Self::parse_in(text, Path::new(""))
    }

    fn parse_in(text: &str, folder: &Path) -> Result<Self, RoutesError> {
        let file: File = toml_edit::de::from_str(text)?;
        let folder_pages = file.index_pages.map(|pages| pages.read(folder)).transpose()?;
        let mut redirects = BTreeMap::new();
        for redirect in file.redirect {
            redirect.add_to(&mut redirects)?;
        }
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
            let mut names = entry.headers.metadata.keys();
            if let Some(name) = names.find(|name| name.to_ascii_lowercase().starts_with(Mark::NAME)) {
                return Err(RoutesError::Metadata {
                    number,
                    name: name.clone(),
                });
            }
            Ok(Route {
                pattern,
                publish: entry.publish,
                compress: entry.compress,
                headers: entry.headers,
            })
        });
        Ok(Self {
            routes: routes.collect::<Result<_, _>>()?,
            redirects,
            folder_pages,
        })
    }

    /// Names that lead elsewhere, in order.
    pub(crate) fn redirects(&self) -> impl Iterator<Item = &[u8]> {
        self.redirects.keys().map(Vec::as_slice)
    }

    /// How what has no file is stored: redirects and made pages.
    pub(crate) fn wish_for_made(&self, name: &[u8]) -> Option<Wish> {
        let mut wish = self.wish(name)?;
        match self.redirects.get(name) {
            Some(to) => (wish.headers.redirect, wish.compress) = (Some(to.clone()), Compress::None),
            None => {
                let generated = ("generated".to_owned(), "true".to_owned());
                wish.headers.metadata.extend([generated]);
            }
        }
        let made = (Mark::MADE.to_owned(), "true".to_owned());
        wish.headers.metadata.extend([made]);
        Some(wish)
    }

    /// How `name`, a key below the prefix, is stored; none: it is not published.
    pub(crate) fn wish(&self, name: &[u8]) -> Option<Wish> {
        let text = String::from_utf8_lossy(name);
        let mut wish = Wish {
            headers: Headers::default(),
            compress: Compress::None,
        };
        let mut is_published = true;
        for route in self.routes.iter().filter(|route| route.matches(&text)) {
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

impl Redirect {
    fn add_to(self, redirects: &mut BTreeMap<Vec<u8>, String>) -> Result<(), RoutesError> {
        // https://docs.aws.amazon.com/AmazonS3/latest/userguide/how-to-page-redirect.html
        let is_target = ["/", "http://", "https://"]
            .iter()
            .any(|start| self.to.starts_with(start));
        let from = self.from.trim_start_matches('/').as_bytes().to_vec();
        let why = match () {
            () if from.is_empty() => "`from` is a name below the folder",
            () if !is_target => "`to` begins with / or is a URL",
            () if !self.to.bytes().all(|byte| byte.is_ascii_graphic()) => {
                "`to` is percent-encoded where it is not ASCII"
            }
            () if redirects.contains_key(&from) => "another one has the same `from`",
            () => {
                redirects.insert(from, self.to);
                return Ok(());
            }
        };
        let (from, to) = (self.from, self.to);
        Err(RoutesError::Redirect { from, to, why })
    }
}

impl IndexPages {
    fn read(self, folder: &Path) -> Result<FolderPageOptions, RoutesError> {
        let template = self.template.map(|name| {
            let path = folder.join(name);
            let text = text(&path, TEMPLATE_BYTES_MAX)?;
            Template::parse(&text).map_err(|source| RoutesError::Template { path, source })
        });
        Ok(FolderPageOptions {
            name: self.name,
            template: template.transpose()?,
            stylesheet: self.stylesheet,
            short_links: self.short_links,
        })
    }
}

fn text(path: &Path, bytes_max: u64) -> Result<String, RoutesError> {
    let read = || {
        if std::fs::metadata(path)?.len() > bytes_max {
            return Err(std::io::Error::other("it is too long"));
        }
        std::fs::read_to_string(path)
    };
    read().map_err(|source| RoutesError::Io {
        path: path.to_owned(),
        source,
    })
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
    fn redirects_are_headers_of_names_without_files() {
        let routes = Routes::parse(
            "[[redirect]]\nfrom = '/old/page.html'\nto = '/new/page.html'\n[[redirect]]\nfrom = 'a'\nto = 'https://x.org/'\n\
             [[route]]\nmatch = '*'\ncompress = 'gzip'\nheaders = { cache-control = 'no-cache' }",
        );
        let routes = routes.unwrap();
        assert!(routes.redirects().eq([&b"a"[..], b"old/page.html"]));
        let wish = routes.wish_for_made(b"old/page.html").unwrap();
        assert_eq!(
            (wish.headers.redirect.as_deref(), wish.compress),
            (Some("/new/page.html"), Compress::None)
        );
        assert_eq!(wish.headers.cache_control.as_deref(), Some("no-cache"));
        let page = routes.wish_for_made(b"index.html").unwrap();
        assert_eq!(
            (page.headers.metadata["generated"].as_str(), page.compress),
            ("true", Compress::Gzip)
        );
        assert!(
            [wish, page]
                .iter()
                .all(|made| made.headers.metadata.contains_key(Mark::MADE))
        );
        let own = Routes::parse("[[route]]\nmatch = '*'\nheaders = { metadata = { Gridbackup-made = 'x' } }");
        assert!(matches!(own, Err(RoutesError::Metadata { number: 1, .. })));
        let wrong = [
            "from = ''\nto = '/x'",
            "from = 'a'\nto = 'x'",
            "from = 'a'\nto = '/ü'",
            "from = '/'\nto = '/x'",
        ];
        for wrong in wrong {
            let parsed = Routes::parse(&format!("[[redirect]]\n{wrong}"));
            assert!(matches!(parsed, Err(RoutesError::Redirect { .. })), "{wrong}");
        }
        let twice = "[[redirect]]\nfrom = 'a'\nto = '/x'\n".repeat(2);
        assert!(Routes::parse(&twice).unwrap_err().to_string().contains("same `from`"));
    }

    #[test]
    fn a_template_lies_beside_the_routes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("routes.toml");
        std::fs::write(&path, "[index-pages]\ntemplate = 'list.html'").unwrap();
        assert!(
            matches!(Routes::read(&path), Err(RoutesError::Io { path, .. }) if path == dir.path().join("list.html"))
        );
        std::fs::write(dir.path().join("list.html"), "no rows").unwrap();
        assert!(matches!(Routes::read(&path), Err(RoutesError::Template { .. })));
        std::fs::write(dir.path().join("list.html"), "{{rows}}").unwrap();
        assert!(Routes::read(&path).unwrap().folder_pages.unwrap().template.is_some());
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
