//! `mount DIR`: every snapshot as a read-only folder tree, until Ctrl-C.

use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use api::failure::{Exit, Failure};
use api::request::{Mount, Request};

use super::context::{Context, absolute};

/// A daemon unmounts after its client has gone; longer than this it is not waited for.
const UNMOUNT_WAIT: Duration = Duration::from_secs(5);
const UNMOUNT_LOOK: Duration = Duration::from_millis(20);

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The empty folder to show the snapshots in: `ids/ID`, `dates/TIME`, `latest`
    #[arg(value_name = "DIR", required_unless_present = "webdav")]
    dir: Option<PathBuf>,
    /// Show them over WebDAV, too (or only), at this loopback address, for example 127.0.0.1:8080
    #[arg(long, value_name = "ADDR")]
    webdav: Option<SocketAddr>,
    /// Let other users look, as far as the files' modes let them
    #[arg(long, requires = "dir")]
    allow_other: bool,
}

impl Args {
    /// As a request.
    pub fn request(self) -> Result<Request, Failure> {
        Ok(Request::Mount(Mount {
            at: self.dir.as_deref().map(absolute).transpose()?,
            webdav: self.webdav.map(|address| address.to_string()),
            allow_other: self.allow_other,
        }))
    }
}

/// Mounts and stays until a signal comes or somebody unmounts.
pub async fn run(context: Context, args: Args) -> Result<Exit, Failure> {
    let dir = args.dir.as_deref().map(absolute).transpose()?.map(|at| at.to_path());
    let before = dir.as_deref().and_then(device);
    let ending = context.execute(args.request()?).await;
    if let (Some(dir), Some(before)) = (dir, before) {
        let deadline = tokio::time::Instant::now() + UNMOUNT_WAIT;
        while device(&dir).is_some_and(|now| now != before) && tokio::time::Instant::now() < deadline {
            tokio::time::sleep(UNMOUNT_LOOK).await;
        }
    }
    match ending {
        // A signal is how a mount ends.
        Ok(Exit::Interrupted) => Ok(Exit::Done),
        ending => ending,
    }
}

/// The file system that a folder is on.
fn device(dir: &Path) -> Option<u64> {
    std::fs::metadata(dir).ok().map(|found| found.dev())
}
