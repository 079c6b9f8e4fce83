//! `restore SNAPSHOT[:PATH] --target DIR`.

use std::path::PathBuf;

use api::failure::Failure;
use api::request::{Overwrite, Request, Restore};

use super::choice::choice;
use super::context::absolute;
use super::snapshot_path::SnapshotPath;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// A snapshot (`latest`, a date or an id prefix); with a folder, its contents go into DIR itself
    #[arg(value_name = "SNAPSHOT[:PATH]")]
    from: SnapshotPath,
    /// Where to
    #[arg(long, short, value_name = "DIR")]
    target: PathBuf,
    /// Only what matches (glob; may be repeated)
    #[arg(long, short, value_name = "PATTERN")]
    include: Vec<String>,
    /// Not what matches (glob; may be repeated)
    #[arg(long, short, value_name = "PATTERN")]
    exclude: Vec<String>,
    /// What to do with a file that is there
    #[arg(long, value_parser = choice(Overwrite::ALL, Overwrite::name, about), default_value_t)]
    overwrite: Overwrite,
    /// Remove from DIR what the snapshot does not have but would have if it had been there: nothing beside the folders that
    /// were backed up, and nothing that the backup leaves out
    #[arg(long)]
    delete: bool,
    /// Also from `/`, and from folders that hold gridbackup's own
    #[arg(long, requires = "delete")]
    unsafe_delete: bool,
    /// Only say what would be done
    #[arg(long, short = 'n')]
    dry_run: bool,
    /// Read every file back after it was written and compare
    #[arg(long)]
    verify: bool,
}

impl Args {
    pub fn request(self) -> Result<Request, Failure> {
        Ok(Request::Restore(Restore {
            snapshot: self.from.snapshot,
            path: self.from.path,
            target: absolute(&self.target)?,
            include: self.include,
            exclude: self.exclude,
            overwrite: self.overwrite,
            delete: self.delete,
            unsafe_delete: self.unsafe_delete,
            dry_run: self.dry_run,
            verify: self.verify,
        }))
    }
}

fn about(overwrite: Overwrite) -> &'static str {
    match overwrite {
        Overwrite::Always => "Write it again",
        Overwrite::IfChanged => "Keep it if size and modification time agree",
        Overwrite::Never => "Keep it",
    }
}
