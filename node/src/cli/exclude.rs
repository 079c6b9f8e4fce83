//! `exclude add|ls|rm`: what is left out.

use crate::request::Request;

/// Commands.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Leave out what matches
    Add {
        /// gitignore-style: `*.tmp`, `node_modules/`, `!keep.tmp`
        #[arg(required = true)]
        patterns: Vec<String>,
    },
    /// List the rules
    Ls,
    /// Remove rules
    Rm {
        /// As they were added
        #[arg(required = true)]
        patterns: Vec<String>,
    },
}

impl Command {
    /// As a request.
    pub fn request(self) -> Request {
        match self {
            Self::Add { patterns } => Request::ExcludeAdd { patterns },
            Self::Ls => Request::ExcludeList,
            Self::Rm { patterns } => Request::ExcludeRemove { patterns },
        }
    }
}
