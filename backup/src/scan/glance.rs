//! One look at one entry on the disk: is it still what the catalog says it was.

use proto::log_record::{Content, Entry};
use rustix::io::Errno;

use super::compare::same;
use crate::source::Source;
use crate::source::local::LocalFiles;

/// What a look found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Glance {
    /// A scan would find nothing new.
    Same,
    /// A scan would take it for changed.
    Changed,
    /// There is nothing.
    Gone,
    /// It cannot be looked at.
    Unseen(String),
}

/// Looks at `path`, an absolute one, and compares it with what is known of it.
pub fn glance(path: &[u8], known: &Entry) -> Glance {
    match LocalFiles.examine(path) {
        Ok((kind, meta)) => {
            let now = Entry {
                name: known.name.clone(),
                kind,
                meta,
                content: Content::None,
            };
            match same(known, &now) {
                true => Glance::Same,
                false => Glance::Changed,
            }
        }
        Err(Errno::NOENT | Errno::NOTDIR) => Glance::Gone,
        Err(error) => Glance::Unseen(std::io::Error::from(error).to_string()),
    }
}
