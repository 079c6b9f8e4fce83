//! The passphrase that key files are locked with: where it comes from, and locking and unlocking them (docs/format/keys.md §2).
//!
//! Every step leaves key files that can be read: one that is not locked yet, or no more, needs no passphrase.

use std::io::{IsTerminal, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use api::failure::{Exit, Failure};
use proto::keys::locked;
use proto::keys::locked::{COST, KeyFile, LockError, LockKey};
use zeroize::Zeroizing;

use super::HomePaths;
use super::key_file::{damaged, fill_random, read_if_there, replace_private};

/// Longest passphrase in bytes; far above any that is typed.
const PASSPHRASE_BYTES_MAX: u64 = 4096;
/// The passphrase itself, for machines that start alone.
const VARIABLE: &str = "GRIDBACKUP_PASSPHRASE";

/// Where a passphrase comes from. Without any it is asked for on the terminal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PassphraseSource {
    /// A file whose first line it is; `-`: stdin.
    pub file: Option<PathBuf>,
    /// A command of the shell that prints it: a keyring's, say.
    pub command: Option<String>,
}

impl PassphraseSource {
    /// Whether it comes from somewhere else than a terminal.
    pub fn is_given(&self) -> bool {
        self.file.is_some() || self.command.is_some() || std::env::var_os(VARIABLE).is_some()
    }

    /// Gets it. `what` is asked for on a terminal.
    pub fn get(&self, what: &str) -> Result<Zeroizing<String>, Failure> {
        let text = match (&self.file, &self.command) {
            (Some(file), _) => from_file(file)?,
            (None, Some(command)) => from_command(command)?,
            (None, None) => match std::env::var(VARIABLE) {
                Ok(passphrase) => Zeroizing::new(passphrase),
                Err(_) => ask(what)?,
            },
        };
        let line = text.lines().next().unwrap_or_default();
        match line.is_empty() {
            true => Err(Failure::new(Exit::Usage, "The passphrase is empty")),
            false => Ok(Zeroizing::new(line.to_owned())),
        }
    }
}

fn from_file(file: &Path) -> Result<Zeroizing<String>, Failure> {
    let mut text = Zeroizing::new(String::new());
    let read = match file == Path::new("-") {
        true => std::io::stdin().take(PASSPHRASE_BYTES_MAX).read_to_string(&mut text),
        false => std::fs::File::open(file).and_then(|open| open.take(PASSPHRASE_BYTES_MAX).read_to_string(&mut text)),
    };
    let failed =
        |error: &std::io::Error| Failure::context(format!("`{}` cannot be read: {error}", file.display()), error);
    read.map(|_| text).map_err(|error| failed(&error))
}

fn from_command(command: &str) -> Result<Zeroizing<String>, Failure> {
    let failed = |why: String| Failure::new(Exit::Failed, format!("`{command}` gives no passphrase: {why}"));
    let output = Command::new("sh")
        .args(["-c", command])
        .stdin(Stdio::inherit())
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| failed(error.to_string()))?;
    if !output.status.success() {
        return Err(failed(output.status.to_string()));
    }
    let text = String::from_utf8(output.stdout).map_err(|_| failed("it is no text".to_owned()))?;
    Ok(Zeroizing::new(text))
}

/// Asks on the terminal, without an echo.
pub fn ask(what: &str) -> Result<Zeroizing<String>, Failure> {
    let nobody = || {
        Failure::new(
            Exit::WrongPhrase,
            "The keys of this home are locked, and no passphrase is given",
        )
        .hint(format!(
            "give it with --passphrase-file FILE, --passphrase-command COMMAND or {VARIABLE}, or start on a terminal"
        ))
    };
    if !std::io::stdin().is_terminal() {
        return Err(nobody());
    }
    rpassword::prompt_password(format!("{what}: "))
        .map(Zeroizing::new)
        .map_err(|_| nobody())
}

/// Opens the key files of a home; asks for the passphrase once, and only if one of them is locked.
pub(super) struct Opener<'a> {
    paths: &'a HomePaths,
    key: Option<LockKey>,
}

impl<'a> Opener<'a> {
    pub(super) fn new(paths: &'a HomePaths) -> Self {
        Self { paths, key: None }
    }

    pub(super) fn open(
        &mut self,
        kind: KeyFile,
        path: &Path,
        file: Zeroizing<Vec<u8>>,
    ) -> Result<Zeroizing<Vec<u8>>, Failure> {
        if !locked::is_locked(&file) {
            return Ok(file);
        }
        let key = match self.key.take() {
            Some(key) => key,
            None => lock_key(self.paths)?,
        };
        let opened = locked::unlock(&key, kind, &file).map_err(|error| damaged(path, &error.to_string()));
        self.key = Some(key);
        opened
    }
}

