//! A home: one folder (or the platform's config and data folders) with everything one node knows.
//!
//! ```text
//! config.toml        what the user sets            account.key   0600, the account's keys
//! catalog.db         tree, content, queue          device.key    0600, this machine's key
//! spool/             sealed shares on their way    device.cert   the account's word for it
//! store/             shares kept for friends       roster        members of the grid
//! lock               held by the owning process    api.sock      its API (see `HomePaths::api_socket`)
//! keys.lock          0600, if keys are locked
//! ```

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use api::failure::{Exit, Failure};
use api::http::ApiServer;
use ed25519_dalek::SigningKey;
use proto::keys::{AccountKeys, DeviceCert};

pub(crate) mod identity;
mod key_file;
mod lock;
mod own;
pub mod passphrase;

pub use identity::{DEVICE_NAME_BYTES_MAX, Identity, left_cert, peer_id, secret};
pub use key_file::{fill_random, keep_private, write_private};
pub use lock::{HomeLock, busy};
pub use own::{OwnFolders, check_deletion};

use self::passphrase::PassphraseSource;
use crate::config::last_good::InForce;
use crate::config::{Config, last_good};

/// Where a home's files are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HomePaths {
    config_dir: PathBuf,
    state_dir: PathBuf,
    passphrase: PassphraseSource,
}

/// An open home: locked, its config read, its keys in memory.
pub struct Home {
    /// Where its files are.
    pub paths: HomePaths,
    /// Its config as it was when the home was opened.
    pub config: Config,
    /// Why config.toml cannot be used; then `config` is an earlier one.
    pub config_fault: Option<Failure>,
    /// The account's keys.
    pub account: AccountKeys,
    /// This device's key.
    pub device: SigningKey,
    /// The account's word for this device.
    pub cert: DeviceCert,
    lock: HomeLock,
}

/// Bytes of a socket's path that every system takes (`sun_path` has 104 on macOS, 108 on Linux, one for the final zero).
const SOCKET_PATH_BYTES_MAX: usize = 100;

impl HomePaths {
    /// The home in `dir`, or the user's: XDG config and data folders.
    pub fn locate(dir: Option<&Path>) -> Result<Self, Failure> {
        if let Some(dir) = dir {
            let dir = std::path::absolute(dir).map_err(|error| {
                Failure::context(format!("`{}` is no folder for a home", dir.display()), &error).exit(Exit::Usage)
            })?;
            return Ok(Self {
                config_dir: dir.clone(),
                state_dir: dir,
                passphrase: PassphraseSource::default(),
            });
        }
        let user = std::env::var_os("HOME")
            .map(PathBuf::from)
            .filter(|path| path.is_absolute());
        let base = |variable: &str, below_home: &str| {
            std::env::var_os(variable)
                .map(PathBuf::from)
                .filter(|path| path.is_absolute())
                .or_else(|| user.as_ref().map(|user| user.join(below_home)))
                .map(|base| base.join("gridbackup"))
                .ok_or_else(|| {
                    Failure::new(Exit::Failed, "No home folder is known")
                        .hint("set HOME, or name a folder with --home DIR")
                })
        };
        Ok(Self {
            config_dir: base("XDG_CONFIG_HOME", ".config")?,
            state_dir: base("XDG_DATA_HOME", ".local/share")?,
            passphrase: PassphraseSource::default(),
        })
    }

    /// The same home, whose keys are opened with a passphrase from here.
    #[must_use]
    pub fn with_passphrase(mut self, passphrase: PassphraseSource) -> Self {
        self.passphrase = passphrase;
        self
    }

    /// Where the passphrase of this home comes from.
    pub fn passphrase(&self) -> &PassphraseSource {
        &self.passphrase
    }

    /// What the passphrase opens; there if the keys are locked.
    pub fn keys_lock(&self) -> PathBuf {
        self.state_dir.join("keys.lock")
    }

    /// config.toml.
    pub fn config(&self) -> PathBuf {
        self.config_dir.join("config.toml")
    }

    /// config.toml as it was when it could last be used.
    pub fn last_config(&self) -> PathBuf {
        self.state_dir.join("config.last")
    }

    /// The account's keys.
    pub fn account_key(&self) -> PathBuf {
        self.state_dir.join("account.key")
    }

