//! Faces of a disk: an NBD server, and a file for loop devices, until they are told to stop.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use api::failure::{Exit, Failure};
use api::message::{Changed, Deed, DiskServed, Problem, Thing};
use api::output::Sink;
use api::request::{DiskServe, DiskSync, TakeOver};
use backup::catalog::disks as packs_of_disks;
use disk::Device;
use disk::nbd::address::{Address, ListenError, Listener, Reach};
use disk::nbd::server::{Options, Server};
use disks::on_peers::OnPeers;
use disks::open::OpenDisk;
use disks::voting::ClaimError;
use mount::MountOptions;
use mount::disk::{DiskMount, DiskMountError};

use super::exports::DiskExports;
use crate::mount::mount_failed;
use crate::{Engine, failures};

/// How long the end of serving waits for peers. Chosen: longer than a commit of a full journal over a slow uplink takes would be too long for
/// whoever shuts a machine down; what is not committed stays in the journal.
const CLOSE_PATIENCE: Duration = Duration::from_secs(60);
/// Between two attempts to unmount a file that is in use.
const UNMOUNT_PAUSE: Duration = Duration::from_secs(1);

impl Engine {
    pub(crate) async fn serve_disk(&self, asked: DiskServe, sink: &Sink) -> Result<Exit, Failure> {
        if asked.nbd.is_empty() && asked.file.is_none() {
            return Err(Failure::new(Exit::Usage, "Nothing says how to serve it")
                .hint("add --nbd unix:PATH, or use `disk mount`"));
        }
        let file = asked.file.as_ref().map(|file| split(&file.to_path())).transpose()?;
        if let Some((at, _)) = &file {
            self.check_outside_of_folders(at)?;
            check_empty(at)?;
        }
        let known = self.find_disk(&asked.name).await?;
        // Before the disk is opened: an address that is in use costs nothing.
        let mut listeners = Vec::new();
        for address in &asked.nbd {
            let address: Address = address.parse().map_err(not_listening)?;
            listeners.push(Listener::bind(&address, Reach::Loopback).await.map_err(not_listening)?);
        }
        let (known, take_over) = match self.replace_gone(&known, asked.take_over).await {
            Some(changed) => (changed, TakeOver::Never),
            None => (known, asked.take_over),
        };
        let (disk, in_use) = self.open_disk(&known, take_over).await?;
        let faces = Faces {
            name: known.name.clone(),
            device: match asked.sync {
                DiskSync::Local => disk.device(),
                DiskSync::Grid => Arc::new(OnPeers::new(disk.clone())),
            },
            disk: disk.clone(),
            listeners,
            file,
            allow_other: asked.allow_other,
        };
        let served = faces.serve(sink, &|served_at| in_use.set_served_at(served_at)).await;
        let fenced = disk.voting().progress().fenced;
        // Also after a face that failed: what was written counts.
        let closed = self.close_disk(&known, disk, CLOSE_PATIENCE, sink).await;
        if closed.is_ok() {
            // Whoever does not listen any more has what was to be told.
            let told = Changed::new(Deed::Committed, Thing::Disk, known.name.clone());
            let _nobody_reads = sink.send(told).await;
        }
        let ended = served.and_then(|exit| closed.map(|()| exit))?;
        match fenced {
            // Nothing is lost, but nobody asked for this end.
            Some(by) => {
                // That one looks after its packs, and gives them up without a word to this one.
                self.0.db.write(|tx| packs_of_disks::set_elsewhere(tx, known.volume))?;
                Err(self.not_claimed(&known.name, &ClaimError::Fenced { by }).await)
            }
            None => Ok(ended),
        }
    }
}

/// What is in a folder is hidden by what is mounted on it: a peer's shares, for one. One that cannot be listed is refused by the mount.
fn check_empty(at: &Path) -> Result<(), Failure> {
    match std::fs::read_dir(at).map(|mut entries| entries.next().is_some()) {
        Ok(true) => Err(Failure::new(Exit::Usage, format!("`{}` is not empty", at.display()))
            .hint("name a file in an empty folder, which is mounted on")),
        _ => Ok(()),
    }
}

