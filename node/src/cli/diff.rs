//! `diff`: what changed between two snapshots.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use api::message::PathName;
use api::request::{Diff, Request};

/// Arguments of `diff`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The first snapshot: `latest~1`, a date or an id prefix
    #[arg(value_name = "A")]
    before: String,
    /// The second
    #[arg(value_name = "B")]
    after: String,
    /// Only what is at and below this path
    path: Option<OsString>,
}

impl Args {
    pub fn request(self) -> Request {
        Request::Diff(Diff {
            before: self.before,
            after: self.after,
            path: self.path.as_deref().map(path_in_snapshot),
        })
    }
}

/// A path in a snapshot as typed: absolute whether or not it begins with a slash.
fn path_in_snapshot(typed: &OsStr) -> PathName {
    let typed = typed.as_bytes();
    let slash: &[u8] = if typed.starts_with(b"/") { b"" } else { b"/" };
    PathName([slash, typed].concat())
}
