//! A key file: read, written and replaced so that only the user can read it; what is in it is not known here.

use std::fs::File;
use std::io;
use std::io::Read;
use std::path::Path;

use api::failure::{Exit, Failure};
use zeroize::Zeroizing;

/// Far above the size of any of the three files.
const KEY_FILE_BYTES_MAX: u64 = 4096;

/// Fills with bytes from the system's generator.
pub fn fill_random(bytes: &mut [u8]) -> Result<(), Failure> {
    getrandom::fill(bytes)
        .map_err(|error| Failure::new(Exit::Failed, format!("The system gives no random bytes: {error}")))
}

/// Writes a file of mode 0600, durable before it has its name, replacing none that is there.
pub fn write_private(path: &Path, content: &[u8]) -> Result<(), Failure> {
    durable::add(path, &[content]).map_err(|error| unwritable(path, &error))
}

/// For a file that `write_private` wrote before it was cut off, maybe before the name was durable: now it is.
pub fn keep_private(path: &Path) -> Result<(), Failure> {
    durable::sync_directory_of(path).map_err(|error| unwritable(path, &error))
}

/// As `write_private`, but replaces what is there: only for what nobody can have come to rely on.
pub(super) fn replace_private(path: &Path, content: &[u8]) -> Result<(), Failure> {
    durable::replace(path, &[content]).map_err(|error| unwritable(path, &error))
}

fn unwritable(path: &Path, error: &io::Error) -> Failure {
    let failure = Failure::context(format!("`{}` cannot be written: {error}", path.display()), error);
    match error.kind() {
        io::ErrorKind::AlreadyExists => failure.hint("it is there already and is never overwritten"),
        _ => failure,
    }
}

pub(super) fn read_if_there(path: &Path) -> Result<Option<Zeroizing<Vec<u8>>>, Failure> {
    match path.try_exists() {
        Ok(false) => Ok(None),
        _ => read_private(path).map(Some),
    }
}

pub(super) fn read_private(path: &Path) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let mut content = Zeroizing::new(Vec::new());
    let read = File::open(path).and_then(|file| file.take(KEY_FILE_BYTES_MAX).read_to_end(&mut content));
    match read {
        Ok(_) => Ok(content),
        Err(error) => Err(Failure::context(
            format!("`{}` cannot be read: {error}", path.display()),
            &error,
        )),
    }
}

pub(super) fn damaged(path: &Path, reason: &str) -> Failure {
    Failure::new(
        Exit::WrongPhrase,
        format!("`{}` cannot be used: {reason}", path.display()),
    )
    .hint("restore the file, or take the account over in another home with `gridbackup recover`")
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_private_file_is_0600_and_never_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("phrase");
        write_private(&path, b"one").unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let failure = write_private(&path, b"two").unwrap_err();
        assert!(failure.to_string().contains("never overwritten"), "{failure}");
        assert_eq!(fs::read(&path).unwrap(), b"one");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
