//! A disk that fails to sync, for one process: a library that is loaded into it (`sync_faults.c`).

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::home::{Home, path_str};

const SOURCE: &str = include_str!("sync_faults.c");

/// Which syncs fail.
pub struct SyncFaults {
    library: PathBuf,
    log: PathBuf,
}

impl SyncFaults {
    /// The library, built below `dir`. Needs a C compiler, as building gridbackup does.
    pub fn build(dir: &Path) -> Result<Self> {
        let (source, library) = (dir.join("sync_faults.c"), dir.join("sync_faults.so"));
        std::fs::write(&source, SOURCE)?;
        let built = Command::new("cc")
            .args(["-shared", "-fPIC", "-O1", "-o"])
            .args([&library, &source])
            .arg("-ldl")
            .output()
            .context("run cc")?;
        ensure!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        let log = dir.join("syncs");
        Ok(Self { library, log })
    }

    /// The same home, whose processes fail to sync the first `count` files with `part` in their path, each once.
    pub fn at(&self, home: &Home, part: &str, count: u32) -> Result<Home> {
        let env = [
            ("LD_PRELOAD", path_str(&self.library)?.to_owned()),
            ("SYNC_FAULTS_LOG", path_str(&self.log)?.to_owned()),
            ("SYNC_FAULTS_AT", part.to_owned()),
            ("SYNC_FAULTS_COUNT", count.to_string()),
        ];
        let mut faulty = home.clone();
        faulty.env = env.map(|(key, value)| (key.to_owned(), value)).into();
        Ok(faulty)
    }

    /// How many syncs failed, and the files that were synced again afterwards although they had failed.
    pub fn outcome(&self) -> Result<(usize, Vec<String>)> {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let (failed, believed): (Vec<_>, Vec<_>) = log.lines().partition(|line| line.starts_with('-'));
        Ok((failed.len(), believed.into_iter().map(str::to_owned).collect()))
    }
}
