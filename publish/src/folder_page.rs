//! The page of a folder that has none: a table of what lies in it. The same folder always becomes the same bytes.
//!
//! Leaves out: when one is needed (`walk`), and how it is stored (`planner`).

use std::fmt::Write;
use std::sync::Arc;

use jiff::Timestamp;
use s3::encode;

use crate::routes::{FolderPageOptions, Routes};
use crate::stat::Stat;
use crate::template::{Filling, Template};

/// Most bytes of rows: what comes after is only counted. Chosen: some 20,000 names, more than a browser shows gladly.
const ROWS_BYTES_MAX: usize = 4 << 20;
/// Where folders' own pages are.
const PAGE: &str = "index.html";

/// Makes pages; clones are cheap.
#[derive(Clone, Debug)]
pub(crate) struct FolderPages(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    routes: Routes,
    /// What names for routes are without.
    prefix: Vec<u8>,
    /// The key of the outermost folder: longer than the prefix where keys are whole paths.
    root: Vec<u8>,
    /// The name of its outermost folder.
    name: String,
    template: Template,
    style: String,
    /// Folders are linked to as `name/`, which web site endpoints answer with their page, and not as `name/index.html`.
    short_links: bool,
}

/// What a page lists so far.
#[derive(Default)]
struct Rows {
    html: String,
    folders: u64,
    files: u64,
    bytes: u64,
    left_out: u64,
}

impl FolderPages {
    /// For keys below `prefix` and `root`, the outermost folder, which is called `name` if the options do not say otherwise.
    pub fn new(options: &FolderPageOptions, routes: Routes, prefix: &[u8], root: &[u8], name: &str) -> Self {
        let built_in = || Template::parse(include_str!("folder_page/page.html"));
        let template = options.template.clone().map_or_else(built_in, Ok);
        let style = match &options.stylesheet {
            Some(link) => format!("<link rel=\"stylesheet\" href=\"{}\">", escape(link)),
            None => format!("<style>\n{}</style>", include_str!("folder_page/style.css")),
        };
        Self(Arc::new(Inner {
            routes,
            prefix: prefix.to_vec(),
            root: root.to_vec(),
            name: options.name.clone().unwrap_or_else(|| name.to_owned()),
            template: template.expect("the built-in template has no mistakes: a test uses it"),
            style,
            short_links: options.short_links,
        }))
    }

    /// Whether the folder with this key, which ends in `/` or is the prefix, may have a page: hidden ones have none.
    pub fn has(&self, key: &[u8]) -> bool {
        let below = self.below_root(key);
        !below.split(|&byte| byte == b'/').any(|part| part.starts_with(b"."))
    }

    fn below_root<'a>(&self, key: &'a [u8]) -> &'a [u8] {
        key.strip_prefix(self.0.root.as_slice()).unwrap_or(key)
    }

    /// The page of the folder with this key; none: its route does not publish it. Folders and files come in the order in which they
    /// are listed; hidden ones, and those that are not published, are left out.
    pub fn render<'a>(
        &self,
        key: &[u8],
        folders: impl Iterator<Item = &'a [u8]>,
        files: impl Iterator<Item = (&'a [u8], Stat)>,
    ) -> Option<Vec<u8>> {
        let (inner, folder) = (&*self.0, self.below_root(key));
        let name = key.strip_prefix(inner.prefix.as_slice()).unwrap_or(key);
        let full = |parts: &[&[u8]]| [&[name][..], parts].concat().concat();
        inner.routes.wish(&full(&[PAGE.as_bytes()]))?;
        let is_shown = |part: &[u8], name: &[u8]| !part.starts_with(b".") && inner.routes.wish(name).is_some();
        let end = if inner.short_links { "/" } else { "/index.html" };
        let mut rows = Rows::default();
        if !folder.is_empty() {
            let up = if inner.short_links { "../" } else { "../index.html" };
            rows.html = format!("<tr><td><a href=\"{up}\">../</a></td><td></td><td></td></tr>\n");
        }
        for part in folders.filter(|part| is_shown(part, &full(&[part, b"/", PAGE.as_bytes()]))) {
            rows.folders += 1;
            let href = format!("{}{end}", encode(part));
            rows.add(&href, &format!("{}/", visible(part)), None);
        }
        for (part, stat) in files.filter(|(part, _)| is_shown(part, &full(&[part]))) {
            rows.files += 1;
            rows.bytes += stat.bytes;
            rows.add(&encode(part), &visible(part), Some(stat));
        }
        let path = visible(folder);
        let filling = Filling {
            title: &format!("{}/{path}", escape(&inner.name)),
            style: &inner.style,
            breadcrumbs: &self.breadcrumbs(folder),
            count: &rows.count(),
        };
        let page = inner.template.fill(&filling, std::mem::take(&mut rows.html));
        Some(page.into_bytes())
    }

    fn breadcrumbs(&self, folder: &[u8]) -> String {
        let text = String::from_utf8_lossy(folder);
        let inner: Vec<&str> = text.split_terminator('/').collect();
        let end = if self.0.short_links { "" } else { PAGE };
        let names = std::iter::once(self.0.name.as_str()).chain(inner.iter().copied());
        let links = names.enumerate().map(|(depth, name)| {
            let (up, name) = (inner.len() - depth, visible(name.as_bytes()));
            match up {
                0 => format!("<b>{name}</b>"),
                _ => format!("<a href=\"{}{end}\">{name}</a>", "../".repeat(up)),
            }
        });
        links.collect::<Vec<_>>().join(" / ")
    }
}

