//! Are two trees the same? rsync says so for contents and metadata; holes are compared here.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};
use rustix::fs::{SeekFrom, seek};

/// Fails with the list of differences if `restored` is not exactly `source`.
pub fn assert_same(source: &Path, restored: &Path) -> Result<()> {
    let differences = rsync_differences(source, restored)?;
    if !differences.is_empty() {
        bail!(
            "{} differs from {}:\n{}",
            restored.display(),
            source.display(),
            differences.join("\n")
        );
    }
    compare_holes(source, restored)
}

/// What `rsync -naHAXi --checksum --delete` would still change.
pub fn rsync_differences(source: &Path, restored: &Path) -> Result<Vec<String>> {
    let output = Command::new("rsync")
        .args(["-naHAXi", "--checksum", "--delete"])
        .arg(format!("{}/", source.display()))
        .arg(format!("{}/", restored.display()))
        .output()
        .context("rsync is needed to compare trees (Debian package rsync)")?;
    if !output.status.success() {
        bail!("rsync failed: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8_lossy(&output.stdout)
        .lines()
        .take(50)
        .map(str::to_owned)
        .collect())
}

/// Every hole of a source file is a hole in the restored one, to the file system's block.
fn compare_holes(source: &Path, restored: &Path) -> Result<()> {
    for entry in fs::read_dir(source)? {
        let entry = entry?;
        let (kind, twin) = (entry.file_type()?, restored.join(entry.file_name()));
        if kind.is_dir() {
            compare_holes(&entry.path(), &twin)?;
        } else if kind.is_file() && entry.metadata()?.blocks() * 512 < entry.metadata()?.len() {
            let (here, there) = (runs(&entry.path())?, runs(&twin)?);
            if here != there {
                bail!("{}: data runs {here:?}, restored as {there:?}", entry.path().display());
            }
        }
    }
    Ok(())
}

/// The data runs of a file, `(start, end)` each.
fn runs(path: &Path) -> Result<Vec<(u64, u64)>> {
    let file = File::open(path)?;
    let (mut runs, mut at) = (Vec::new(), 0);
    while let Ok(start) = seek(&file, SeekFrom::Data(at)) {
        let end = seek(&file, SeekFrom::Hole(start))?;
        runs.push((start, end));
        at = end;
    }
    Ok(runs)
}
