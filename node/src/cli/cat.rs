//! `cat SNAPSHOT:PATH`: a file's content, byte for byte, to stdout.

use api::failure::{Exit, Failure};
use api::request::{Cat, Request};

use super::snapshot_path::SnapshotPath;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// A snapshot (`latest`, a date or an id prefix) and a file in it
    #[arg(value_name = "SNAPSHOT:PATH")]
    file: SnapshotPath,
}

impl Args {
    pub fn request(self) -> Result<Request, Failure> {
        let path = self.file.path.ok_or_else(|| {
            Failure::new(Exit::Usage, "No file is named")
                .hint("write SNAPSHOT:PATH, for example latest:/home/me/notes.txt")
        })?;
        Ok(Request::Cat(Cat {
            snapshot: self.file.snapshot,
            path,
        }))
    }
}