/// The folder to mount on, and the file's name.
fn split(path: &Path) -> Result<(PathBuf, std::ffi::OsString), Failure> {
    match (path.parent(), path.file_name()) {
        (Some(at), Some(name)) => Ok((at.to_owned(), name.to_owned())),
        _ => Err(Failure::new(
            Exit::Usage,
            format!("`{}` is no path of a file", path.display()),
        )),
    }
}

struct Faces {
    name: String,
    disk: Arc<OpenDisk>,
    device: Arc<dyn Device>,
    listeners: Vec<Listener>,
    file: Option<(PathBuf, std::ffi::OsString)>,
    allow_other: bool,
}

impl Faces {
    async fn serve(self, sink: &Sink, say: &(dyn Fn(Vec<String>) + Sync)) -> Result<Exit, Failure> {
        let mut said = DiskServed {
            name: self.name.clone(),
            size: self.device.size(),
            ..DiskServed::default()
        };
        let mut mounted = match &self.file {
            Some((at, name)) => {
                said.file = Some(at.join(name).to_string_lossy().into_owned());
                Some(self.mount(at, name).await?)
            }
            None => None,
        };
        let exports = DiskExports {
            name: self.name.clone(),
            disk: self.disk.clone(),
            device: self.device.clone(),
        };
        let server = Server::new(Arc::new(exports), Options::default());
        let mut serving = tokio::task::JoinSet::new();
        for listener in self.listeners {
            said.nbd
                .extend(listener.local_address().ok().map(|address| address.to_string()));
            let server = server.clone();
            serving.spawn(async move { server.serve(listener).await });
        }
        say(said.nbd.iter().cloned().chain(said.file.clone()).collect());
        let is_heard = sink.send(said).await;
        let gone = async {
            match &mut mounted {
                Some(mount) => mount.gone().await,
                None => std::future::pending().await,
            }
        };
        let ended = tokio::select! {
            () = sink.stop().cancelled() => None,
            gone = gone => Some(gone),
            _by = self.disk.voting().fenced() => None,
        };
        server.stop().await;
        serving.shutdown().await;
        let unmounted = match (ended, mounted) {
            (Some(gone), _) => gone,
            (None, Some(mount)) => unmount(mount, sink).await,
            (None, None) => Ok(()),
        };
        unmounted.map_err(file_failed)?;
        is_heard?;
        Ok(Exit::Done)
    }

    async fn mount(&self, at: &Path, name: &std::ffi::OsStr) -> Result<DiskMount, Failure> {
        let options = MountOptions {
            at: at.to_owned(),
            allow_other: self.allow_other,
        };
        let (device, name) = (self.device.clone(), name.to_owned());
        let mounting = tokio::task::spawn_blocking(move || DiskMount::start(device, &name, &options));
        mounting.await.map_err(failures::worker)?.map_err(file_failed)
    }
}

/// Unmounts as soon as nobody uses the file: what is written to it until then counts.
async fn unmount(mut mount: DiskMount, sink: &Sink) -> Result<(), DiskMountError> {
    let mut is_said = false;
    loop {
        match mount.unmount().await {
            Err(error @ DiskMountError::InUse { .. }) => {
                if !is_said {
                    tracing::warn!("{error}");
                    let _nobody_reads = sink.send(Problem::new(error.to_string())).await;
                    is_said = true;
                }
                tokio::time::sleep(UNMOUNT_PAUSE).await;
            }
            ended => return ended,
        }
    }
}

fn not_listening(error: ListenError) -> Failure {
    let exit = match error {
        ListenError::Address(_) | ListenError::NotLoopback(_) => Exit::Usage,
        _ => Exit::Failed,
    };
    Failure::from_error(&error).exit(exit)
}

fn file_failed(error: DiskMountError) -> Failure {
    match error {
        DiskMountError::Mount(error) => mount_failed(error),
        error => Failure::from_error(&error),
    }
}
