//! Who belongs to the grid: identities, tickets, and the roster that all members hold and merge.

pub mod identity;

pub mod invite;
pub mod join;
pub mod members;
pub mod roster;

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

/// Replaces a small file of the home, durably and readable by its owner only.
fn replace_file(path: &Path, bytes: &[u8]) -> io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    let temp = path.with_extension("tmp");
    let mut file = File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&temp)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&temp, path)?;
    File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
}