    /// This device's key.
    pub fn device_key(&self) -> PathBuf {
        self.state_dir.join("device.key")
    }

    /// This device's certificate.
    pub fn device_cert(&self) -> PathBuf {
        self.state_dir.join("device.cert")
    }

    /// The catalog.
    pub fn catalog(&self) -> PathBuf {
        self.state_dir.join("catalog.db")
    }

    /// The inventory of what `publish` put into a bucket; needs no account.
    pub fn publish_inventory(&self, name: &str) -> PathBuf {
        self.state_dir.join("publish").join(name)
    }

    /// Sealed shares on their way.
    pub fn spool(&self) -> PathBuf {
        self.state_dir.join("spool")
    }

    /// What is known of virtual disks, with their journals and maps.
    pub fn disks(&self) -> PathBuf {
        self.state_dir.join("disks")
    }

    /// Peers that did not answer lately.
    pub fn silent(&self) -> PathBuf {
        self.state_dir.join("silent")
    }

    /// Shares kept for friends.
    pub fn store(&self) -> PathBuf {
        self.state_dir.join("store")
    }

    /// Members of the grid.
    pub fn roster(&self) -> PathBuf {
        self.state_dir.join("roster")
    }

    /// Digest of the roster that was last left in the bucket at `url`.
    pub fn told_roster(&self, url: &str) -> PathBuf {
        let name = &blake3::hash(url.as_bytes()).to_hex()[..16];
        self.state_dir.join(format!("roster-told-{name}"))
    }

    /// Held by the owning process.
    pub fn lock(&self) -> PathBuf {
        self.state_dir.join("lock")
    }

    /// Serves the API at this home's socket, and on a loopback port if asked for. The caller holds the home's lock.
    pub async fn bind_api(&self, loopback: Option<SocketAddr>) -> Result<ApiServer, Failure> {
        let socket = self.api_socket();
        if let Some(folder) = socket.parent() {
            // Connecting is as good as the account: the folder keeps others out before the socket's own mode is set.
            create_private_dir(folder)?;
        }
        ApiServer::bind(socket, self.requests(), loopback, || secret(&self.api_token())).await
    }

    /// The keys of requests that were answered, with the answers.
    fn requests(&self) -> PathBuf {
        self.state_dir.join("requests.db")
    }

    /// The bearer token of the API on TCP.
    pub fn api_token(&self) -> PathBuf {
        self.state_dir.join("api.token")
    }

    /// The password of the WebDAV server.
    pub fn webdav_password(&self) -> PathBuf {
        self.state_dir.join("webdav.password")
    }

    /// Where anything else lies that belongs to this home's state.
    pub fn state_dir(&self) -> &Path {
        &self.state_dir
    }

    /// The API's socket: in the home, or, because a socket's path must be short, in the user's runtime folder under a
    /// hash of the home's path.
    pub fn api_socket(&self) -> PathBuf {
        let plain = self.state_dir.join("api.sock");
        if plain.as_os_str().len() <= SOCKET_PATH_BYTES_MAX {
            return plain;
        }
        let hash = blake3::hash(self.state_dir.as_os_str().as_encoded_bytes()).to_hex();
        let runtime = std::env::var_os("XDG_RUNTIME_DIR")
            .map(|dir| PathBuf::from(dir).join("gridbackup"))
            .filter(|dir| dir.is_absolute() && dir.as_os_str().len() <= SOCKET_PATH_BYTES_MAX - 40);
        runtime
            .unwrap_or_else(|| PathBuf::from(format!("/tmp/gridbackup-{}", rustix::process::getuid().as_raw())))
            .join(format!("{}.sock", &hash[..16]))
    }

    /// Is there an account here?
    pub fn has_account(&self) -> bool {
        self.account_key().exists()
    }

    /// Was this home at work once, whether or not its account's key is still there? What a making that was cut off leaves behind
    /// is not counted.
    pub fn was_used(&self) -> bool {
        let has_backups = |db: database::Db| {
            db.read(|conn| {
                let posted = backup::catalog::content::posted(conn)?.is_some();
                Ok::<_, database::DbError>(posted || backup::catalog::tree::latest(conn)?.is_some())
            })
        };
        let catalog = self.catalog();
        let is_filled = catalog.exists()
            && !matches!(
                backup::catalog::open_existing(&catalog).and_then(has_backups),
                Ok(false)
            );
        is_filled || self.roster().exists()
    }

