//! Where a server listens: `unix:PATH` or `HOST:PORT`.
//!
//! A Unix socket is its owner's alone (mode 0600). TCP is for loopback unless the caller says otherwise, for nothing here asks who is
//! at the other end: that is TLS's part.

use std::fmt;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use rustix::fs::{Mode, fchmod};
use tokio::net::{TcpListener, UnixListener, UnixSocket};

use crate::nbd::link::{Link, Socket};
use crate::nbd::sessions::Client;

/// Connections that wait to be accepted.
const BACKLOG: u32 = 64;

/// Where a server listens.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Address {
    /// A Unix socket.
    Unix(PathBuf),
    /// A host (name or address) and a port.
    Tcp(String),
}

/// Which TCP addresses are listened on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reach {
    /// This machine's own.
    Loopback,
    /// All: whoever reaches the port reads and writes the disk.
    Anyone,
}

/// Why nobody can connect.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Neither form.
    #[error("`{0}` is no address: say unix:PATH or HOST:PORT")]
    Address(String),
    /// Another machine could connect.
    #[error(
        "`{0}` can be reached by other machines, and nothing asks who they are: listen on 127.0.0.1 or on a Unix socket"
    )]
    NotLoopback(SocketAddr),
    /// Somebody answers there.
    #[error("`{}` is in use by a running server", .0.display())]
    InUse(PathBuf),
    /// A file of somebody's.
    #[error("`{}` is there and is no socket; it stays as it is", .0.display())]
    NoSocket(PathBuf),
    /// The system says no.
    #[error("Cannot listen on `{address}`: {source}")]
    System {
        /// The address.
        address: Address,
        /// Why not.
        source: io::Error,
    },
}

impl FromStr for Address {
    type Err = ListenError;

    fn from_str(text: &str) -> Result<Self, ListenError> {
        let wrong = || ListenError::Address(text.to_owned());
        if let Some(path) = text.strip_prefix("unix:") {
            let is_path = !path.is_empty() && !path.contains('\0');
            return is_path.then(|| Self::Unix(path.into())).ok_or_else(wrong);
        }
        let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
        let is_bare_v6 = host.contains(':') && !(host.starts_with('[') && host.ends_with(']'));
        if host.is_empty() || is_bare_v6 || port.parse::<u16>().is_err() {
            return Err(wrong());
        }
        Ok(Self::Tcp(text.to_owned()))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Tcp(text) => f.write_str(text),
        }
    }
}

/// Takes connections. The socket's file goes away with it.
#[derive(Debug)]
pub enum Listener {
    /// On a Unix socket.
    Unix(UnixListener, SocketFile),
    /// On a port.
    Tcp(TcpListener),
}

/// The file of a Unix socket that this process made.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    inode: u64,
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // A server that came after this one has a file of its own in its place.
        if fs::symlink_metadata(&self.path).is_ok_and(|met| met.ino() == self.inode) {
            let _stays_behind = fs::remove_file(&self.path);
        }
    }
}

impl Listener {
    /// Listens from now on. May be dropped.
    pub async fn bind(address: &Address, reach: Reach) -> Result<Self, ListenError> {
        let failed = |source| ListenError::System {
            address: address.clone(),
            source,
        };
        match address {
            Address::Unix(path) => {
                remove_stale(path).map_err(|error| error.unwrap_or_else(failed))?;
                let (listener, file) = bind_unix(path).map_err(failed)?;
                Ok(Self::Unix(listener, file))
            }
            Address::Tcp(text) => {
                let found: Vec<SocketAddr> = tokio::net::lookup_host(text).await.map_err(failed)?.collect();
                let outside = found.iter().find(|address| !address.ip().to_canonical().is_loopback());
                if let (Some(outside), Reach::Loopback) = (outside, reach) {
                    return Err(ListenError::NotLoopback(*outside));
                }
                Ok(Self::Tcp(TcpListener::bind(&found[..]).await.map_err(failed)?))
            }
        }
    }

    /// The address, with the port that was given if none was asked for.
    pub fn local_address(&self) -> io::Result<Address> {
        Ok(match self {
            Self::Unix(_, file) => Address::Unix(file.path.clone()),
            Self::Tcp(listener) => Address::Tcp(listener.local_addr()?.to_string()),
        })
    }

    /// The next connection. May be dropped.
    pub async fn accept(&self) -> io::Result<Link> {
        match self {
            Self::Unix(listener, _) => {
                let (socket, _) = listener.accept().await?;
                let pid = socket.peer_cred()?.pid().unwrap_or_default();
                Ok(Link {
                    client: Client::Process(pid),
                    socket: Socket::Unix(socket.into_std()?),
                })
            }
            Self::Tcp(listener) => {
                let (socket, peer) = listener.accept().await?;
                Ok(Link {
                    client: Client::Machine(peer.ip().to_canonical()),
                    socket: Socket::Tcp(socket.into_std()?),
                })
            }
        }
    }
}

/// Removes the socket of a server that is dead; nothing else.
fn remove_stale(path: &Path) -> Result<(), SocketThere> {
    let met = match fs::symlink_metadata(path) {
        Ok(met) => met,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(SocketThere::System(error)),
    };
    if !met.file_type().is_socket() {
        return Err(SocketThere::Known(ListenError::NoSocket(path.to_owned())));
    }
    match std::os::unix::net::UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(SocketThere::System)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        // Also one whose queue is full, or that this user may not reach, is somebody's.
        Ok(_) | Err(_) => Err(SocketThere::Known(ListenError::InUse(path.to_owned()))),
    }
}

enum SocketThere {
    Known(ListenError),
    System(io::Error),
}

impl SocketThere {
    fn unwrap_or_else(self, failed: impl Fn(io::Error) -> ListenError) -> ListenError {
        match self {
            Self::Known(error) => error,
            Self::System(error) => failed(error),
        }
    }
}

fn bind_unix(path: &Path) -> io::Result<(UnixListener, SocketFile)> {
    let socket = UnixSocket::new_stream()?;
    let private = Mode::RUSR | Mode::WUSR;
    // On Linux the file gets the socket's mode, so that it is at no time open to others. Elsewhere this may fail, and the next call does it.
    let _elsewhere = fchmod(&socket, private);
    socket.bind(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    let inode = fs::symlink_metadata(path)?.ino();
    let path = path.to_owned();
    Ok((socket.listen(BACKLOG)?, SocketFile { path, inode }))
}
