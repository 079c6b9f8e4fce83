//! Mounting: from the request to a file system or a server that shows the snapshots until it is told to stop.

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use api::clock;
use api::failure::{Exit, Failure};
use api::message::{MountSummary, Mounted, Summary};
use api::output::Sink;
use api::request::Mount;
use backup::restore::file::{CACHE_BYTES_MAX, Files};
use backup::view::{View, ViewOptions};
use jiff::tz::TimeZone;
use mount::webdav::{WebDav, WebDavError};
use mount::{FuseMount, MountError, MountOptions};

use crate::config::notices;
use crate::home::secret;
use crate::{Engine, failures};

/// A new snapshot is seen so soon.
const SNAPSHOTS_KEPT: Duration = Duration::from_secs(1);

impl Engine {
    pub(super) async fn mount(&self, request: Mount, sink: &Sink) -> Result<Exit, Failure> {
        if request.at.is_none() && request.webdav.is_none() {
            return Err(
                Failure::new(Exit::Usage, "Nothing says where to mount").hint("name a folder, or --webdav ADDR")
            );
        }
        if let Some(at) = &request.at {
            self.check_outside_of_folders(&at.to_path())?;
        }
        let started = Instant::now();
        let files = Files::new(self.reader().await?, CACHE_BYTES_MAX);
        let view = View::new(files.clone(), view_options());
        let dav = match &request.webdav {
            Some(address) => Some(self.listen_for_webdav(address, view.clone(), sink).await?),
            None => None,
        };
        let mut said = Mounted::default();
        if let Some((dav, password)) = &dav {
            (said.webdav, said.password) = (Some(dav.url()), Some(password.clone()));
        }
        let mut fuse = match request.at {
            Some(at) => {
                said.at = Some(at.display());
                let options = MountOptions {
                    at: at.to_path(),
                    allow_other: request.allow_other,
                };
                let mounting = tokio::task::spawn_blocking(move || FuseMount::mount(view, &options));
                Some(mounting.await.map_err(failures::worker)?.map_err(mount_failed)?)
            }
            None => None,
        };
        sink.send(said).await?;
        let gone = async {
            match &mut fuse {
                Some(fuse) => fuse.gone().await,
                None => std::future::pending().await,
            }
        };
        let serving = async {
            match dav {
                Some((dav, _)) => dav.serve().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = sink.stop().cancelled() => {}
            () = gone => {}
            () = serving => {}
        }
        tokio::task::spawn_blocking(move || drop(fuse))
            .await
            .map_err(failures::worker)?;
        sink.send(Summary::Mount(summary(&files, started))).await?;
        Ok(Exit::Done)
    }

    /// A backup would find the mount in its folder and back up the backups.
    pub(super) fn check_outside_of_folders(&self, at: &Path) -> Result<(), Failure> {
        let folders = self.config().folders;
        let real = std::fs::canonicalize(at).unwrap_or_else(|_| at.to_owned());
        match folders
            .iter()
            .find(|folder| at.starts_with(folder) || notices::lies_in(&real, folder))
        {
            None => Ok(()),
            Some(folder) => Err(Failure::new(
                Exit::Failed,
                format!("`{}` lies in `{}`, which is backed up", at.display(), folder.display()),
            )
            .hint("mount somewhere else")),
        }
    }

    async fn listen_for_webdav(&self, address: &str, view: View, sink: &Sink) -> Result<(WebDav, String), Failure> {
        let address: SocketAddr = address.parse().map_err(|_| {
            Failure::new(Exit::Usage, format!("`{address}` is no address")).hint("write 127.0.0.1:PORT")
        })?;
        let password = secret(&self.0.home.paths.webdav_password())?;
        let stop = sink.stop().child_token();
        let dav = WebDav::bind(address, view, password.clone(), stop).await;
        let dav = dav.map_err(webdav_failed)?;
        Ok((dav, password.to_string()))
    }
}

fn view_options() -> ViewOptions {
    let zone = TimeZone::system();
    let date_name = move |ns| {
        let time = clock::timestamp(ns).to_zoned(zone.clone());
        time.strftime("%Y-%m-%dT%H-%M-%S").to_string()
    };
    ViewOptions {
        snapshots_kept: SNAPSHOTS_KEPT,
        date_name: Box::new(date_name),
    }
}

fn summary(files: &Files, started: Instant) -> MountSummary {
    let stats = files.stats();
    MountSummary {
        bytes_fetched: stats.bytes_fetched,
        ranges_fetched: stats.ranges_fetched,
        peers_used: stats.peers_used.into_iter().collect(),
        peers_bad: stats.peers_bad.into_keys().collect(),
        seconds: started.elapsed().as_secs_f64(),
    }
}

pub(super) fn mount_failed(error: MountError) -> Failure {
    let hint = match &error {
        MountError::NoFuse => "use --webdav 127.0.0.1:PORT instead",
        MountError::NoFolder { .. } => "make an empty folder and name it",
        MountError::Dead { path } => {
            let at = path.display();
            let hint = format!("take that away with `fusermount3 -u {at}`, or as root with `umount -l {at}`");
            return Failure::from_error(&error).hint(hint);
        }
        MountError::Refused { .. } => {
            "ordinary users need fusermount3 (package fuse3), and for --allow-other `user_allow_other` in /etc/fuse.conf"
        }
    };
    Failure::from_error(&error).hint(hint)
}

fn webdav_failed(error: WebDavError) -> Failure {
    match &error {
        WebDavError::NotLoopback { .. } => Failure::from_error(&error).exit(Exit::Usage),
        WebDavError::Listen { .. } => Failure::from_error(&error).hint("choose another port, or 0 for any"),
    }
}
