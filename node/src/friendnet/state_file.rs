//! Small files of the home that are replaced as a whole: durable before they have their name, for this user only, and with a
//! checksum, so that a flipped bit is told from an older version of what is inside.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// BLAKE3 of what comes before it.
const SUM_BYTES: usize = 32;
/// Far above what a roster or the invitations take.
const FILE_BYTES_MAX: u64 = 64 << 20;

/// Replaces the file.
pub fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let temp = path.with_extension("tmp");
    let mut file = File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&temp)?;
    file.write_all(content)?;
    file.write_all(blake3::hash(content).as_bytes())?;
    file.sync_all()?;
    fs::rename(&temp, path)?;
    File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
}

/// What was written; `None` if there is no file. Of kind `InvalidData` if it is not what was written.
pub fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    match File::open(path).and_then(|file| file.take(FILE_BYTES_MAX).read_to_end(&mut bytes)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    let damaged = || io::Error::new(io::ErrorKind::InvalidData, "its checksum does not match");
    let end = bytes.len().checked_sub(SUM_BYTES).ok_or_else(damaged)?;
    if blake3::hash(&bytes[..end]).as_bytes()[..] != bytes[end..] {
        return Err(damaged());
    }
    bytes.truncate(end);
    Ok(Some(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_flipped_byte_and_any_cut_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("roster");
        assert_eq!(read(&path).unwrap(), None);
        replace(&path, b"who belongs to the grid").unwrap();
        let whole = fs::read(&path).unwrap();
        for at in 0..whole.len() {
            let mut flipped = whole.clone();
            flipped[at] ^= 1;
            for damaged in [&flipped, &whole[..at]] {
                fs::write(&path, damaged).unwrap();
                assert_eq!(read(&path).unwrap_err().kind(), io::ErrorKind::InvalidData);
            }
        }
        replace(&path, b"again").unwrap();
        assert_eq!(read(&path).unwrap().unwrap(), b"again");
    }
}
