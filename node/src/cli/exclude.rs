//! `exclude add|ls|rm`: what is left out.

use std::path::{Path, PathBuf};

use api::failure::{Exit, Failure};
use api::request::{Request, Rules};
use backup::exclude::escaped;

use super::context::absolute;

#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Leave out what matches
    ///
    /// Rules are those of .gitignore. A name matches anywhere: `*.tmp`, `node_modules/`. With a slash before its end, a rule
    /// is a path from `/` on: `/home/ann/cache`; `**/build/out` matches below any folder. `~/` and `./` at its beginning are
    /// your home and this folder. `!` takes back in, and later rules win.
    Add {
        /// gitignore-style: `*.tmp`, `node_modules/`, `~/Downloads/*.iso`, `**/build/out`, `!keep.tmp`
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
    pub fn request(self) -> Result<Request, Failure> {
        let expanded = |patterns: Vec<String>| {
            patterns
                .iter()
                .map(|rule| expanded(rule))
                .collect::<Result<Vec<_>, _>>()
        };
        Ok(match self {
            Self::Add { patterns } => Request::ExcludeAdd(Rules {
                patterns: expanded(patterns)?,
            }),
            Self::Ls => Request::ExcludeList,
            Self::Rm { patterns } => Request::ExcludeRemove(Rules {
                patterns: expanded(patterns)?,
            }),
        })
    }
}

/// A rule with the paths that `~/` and `./` stand for, which only the asking process knows.
fn expanded(rule: &str) -> Result<String, Failure> {
    let (sign, pattern) = match rule.strip_prefix('!') {
        Some(pattern) => ("!", pattern),
        None => ("", rule),
    };
    let home = || {
        std::env::var_os("HOME")
            .map(PathBuf::from)
            .filter(|home| home.is_absolute())
    };
    let (folder, rest) = match (pattern.strip_prefix("~/"), pattern.strip_prefix("./")) {
        (Some(rest), _) => (home(), rest),
        (None, Some(rest)) => (Some(absolute(Path::new("."))?.to_path()), rest),
        (None, None) => return Ok(rule.to_owned()),
    };
    let Some(folder) = folder.as_deref().and_then(Path::to_str) else {
        return Err(Failure::new(
            Exit::Usage,
            format!("`{rule}` begins with a folder that cannot be written down"),
        )
        .hint("write the path from `/` on"));
    };
    Ok(format!("{sign}{}/{rest}", escaped(folder.trim_end_matches('/'))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_home_and_this_folder_are_written_out_and_nothing_else_is() {
        let here = std::env::current_dir().unwrap();
        let here = escaped(here.to_str().unwrap());
        assert_eq!(expanded("./x/*.o").unwrap(), format!("{here}/x/*.o"));
        assert_eq!(expanded("!./x").unwrap(), format!("!{here}/x"));
        for rule in ["*.iso", "~user/x", "a/~/b", ".hidden", "**/x"] {
            assert_eq!(expanded(rule).unwrap(), rule);
        }
    }
}
