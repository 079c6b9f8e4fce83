//! `ls` and `find`: look into a snapshot.

use super::context::Context;
use super::snapshot_path::SnapshotPath;
use crate::engine::CommandOptions;
use crate::failure::{Exit, Failure};
use crate::message::Message;
use crate::output::Output;
use crate::request::Request;

/// Arguments of `ls`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A snapshot (`latest`, a date or an id prefix), and a folder or file in it
    #[arg(value_name = "SNAPSHOT[:PATH]", default_value = "latest")]
    at: SnapshotPath,
    /// Everything below, too
    #[arg(short, long)]
    recursive: bool,
}

/// Arguments of `find`.
#[derive(Debug, clap::Args)]
pub struct FindArgs {
    /// Glob (`*.jpg`) on the name, or on the path if it has a slash; case does not matter; without `*` or `?` any part
    pattern: String,
    /// Where to look
    #[arg(long, value_name = "SNAPSHOT[:PATH]", default_value = "latest")]
    snapshot: SnapshotPath,
}

impl Args {
    /// As a request.
    pub fn request(self) -> Request {
        Request::List {
            snapshot: self.at.snapshot,
            path: self.at.path,
            recursive: self.recursive,
        }
    }
}

/// Lists a snapshot and keeps what matches.
pub async fn find(context: Context, args: FindArgs) -> Result<Exit, Failure> {
    let pattern = Pattern::new(&args.pattern);
    let request = Request::List {
        snapshot: args.snapshot.snapshot,
        path: args.snapshot.path,
        recursive: true,
    };
    let keep = move |output: &Output| match output {
        Output::Message(Message::Entry(entry)) => pattern.matches(&entry.path.display()),
        _ => true,
    };
    context.execute_with(request, CommandOptions::default(), &keep).await
}

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

    fn matches(&self, path: &str) -> bool {
        let name = if self.on_path {
            path
        } else {
            path.rsplit('/').next().unwrap_or(path)
        };
        glob_matches(&self.glob, &name.to_lowercase().chars().collect::<Vec<_>>())
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
            ("*", "/", true),
        ] {
            assert_eq!(Pattern::new(pattern).matches(path), expected, "{pattern} on {path}");
        }
    }
}
