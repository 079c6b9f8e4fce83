//! `dump`: a snapshot or a part of it as an archive, to stdout.

use api::request::{Dump, DumpFormat, Request};

use super::choice::choice;
use super::snapshot_path::SnapshotPath;

/// Arguments of `dump`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A snapshot, and a folder or file in it; names are below the folder, or absolute without their first slash
    #[arg(value_name = "SNAPSHOT[:PATH]")]
    what: SnapshotPath,
    /// tar keeps everything but sockets and holes; zip keeps names, contents, permissions and whole seconds
    #[arg(long, value_parser = choice(DumpFormat::ALL, DumpFormat::name, about), default_value_t)]
    format: DumpFormat,
}

impl Args {
    pub fn request(self) -> Request {
        Request::Dump(Dump {
            snapshot: self.what.snapshot,
            path: self.what.path,
            format: self.format,
        })
    }
}

fn about(format: DumpFormat) -> &'static str {
    match format {
        DumpFormat::Tar => "POSIX tar, with extended attributes",
        DumpFormat::Zip => "zip",
    }
}