impl Rows {
    fn add(&mut self, href: &str, name: &str, stat: Option<Stat>) {
        if self.html.len() > ROWS_BYTES_MAX {
            self.left_out += 1;
            return;
        }
        let (time, bytes) = stat.map_or_else(Default::default, |stat| (time(stat.mtime_ns), size(stat.bytes)));
        writeln!(
            self.html,
            "<tr><td><a href=\"{href}\"><bdi>{name}</bdi></a></td><td>{time}</td><td>{bytes}</td></tr>"
        )
        .expect("writing to a String does not fail");
    }

    fn count(&self) -> String {
        let of = |count: u64, one: &str| format!("{count} {one}{}", if count == 1 { "" } else { "s" });
        let (folders, files, bytes) = (of(self.folders, "folder"), of(self.files, "file"), size(self.bytes));
        match self.left_out {
            0 => format!("{folders}, {files}, {bytes}"),
            left_out => format!("{folders}, {files}, {bytes}; {left_out} of them are not listed"),
        }
    }
}

/// To the minute, in UTC, as it is read everywhere.
fn time(mtime_ns: i64) -> String {
    let time = Timestamp::from_nanosecond(mtime_ns.into()).unwrap_or_default();
    time.strftime("<time datetime=\"%Y-%m-%dT%H:%M:%SZ\">%Y-%m-%d %H:%M</time>")
        .to_string()
}

/// In decimal units, as file managers say it.
fn size(bytes: u64) -> String {
    const UNITS: [&str; 7] = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];
    let (mut shown, mut unit) = (bytes as f64, 0);
    while shown >= 999.5 && unit + 1 < UNITS.len() {
        (shown, unit) = (shown / 1000.0, unit + 1);
    }
    let digits = usize::from(unit > 0 && shown < 99.95);
    format!("{shown:.digits$} {}", UNITS[unit])
}

/// A key's text as HTML, with pictures of control characters, so that no name is invisible.
fn visible(text: &[u8]) -> String {
    let picture = |char: char| match char {
        '\0'..='\x1f' => char::from_u32(0x2400 + u32::from(char)).unwrap_or(char),
        '\x7f' => '\u{2421}',
        _ => char,
    };
    escape(&String::from_utf8_lossy(text).chars().map(picture).collect::<String>())
}

