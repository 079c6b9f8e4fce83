//! Folders as WebDAV answers and as pages for browsers: streamed, so that one of any size takes little memory.

use std::fmt::Write;
use std::io;

use api::http::template;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use backup::view::{Node, View};
use bytes::Bytes;
use database::DbError;
use futures::stream::{self, Stream};
use jiff::Timestamp;
use proto::log_record::EntryKind;

use super::is_shown;

/// Entries of a batch. Chosen: some hundred kilobytes.
const BATCH_ENTRIES: usize = 512;

/// What a folder is written as.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// A `multistatus` of the resource itself and, if it is a folder and they are asked for, its entries.
    Properties { entries: bool },
    /// A page with links.
    Page,
}

/// How far an answer is.
enum Step {
    Head(Node),
    /// Entries after this name.
    Entries(Node, Vec<u8>),
    Tail,
    End,
}

/// The answer for `node` at `path`, in pieces.
pub(super) fn batches(view: View, path: Vec<Vec<u8>>, node: Node, form: Form) -> impl Stream<Item = io::Result<Bytes>> {
    stream::try_unfold((view, path, Step::Head(node)), move |(view, path, step)| async move {
        let (text, next) = match step {
            Step::Head(node) => {
                let text = head(&path, &node, form);
                match form {
                    Form::Properties { entries: false } => (text, Step::Tail),
                    _ => (text, Step::Entries(node, Vec::new())),
                }
            }
            Step::Entries(node, after) => {
                let (view, path) = (view.clone(), path.clone());
                let batch = tokio::task::spawn_blocking(move || {
                    let (text, last) = entries(&view, &path, &node, &after, form)?;
                    Ok::<_, DbError>(match last {
                        Some(last) => (text, Step::Entries(node, last)),
                        None => (text, Step::Tail),
                    })
                });
                batch.await.map_err(io::Error::other)?.map_err(io::Error::other)?
            }
            Step::Tail => (tail(form).to_owned(), Step::End),
            Step::End => return Ok(None),
        };
        Ok(Some((Bytes::from(text), (view, path, next))))
    })
}

fn head(path: &[Vec<u8>], node: &Node, form: Form) -> String {
    let href = href(path, node);
    match form {
        Form::Properties { .. } => {
            let mut text = "<?xml version=\"1.0\" encoding=\"utf-8\"?>\n<D:multistatus xmlns:D=\"DAV:\">\n".to_owned();
            properties(&mut text, &href, node);
            text
        }
        Form::Page => {
            let title = escape(&path.join(&b'/'));
            let up = if path.is_empty() {
                ""
            } else {
                "<li><a href=\"../\">..</a>\n"
            };
            format!("<!DOCTYPE html>\n<meta charset=utf-8><base href=\"{href}\"><title>/{title}</title>\n<ul>\n{up}")
        }
    }
}

fn tail(form: Form) -> &'static str {
    match form {
        Form::Properties { .. } => "</D:multistatus>\n",
        Form::Page => "</ul>\n",
    }
}

/// A batch of entries after a name, and the last name of it unless it is the last batch.
fn entries(
    view: &View,
    path: &[Vec<u8>],
    folder: &Node,
    after: &[u8],
    form: Form,
) -> Result<(String, Option<Vec<u8>>), DbError> {
    let nodes = view.list(&folder.place, after, BATCH_ENTRIES)?;
    let last = nodes.last().map(|node| node.entry.name.clone());
    let last = last.filter(|_| nodes.len() == BATCH_ENTRIES);
    let (mut text, base) = (String::new(), href(path, folder));
    for node in nodes {
        let name = node.entry.name.clone();
        let Some(node) = view.resolve(path, node)?.filter(is_shown) else {
            continue;
        };
        let slash = if node.entry.kind == EntryKind::Directory {
            "/"
        } else {
            ""
        };
        let own = format!("{base}{}{slash}", template::encode(&name));
        match form {
            Form::Properties { .. } => properties(&mut text, &own, &node),
            Form::Page => {
                let _infallible = writeln!(text, "<li><a href=\"{own}\">{}{slash}</a>", escape(&name));
            }
        }
    }
    Ok((text, last))
}

/// The URI of a node: folders end with a slash.
fn href(path: &[Vec<u8>], node: &Node) -> String {
    let mut href = String::new();
    for name in path {
        href.push('/');
        href.push_str(&template::encode(name));
    }
    if node.entry.kind == EntryKind::Directory || path.is_empty() {
        href.push('/');
    }
    href
}

/// One `response`. Everything in it is ASCII that XML lets stand.
fn properties(text: &mut String, href: &str, node: &Node) {
    let meta = &node.entry.meta;
    let kind = match node.entry.kind {
        EntryKind::Directory => "<D:resourcetype><D:collection/></D:resourcetype>".to_owned(),
        _ => format!(
            "<D:resourcetype/><D:getcontentlength>{}</D:getcontentlength>\
             <D:getcontenttype>application/octet-stream</D:getcontenttype><D:getetag>{}</D:getetag>",
            meta.size,
            etag(node)
        ),
    };
    let _infallible = writeln!(
        text,
        "<D:response><D:href>{href}</D:href><D:propstat><D:prop>{kind}<D:getlastmodified>{}</D:getlastmodified>\
         </D:prop><D:status>HTTP/1.1 200 OK</D:status></D:propstat></D:response>",
        http_date(meta.mtime_ns)
    );
}

/// What changes when the content does.
pub(super) fn etag(node: &Node) -> String {
    let meta = &node.entry.meta;
    format!("\"{:x}-{:x}-{:x}\"", node.number(), meta.size, meta.mtime_ns)
}

/// A time as HTTP writes it (RFC 9110 §5.6.7); the ends of time are as near as it gets.
pub(super) fn http_date(ns: i64) -> String {
    let time = Timestamp::from_nanosecond(i128::from(ns)).unwrap_or(Timestamp::UNIX_EPOCH);
    time.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()
}

/// A name as text of a page.
fn escape(name: &[u8]) -> String {
    let text = String::from_utf8_lossy(name);
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// The answer to a PROPFIND that would list everything below.
pub(super) fn depth_is_finite() -> Response {
    let error = "<?xml version=\"1.0\" encoding=\"utf-8\"?>\n\
                 <D:error xmlns:D=\"DAV:\"><D:propfind-finite-depth/></D:error>\n";
    let headers = [(header::CONTENT_TYPE, "application/xml; charset=utf-8")];
    (StatusCode::FORBIDDEN, headers, error).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_in_the_one_form_that_http_has() {
        assert_eq!(http_date(784_111_777_000_000_000), "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(http_date(-1), "Wed, 31 Dec 1969 23:59:59 GMT");
    }
}
