//! Taking over an account: reach some peers, take the newest head, rebuild the catalog.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use jiff::Timestamp;
use upload_queue::peers::Peer;

use crate::config::ConfigFile;
use crate::engine::dir_peer::DirPeer;
use crate::engine::peers::folder_peer;
use crate::engine::{Engine, failures};
use crate::failure::{Exit, Failure};
use crate::message::{Progress, RecoverSummary, Summary};
use crate::output::Sink;

impl Engine {
    pub(super) async fn recover(
        &self,
        via: &[String],
        before: Option<Timestamp>,
        sink: &Sink,
    ) -> Result<Exit, Failure> {
        let _busy = self.0.busy.lock().await;
        let started = Instant::now();
        let mut folders = Vec::new();
        for place in via {
            match place.strip_prefix("dir:") {
                Some(path) => folders.push(self.existing_folder(Path::new(path))?),
                None => self.meet(place).await?,
            }
        }
        let mut reader = self.reader().await?;
        if !folders.is_empty() {
            // Peers named on the command line come first; they enter the config only when recovery succeeded.
            let mut peers = self.0.peers.all();
            peers.extend(folders.iter().map(|(peer, _)| peer.clone()));
            reader.peers = upload_queue::peers::PeerSet::new(peers);
        }
        let progress = sink.clone();
        let say = move |what: &str| {
            let current = Some(what.to_owned());
            progress.progress(Progress {
                phase: "recover".to_owned(),
                current,
                ..Progress::default()
            });
        };
        let before_ns = before.map(|before| i64::try_from(before.as_nanosecond()).unwrap_or(i64::MAX));
        let found = backup::recover::recover(&reader, &self.0.home.account, before_ns, &say)
            .await
            .map_err(failures::recover)?;
        self.keep_folders(&folders)?;
        let summary = RecoverSummary {
            account: self.0.home.account.account_id().to_string(),
            device: self.device().to_string(),
            recovered_device: found.device_name,
            snapshots: found.snapshots,
            snapshots_forgotten: found.forgotten,
            files: found.files,
            peers_answered: found.peers_answered as u64,
            peers_bad: found
                .peers_bad
                .into_iter()
                .map(|(peer, reason)| format!("{peer}: {reason}"))
                .collect(),
            seconds: started.elapsed().as_secs_f64(),
        };
        sink.send(Summary::Recover(summary)).await?;
        Ok(Exit::Done)
    }

    fn existing_folder(&self, path: &Path) -> Result<(Peer, PathBuf), Failure> {
        let store = DirPeer::new(path.to_owned(), self.signer(), None);
        store
            .store()
            .map_err(|error| Failure::from_error(&error).hint("name the folder that was added as a peer"))?;
        let name = path
            .file_name()
            .map_or_else(|| "folder".to_owned(), |name| name.to_string_lossy().into_owned());
        Ok((folder_peer(&name, path, Arc::new(store)), path.to_owned()))
    }

    /// Folders that recovery was done from are peers from now on.
    fn keep_folders(&self, folders: &[(Peer, PathBuf)]) -> Result<(), Failure> {
        let mut file = ConfigFile::open(&self.0.home.paths.config())?;
        for (peer, path) in folders {
            let name: String = peer
                .name
                .chars()
                .map(|c| if c.is_alphanumeric() { c } else { '-' })
                .collect();
            file.set(&format!("peers.{name}.url"), &format!("dir:{}", path.display()))?;
        }
        file.save()?;
        *self.0.config.write().expect("no panic while the config is locked") = file.config().clone();
        self.refresh_peers();
        Ok(())
    }
}
