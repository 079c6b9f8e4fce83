//! The config as it was when it could last be used: a typing mistake in config.toml, or a bad sector below it, stops neither a
//! restore nor what is kept for friends. Nothing is written or backed up by such a config: rules and folders may have changed.

use std::fs;
use std::path::Path;

use api::failure::{Exit, Failure};

use super::{Config, ConfigFile};

/// The config that is in force.
#[derive(Clone, Debug)]
pub struct InForce {
    /// As config.toml says it, or as it was when that could last be used, or what is built in.
    pub config: Config,
    /// Why config.toml cannot be used.
    pub fault: Option<Failure>,
}

impl InForce {
    /// By the file at `path`, else by what `keep` left in `last`.
    pub fn read(path: &Path, last: &Path) -> Self {
        let fault = match usable(path, last) {
            Ok(file) => {
                return Self {
                    config: file.config().clone(),
                    fault: None,
                };
            }
            Err(fault) => fault,
        };
        let kept = last.exists().then(|| ConfigFile::open(last));
        let (config, what) = match kept {
            Some(Ok(file)) => {
                let what = format!("what it said when it was last right ({})", last.display());
                (file.config().clone(), what)
            }
            _ => (Config::default(), "only what is built in".to_owned()),
        };
        tracing::warn!("{fault}. Until then {what} is in force, for looking, restoring and serving friends");
        Self {
            config,
            fault: Some(fault),
        }
    }
}

/// The config at `path`, or why it cannot be used.
pub fn usable(path: &Path, last: &Path) -> Result<ConfigFile, Failure> {
    // Nobody empties a config on purpose: it was cut off, or lost.
    if is_empty(path) && !is_empty(last) && ConfigFile::open(last).is_ok() {
        return Err(emptied(path, last));
    }
    ConfigFile::open(path)
}

/// Not there, or nothing in it.
fn is_empty(path: &Path) -> bool {
    if fs::metadata(path).is_ok_and(|metadata| !metadata.is_file()) {
        return false;
    }
    match fs::read(path) {
        Ok(text) => text.trim_ascii().is_empty(),
        Err(error) => error.kind() == std::io::ErrorKind::NotFound,
    }
}

fn emptied(path: &Path, last: &Path) -> Failure {
    let what = if path.exists() { "is empty" } else { "is missing" };
    Failure::new(Exit::Failed, format!("`{}` {what}", path.display())).hint(format!(
        "`{}` is what it said before: copy it there; if an empty config is meant, remove that file, too",
        last.display()
    ))
}

/// Keeps the text of a config that can be used. It is a help only: without it, what is built in is in force.
pub fn keep(path: &Path, last: &Path) {
    let Ok(text) = fs::read(path) else { return };
    if fs::read(last).is_ok_and(|kept| kept == text) {
        return;
    }
    if let Err(error) = durable::replace_note(last, &[&text]) {
        tracing::debug!("{} cannot be written: {error}", last.display());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_last_right_is_in_force_until_the_file_is_right_again() {
        let dir = tempfile::tempdir().unwrap();
        let (path, last) = (dir.path().join("config.toml"), dir.path().join("last"));
        fs::write(&path, "tolerate = 3\n").unwrap();
        let good = InForce::read(&path, &last);
        assert!(good.fault.is_none() && good.config.tolerate == 3);
        keep(&path, &last);
        for damaged in ["tolerate = many\n", "tolerate = 99\n", "\0\0\0", "", " \n"] {
            fs::write(&path, damaged).unwrap();
            let found = InForce::read(&path, &last);
            assert!(found.fault.is_some() && found.config.tolerate == 3, "{damaged}");
        }
        fs::remove_file(&path).unwrap();
        let found = InForce::read(&path, &last);
        assert!(found.fault.is_some() && found.config.tolerate == 3, "missing");
        fs::write(&path, "tolerate = many").unwrap();
        fs::write(&last, "also = damaged").unwrap();
        let found = InForce::read(&path, &last);
        assert!(found.fault.is_some() && found.config == Config::default());
        fs::write(&path, "tolerate = 4\n").unwrap();
        let found = InForce::read(&path, &last);
        assert!(found.fault.is_none() && found.config.tolerate == 4);
    }
}