fn escape(text: &str) -> String {
    let mut html = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            '&' => html += "&amp;",
            '<' => html += "&lt;",
            '>' => html += "&gt;",
            '"' => html += "&quot;",
            '\'' => html += "&#39;",
            _ => html.push(char),
        }
    }
    html
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pages(routes: &str) -> FolderPages {
        let routes = Routes::parse(routes).unwrap();
        let options = routes.folder_pages.clone().unwrap_or_default();
        FolderPages::new(&options, routes, b"www/", b"www/", "site")
    }

    fn stat(bytes: u64) -> Stat {
        Stat {
            bytes,
            mtime_ns: 1_700_000_000_000_000_000,
            ..Stat::default()
        }
    }

    fn render(pages: &FolderPages, key: &[u8]) -> Option<String> {
        let folders: [&[u8]; 3] = [b"<b>", b".git", b"drafts"];
        let files: [(&[u8], Stat); 4] = [
            (b"\"q\"&a:b?.txt", stat(999_500)),
            (b".hidden", stat(1)),
            (b"two\nlines", stat(0)),
            (b"x.tmp", stat(1)),
        ];
        let page = pages.render(key, folders.into_iter(), files.into_iter())?;
        Some(String::from_utf8(page).unwrap())
    }

    #[test]
    fn names_are_escaped_for_where_they_stand_and_hidden_ones_left_out() {
        let pages =
            pages("[[route]]\nmatch = '*.tmp'\npublish = false\n[[route]]\nmatch = 'a/drafts/**'\npublish = false");
        let page = render(&pages, b"www/a/").unwrap();
        for part in [
            "<title>site/a/</title>",
            "<nav><a href=\"../index.html\">site</a> / <b>a</b></nav>",
            "<a href=\"../index.html\">../</a>",
            "<a href=\"%3Cb%3E/index.html\"><bdi>&lt;b&gt;/</bdi></a>",
            "<a href=\"%22q%22%26a%3Ab%3F.txt\"><bdi>&quot;q&quot;&amp;a:b?.txt</bdi></a>",
            "<time datetime=\"2023-11-14T22:13:20Z\">2023-11-14 22:13</time></td><td>1.0 MB</td>",
            "<bdi>two\u{240a}lines</bdi>",
            "<p>1 folder, 2 files, 1.0 MB</p>",
            "prefers-color-scheme: dark",
        ] {
            assert!(page.contains(part), "{part}\n{page}");
        }
        for part in [".git", ".hidden", "x.tmp", "drafts"] {
            assert!(!page.contains(part), "{part}");
        }
        assert_eq!(render(&pages, b"www/a/"), Some(page));
        assert_eq!(render(&pages, b"www/a/drafts/"), None);
    }

    #[test]
    fn folders_below_hidden_ones_have_no_page() {
        let pages = pages("");
        let has = ["www/", "www/a/b/", "www/.well-known/", "www/a/.git/x/"].map(|key| pages.has(key.as_bytes()));
        assert_eq!(has, [true, true, false, false]);
    }

    #[test]
    fn whole_paths_do_not_lead_out_of_the_folder() {
        let routes = Routes::parse("[[route]]\nmatch = 'home/.ann/site/secret/**'\npublish = false").unwrap();
        let pages = FolderPages::new(&Default::default(), routes, b"www/", b"www/home/.ann/site/", "site");
        assert!(pages.has(b"www/home/.ann/site/a/") && !pages.has(b"www/home/.ann/site/.b/"));
        let page = render(&pages, b"www/home/.ann/site/").unwrap();
        assert!(
            page.contains("<title>site/</title>") && page.contains("<nav><b>site</b></nav>") && !page.contains("../"),
            "{page}"
        );
        assert_eq!(render(&pages, b"www/home/.ann/site/secret/"), None);
    }

    #[test]
    fn a_user_may_change_how_it_looks() {
        let pages = pages("[index-pages]\nname = 'My <photos>'\nstylesheet = '/a\"b.css'\nshort-links = true");
        let page = render(&pages, b"www/x/y/").unwrap();
        assert!(page.contains("<link rel=\"stylesheet\" href=\"/a&quot;b.css\">") && !page.contains("<style>"));
        assert!(
            page.contains("<a href=\"../../\">My &lt;photos&gt;</a> / <a href=\"../\">x</a> / <b>y</b>"),
            "{page}"
        );
        assert!(page.contains("<a href=\"drafts/\">"));
    }

    #[test]
    fn a_page_has_a_longest_length_and_says_what_is_missing() {
        let names: Vec<_> = (0..60_000).map(|number| format!("{number:06}").into_bytes()).collect();
        let files = names.iter().map(|name| (name.as_slice(), stat(1)));
        let page = pages("").render(b"www/", std::iter::empty(), files).unwrap();
        assert!(page.len() < ROWS_BYTES_MAX + 10_000, "{}", page.len());
        let text = String::from_utf8(page).unwrap();
        assert!(text.contains("60000 files, 60.0 kB; ") && text.contains(" of them are not listed"));
    }

    #[test]
    fn sizes_have_three_digits_at_most_before_the_unit() {
        let shown = [0, 999, 1000, 99_949, 99_950, 999_499, 999_500, u64::MAX].map(size);
        assert_eq!(
            shown,
            [
                "0 B", "999 B", "1.0 kB", "99.9 kB", "100 kB", "999 kB", "1.0 MB", "18.4 EB"
            ]
        );
    }
}
