//! What every command knows: the home and how to show answers.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use api::failure::{Exit, Failure};
use api::message::PathName;
use engine::home::HomePaths;

use crate::render::RenderOptions;

/// What every command knows.
#[derive(Clone, Debug)]
pub struct Context {
    /// Where the home is.
    pub paths: HomePaths,
    /// How to show answers.
    pub options: RenderOptions,
}

/// Runs a command's future on a runtime of its own. Threads that still block (a restore's) are left behind after a second
/// when it ends: the process exits, and everything they do is safe to break off.
pub fn block_on<T>(future: impl Future<Output = T>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::context("The process cannot start its threads", &error))?;
    let output = runtime.block_on(future);
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    Ok(output)
}

/// A path as typed, made absolute against this process's working folder, `.` and `..` resolved by text alone: a link that
/// was typed stays one.
pub fn absolute(path: &Path) -> Result<PathName, Failure> {
    let absolute = std::path::absolute(path).map_err(|error| {
        Failure::context(format!("`{}` is no path: {error}", path.display()), &error).exit(Exit::Usage)
    })?;
    let mut clean = std::path::PathBuf::new();
    for component in absolute.components() {
        match component {
            std::path::Component::ParentDir => drop(clean.pop()),
            component => clean.push(component),
        }
    }
    Ok(PathName(clean.as_os_str().as_bytes().to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn typed_paths_become_absolute_and_clean() {
        assert_eq!(absolute(Path::new("/a/./b/../c/")).unwrap(), PathName(b"/a/c".to_vec()));
        assert_eq!(absolute(Path::new("/../..")).unwrap(), PathName(b"/".to_vec()));
        assert!(absolute(Path::new("x")).unwrap().0.ends_with(b"/x"));
        assert_eq!(absolute(Path::new("")).unwrap_err().exit, Exit::Usage);
    }
}