    /// Makes the folders, for this user only.
    pub fn create(&self) -> Result<(), Failure> {
        for dir in [&self.config_dir, &self.state_dir] {
            create_private_dir(dir)?;
        }
        Ok(())
    }
}

impl Home {
    /// Opens a home whose lock the caller has: exit 10 if it has no account.
    pub fn open_locked(paths: HomePaths, lock: HomeLock) -> Result<Self, Failure> {
        if !paths.has_account() {
            return Err(no_account(&paths));
        }
        let InForce { config, fault } = InForce::read(&paths.config(), &paths.last_config());
        if fault.is_none() && !lock.is_to_read() {
            last_good::keep(&paths.config(), &paths.last_config());
        }
        let Identity { account, device, cert } = Identity::read(&paths)?;
        Ok(Self {
            paths,
            config,
            config_fault: fault,
            account,
            device,
            cert,
            lock,
        })
    }

    /// Whether it can only be read.
    pub fn is_to_read(&self) -> bool {
        self.lock.is_to_read()
    }
}

/// The failure of every command in a home without an account.
pub fn no_account(paths: &HomePaths) -> Failure {
    if let Err(error) = paths.account_key().try_exists() {
        let text = format!("`{}` cannot be looked at: {error}", paths.state_dir.display());
        return Failure::new(Exit::Failed, text)
            .hint("work as the user whose home it is, or name another with --home DIR");
    }
    Failure::new(
        Exit::NoAccount,
        format!("There is no account in {}", paths.state_dir.display()),
    )
    .hint("make one with `gridbackup init`, or take one over with `gridbackup recover`")
}

/// Makes a folder for this user only; one that is there must be the user's own.
pub fn create_private_dir(dir: &Path) -> Result<(), Failure> {
    let failed = |error: &std::io::Error| Failure::context(format!("`{}` cannot be made", dir.display()), error);
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(|error| failed(&error))?;
    let metadata = fs::metadata(dir).map_err(|error| failed(&error))?;
    if metadata.uid() != rustix::process::geteuid().as_raw() {
        return Err(
            Failure::new(Exit::Failed, format!("`{}` belongs to another user", dir.display()))
                .hint("name another folder with --home DIR"),
        );
    }
    if metadata.permissions().mode() & 0o077 != 0 {
        fs::set_permissions(dir, fs::Permissions::from_mode(0o700)).map_err(|error| failed(&error))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_socket_of_a_deep_home_has_a_short_path_that_depends_on_the_home() {
        let deep = |leaf: &str| HomePaths::locate(Some(Path::new(&format!("/{}/{leaf}", "x".repeat(200))))).unwrap();
        let socket = deep("a").api_socket();
        assert!(
            socket.as_os_str().len() <= SOCKET_PATH_BYTES_MAX,
            "{}",
            socket.display()
        );
        assert_ne!(socket, deep("b").api_socket());
        let near = HomePaths::locate(Some(Path::new("/srv/gb"))).unwrap();
        assert_eq!(near.api_socket(), Path::new("/srv/gb/api.sock"));
    }

    #[test]
    fn a_folder_that_others_may_read_is_closed() {
        let dir = tempfile::tempdir().unwrap();
        let home = dir.path().join("home");
        fs::create_dir(&home).unwrap();
        fs::set_permissions(&home, fs::Permissions::from_mode(0o755)).unwrap();
        create_private_dir(&home).unwrap();
        assert_eq!(fs::metadata(&home).unwrap().permissions().mode() & 0o777, 0o700);
    }

    #[test]
    fn a_home_without_an_account_says_init() {
        let dir = tempfile::tempdir().unwrap();
        let paths = HomePaths::locate(Some(dir.path())).unwrap();
        let lock = HomeLock::take(&paths).unwrap();
        let Err(failure) = Home::open_locked(paths, lock) else {
            panic!("opened")
        };
        assert_eq!(failure.exit, Exit::NoAccount);
        assert!(failure.to_string().contains("gridbackup init"));
    }
}
