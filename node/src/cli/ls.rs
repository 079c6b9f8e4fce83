//! `ls`: look into a snapshot.

use api::request::{List, Request};

use super::snapshot_path::SnapshotPath;

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

impl Args {
    pub fn request(self) -> Request {
        Request::List(List {
            snapshot: self.at.snapshot,
            path: self.at.path,
            recursive: self.recursive,
        })
    }
}
