//! `snapshots`, `tag`, `pin`, `unpin`: the list, and what is said of its snapshots.

use std::path::PathBuf;

use api::failure::Failure;
use api::request::{GroupBy, Pin, Request, SnapshotFilter, Tag};

use super::choice::choice;
use super::context::absolute;

/// Arguments of `snapshots`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only those of this device, by its name or the beginning of its id
    #[arg(long, value_name = "DEVICE")]
    device: Option<String>,
    /// Only those that cover this path
    #[arg(long, value_name = "PATH")]
    path: Option<PathBuf>,
    /// Only those with this tag; several: with all of them
    #[arg(long, value_name = "TAG")]
    tag: Vec<String>,
    /// Only the newest N of each group
    #[arg(long, value_name = "N")]
    last: Option<u64>,
    /// In groups: device, path, tag, or several with commas
    #[arg(long, value_name = "BY", value_delimiter = ',', value_parser = choice(GroupBy::ALL, GroupBy::name, about))]
    group_by: Vec<GroupBy>,
}

impl Args {
    pub fn request(self) -> Result<Request, Failure> {
        Ok(Request::Snapshots(SnapshotFilter {
            device: self.device,
            path: self.path.as_deref().map(absolute).transpose()?,
            tags: self.tag,
            last: self.last,
            group_by: self.group_by,
        }))
    }
}

fn about(by: GroupBy) -> &'static str {
    match by {
        GroupBy::Device => "The device that made them",
        GroupBy::Path => "The folders backed up",
        GroupBy::Tag => "Their tags",
    }
}

/// Arguments of `tag`.
#[derive(Debug, clap::Args)]
pub struct TagArgs {
    /// Which snapshots
    #[arg(value_name = "SNAPSHOT", required = true)]
    snapshots: Vec<String>,
    /// Add this tag
    #[arg(long, value_name = "TAG")]
    add: Vec<String>,
    /// Take this tag away
    #[arg(long, value_name = "TAG")]
    remove: Vec<String>,
    /// These tags and no others; an empty one: none
    #[arg(long, value_name = "TAG")]
    set: Vec<String>,
}

impl TagArgs {
    pub fn request(self) -> Request {
        let set = (!self.set.is_empty()).then(|| self.set.into_iter().filter(|tag| !tag.is_empty()).collect());
        Request::Tag(Tag {
            snapshots: self.snapshots,
            add: self.add,
            remove: self.remove,
            set,
        })
    }
}

/// Arguments of `pin` and `unpin`.
#[derive(Debug, clap::Args)]
pub struct PinArgs {
    /// Which snapshots
    #[arg(value_name = "SNAPSHOT", required = true)]
    snapshots: Vec<String>,
}

impl PinArgs {
    /// As a request: to pin, or to let go.
    pub fn pin(self) -> Request {
        Request::Pin(Pin {
            snapshots: self.snapshots,
            pinned: true,
        })
    }

    /// See `pin`.
    pub fn unpin(self) -> Request {
        Request::Pin(Pin {
            snapshots: self.snapshots,
            pinned: false,
        })
    }
}
