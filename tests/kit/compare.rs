//! Are two trees the same? rsync says so for contents and metadata; holes are compared here.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::ErrorKind;
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

/// What `rsync -naHAXi --checksum --delete` would still change; where there is no rsync, what `differences` finds.
pub fn rsync_differences(source: &Path, restored: &Path) -> Result<Vec<String>> {
    let output = Command::new("rsync")
        .args(["-naHAXi", "--checksum", "--delete"])
        .arg(format!("{}/", source.display()))
        .arg(format!("{}/", restored.display()))
        .output();
    match output {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let mut found = Vec::new();
            differences(source, restored, &mut HashMap::new(), &mut found)?;
            Ok(found)
        }
        output => {
            let output = output.context("start rsync")?;
            if !output.status.success() {
                bail!("rsync failed: {}", String::from_utf8_lossy(&output.stderr));
            }
            let listing = String::from_utf8_lossy(&output.stdout);
            Ok(listing.lines().take(50).map(str::to_owned).collect())
        }
    }
}

/// Names, kinds, modes, owners, times, lengths, device numbers, link targets, attributes, contents, hard links. `twins`
/// maps each inode met in one tree to the one in the other.
fn differences(one: &Path, other: &Path, twins: &mut HashMap<u64, u64>, found: &mut Vec<String>) -> Result<()> {
    let names = |dir: &Path| -> Result<BTreeSet<OsString>> {
        Ok(fs::read_dir(dir)?
            .map(|entry| entry.map(|entry| entry.file_name()))
            .collect::<Result<_, _>>()?)
    };
    for name in names(one)?.symmetric_difference(&names(other)?) {
        found.push(format!("{} is only in one tree", one.join(name).display()));
    }
    for name in names(one)?.intersection(&names(other)?) {
        let (here, there) = (one.join(name), other.join(name));
        let (a, b) = (fs::symlink_metadata(&here)?, fs::symlink_metadata(&there)?);
        let facts = |meta: &fs::Metadata| {
            (
                meta.mode(),
                meta.uid(),
                meta.gid(),
                meta.mtime(),
                meta.mtime_nsec(),
                meta.rdev(),
            )
        };
        let mut same = facts(&a) == facts(&b) && *twins.entry(a.ino()).or_insert(b.ino()) == b.ino();
        same &= attributes(&here)? == attributes(&there)?;
        if a.is_symlink() {
            same &= fs::read_link(&here)? == fs::read_link(&there)?;
        } else if a.is_file() && same {
            same &= a.len() == b.len() && fs::read(&here)? == fs::read(&there)?;
        } else if a.is_dir() && b.is_dir() {
            differences(&here, &there, twins, found)?;
        }
        if !same {
            found.push(format!("{} differs", here.display()));
        }
    }
    Ok(())
}

fn attributes(path: &Path) -> Result<BTreeMap<OsString, Option<Vec<u8>>>> {
    // Not every file system has attributes, and symlinks have none for users.
    let Ok(names) = xattr::list(path) else {
        return Ok(BTreeMap::new());
    };
    names.map(|name| Ok((name.clone(), xattr::get(path, &name)?))).collect()
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
