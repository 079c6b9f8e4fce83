//! Finding entries by name, in one snapshot or in all.

use std::collections::HashMap;

use api::failure::{Exit, Failure};
use api::output::Sink;
use api::output::unwaiting::Unwaiting;
use api::request::Find;
use backup::catalog::{find, tree};
use proto::id::SnapshotId;
use proto::log_record::Entry;

use crate::look::entry_message;
use crate::{Engine, failures};

impl Engine {
    pub(super) async fn find(&self, request: Find, sink: &Sink) -> Result<Exit, Failure> {
        let only = request
            .snapshot
            .as_deref()
            .map(|name| self.find_snapshot(name))
            .transpose()?;
        let only = only.map(|only| only.record.seq);
        let (engine, to) = (self.clone(), sink.clone());
        let finding = move || engine.say_found(only, &request, &to);
        tokio::task::spawn_blocking(finding).await.map_err(failures::worker)??;
        Ok(Exit::Done)
    }

    fn say_found(&self, only: Option<u64>, request: &Find, sink: &Sink) -> Result<(), Failure> {
        let pattern = Pattern::new(&request.pattern);
        let wants = |path: &[u8], entry: &Entry| {
            let below = request.path.as_ref().is_none_or(|above| tree::covers(&above.0, path));
            below && fits(request, entry) && pattern.matches(path)
        };
        let mut said = Unwaiting::new(sink);
        self.0.db.read(|conn| {
            let ids: HashMap<u64, SnapshotId> = tree::snapshots(conn)?
                .into_iter()
                .map(|known| (known.record.seq, known.record.id))
                .collect();
            let id = |seq: u64| ids.get(&seq).map(ToString::to_string).unwrap_or_default();
            find::find(conn, only, &wants, &mut |found| {
                let mut message = entry_message(found.path, found.entry, &id(found.seqs.1));
                message.first_snapshot = Some(id(found.seqs.0));
                message.snapshots = Some(found.snapshots);
                said.say(message)
            })
        })?;
        said.finish()
    }
}

fn fits(request: &Find, entry: &Entry) -> bool {
    let mtime_ns = i128::from(entry.meta.mtime_ns);
    request.newer.is_none_or(|newer| mtime_ns > newer.as_nanosecond())
        && request.older.is_none_or(|older| mtime_ns < older.as_nanosecond())
        && request.kind.is_none_or(|kind| kind == entry.kind.into())
}

/// What names are looked for.
struct Pattern {
    glob: Vec<char>,
    on_path: bool,
}

impl Pattern {
    fn new(typed: &str) -> Self {
        let on_path = typed.contains('/');
        let lower = typed.to_lowercase();
        let glob = if lower.contains(['*', '?']) {
            lower
        } else {
            format!("*{lower}*")
        };
        Self {
            glob: glob.chars().collect(),
            on_path,
        }
    }

    fn matches(&self, path: &[u8]) -> bool {
        let name = match path.iter().rposition(|byte| *byte == b'/') {
            Some(slash) if !self.on_path => &path[slash + 1..],
            _ => path,
        };
        let name = String::from_utf8_lossy(name).to_lowercase();
        glob_matches(&self.glob, &name.chars().collect::<Vec<_>>())
    }
}

/// `*` for any characters, `?` for one. Linear but for the last `*`, which is tried at each place.
fn glob_matches(glob: &[char], text: &[char]) -> bool {
    let (mut g, mut t) = (0, 0);
    let mut retry: Option<(usize, usize)> = None;
    while t < text.len() {
        match glob.get(g) {
            Some('*') => {
                retry = Some((g, t));
                g += 1;
            }
            Some(c) if *c == '?' || *c == text[t] => {
                g += 1;
                t += 1;
            }
            _ => match retry {
                Some((star, from)) => {
                    retry = Some((star, from + 1));
                    g = star + 1;
                    t = from + 1;
                }
                None => return false,
            },
        }
    }
    glob[g..].iter().all(|c| *c == '*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_names_or_paths() {
        for (pattern, path, expected) in [
            ("*.JPG", "/a/b.jpg", true),
            ("*.jpg", "/a.jpg/b", false),
            ("b", "/a/abc", true),
            ("/a/*/c", "/a/x/y/c", true),
            ("?b*d", "/xbccd", true),
            ("?b*d", "/xbcc", false),
            ("*a*a*b", "/aaaaaaaaaaaaab", true),
            ("*", "/x", true),
        ] {
            assert_eq!(
                Pattern::new(pattern).matches(path.as_bytes()),
                expected,
                "{pattern} on {path}"
            );
        }
    }
}
