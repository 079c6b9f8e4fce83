//! `folder add|ls|rm`: what is backed up.

use std::path::PathBuf;

use api::failure::{Exit, Failure};
use api::request::{Folders, Request};

use super::context::absolute;

#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Back up folders from now on
    Add {
        /// Which
        #[arg(required = true, value_name = "PATH")]
        paths: Vec<PathBuf>,
    },
    /// List the folders
    Ls,
    /// Back up folders no longer; what is backed up of them stays
    Rm {
        /// Which
        #[arg(required = true, value_name = "PATH")]
        paths: Vec<PathBuf>,
    },
}

impl Command {
    /// As a request. Only what is there can be added; what is gone can still be removed.
    pub fn request(self) -> Result<Request, Failure> {
        let all = |paths: &[PathBuf]| paths.iter().map(|path| absolute(path)).collect::<Result<Vec<_>, _>>();
        Ok(match self {
            Self::Add { paths } => {
                if let Some(missing) = paths.iter().find(|path| std::fs::symlink_metadata(path).is_err()) {
                    return Err(
                        Failure::new(Exit::Failed, format!("`{}` is not there", missing.display()))
                            .hint("check its spelling, or mount it"),
                    );
                }
                Request::FolderAdd(Folders { paths: all(&paths)? })
            }
            Self::Ls => Request::FolderList,
            Self::Rm { paths } => Request::FolderRemove(Folders { paths: all(&paths)? }),
        })
    }
}