/// The key that the passphrase opens.
fn lock_key(paths: &HomePaths) -> Result<LockKey, Failure> {
    let path = paths.keys_lock();
    let lock = read_if_there(&path)?.ok_or_else(|| no_lock(paths))?;
    let passphrase = paths.passphrase.get("Passphrase")?;
    locked::open_lock(&lock, passphrase.as_bytes()).map_err(|error| match error {
        LockError::Passphrase => Failure::new(
            Exit::WrongPhrase,
            format!("The passphrase does not open {}", path.display()),
        )
        .hint("without it the account can be taken over in another home with `gridbackup recover` and the words"),
        other => damaged(&path, &other.to_string()),
    })
}

/// Locks the keys of a home that was just made, if a passphrase is given.
pub(super) fn lock_new(paths: &HomePaths) -> Result<(), Failure> {
    match (paths.keys_lock().try_exists(), paths.passphrase.is_given()) {
        // What is left of a home that had a lock.
        (Ok(true), _) => lock_files(paths, &lock_key(paths)?),
        (_, true) => set(paths, &paths.passphrase.get("Passphrase")?),
        (_, false) => Ok(()),
    }
}

/// Locks the key files of a home with a passphrase, or gives those that are locked another one. The caller has the home's lock.
pub fn set(paths: &HomePaths, passphrase: &str) -> Result<(), Failure> {
    let key = match paths.keys_lock().try_exists() {
        Ok(false) => {
            check_unlocked(paths)?;
            let mut key = Zeroizing::new([0; 32]);
            fill_random(key.as_mut())?;
            key
        }
        _ => lock_key(paths)?,
    };
    // Of another home the lock would open, and the keys would not.
    let mut opener = Opener {
        paths,
        key: Some(key.clone()),
    };
    for (kind, path) in files(paths) {
        if let Some(file) = read_if_there(&path)? {
            opener.open(kind, &path, file)?;
        }
    }
    let (mut salt, mut nonce) = ([0; 16], [0; 24]);
    fill_random(&mut salt)?;
    fill_random(&mut nonce)?;
    let lock = locked::make_lock(&key, passphrase.as_bytes(), COST, salt, nonce).map_err(unlockable)?;
    replace_private(&paths.keys_lock(), &lock)?;
    lock_files(paths, &key)
}

/// A new lock opens nothing that another has locked.
fn check_unlocked(paths: &HomePaths) -> Result<(), Failure> {
    for (_, path) in files(paths) {
        if read_if_there(&path)?.is_some_and(|file| locked::is_locked(&file)) {
            return Err(no_lock(paths));
        }
    }
    Ok(())
}

fn no_lock(paths: &HomePaths) -> Failure {
    let path = paths.keys_lock();
    damaged(&path, "it is missing, and nothing else opens the keys of this home")
}

/// Locks what is not locked yet.
fn lock_files(paths: &HomePaths, key: &LockKey) -> Result<(), Failure> {
    let mut nonce = [0; 24];
    for (kind, path) in files(paths) {
        let Some(file) = read_if_there(&path)?.filter(|file| !locked::is_locked(file)) else {
            continue;
        };
        fill_random(&mut nonce)?;
        replace_private(&path, &locked::lock(key, kind, nonce, &file).map_err(unlockable)?)?;
    }
    Ok(())
}

/// Unlocks the key files for good. False if they are not locked. The caller has the home's lock.
pub fn remove(paths: &HomePaths) -> Result<bool, Failure> {
    if matches!(paths.keys_lock().try_exists(), Ok(false)) {
        return check_unlocked(paths).map(|()| false);
    }
    let key = lock_key(paths)?;
    for (kind, path) in files(paths) {
        let Some(file) = read_if_there(&path)?.filter(|file| locked::is_locked(file)) else {
            continue;
        };
        let plain = locked::unlock(&key, kind, &file).map_err(|error| damaged(&path, &error.to_string()))?;
        replace_private(&path, &plain)?;
    }
    let path = paths.keys_lock();
    durable::remove(&path)
        .map_err(|error| Failure::context(format!("`{}` cannot be removed: {error}", path.display()), &error))?;
    Ok(true)
}

fn files(paths: &HomePaths) -> [(KeyFile, PathBuf); 2] {
    [
        (KeyFile::Account, paths.account_key()),
        (KeyFile::Device, paths.device_key()),
    ]
}

fn unlockable(error: LockError) -> Failure {
    Failure::new(Exit::Failed, format!("The keys cannot be locked: {error}"))
}
