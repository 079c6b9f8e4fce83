//! Taking over an account: reach some peers, take the newest head, rebuild the catalog.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use jiff::Timestamp;
use upload_queue::peers::Peer;

use crate::config::{ConfigFile, PeerConfig};
use crate::engine::buckets::S3;
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
        let (mut found, mut peers) = (Vec::new(), Vec::new());
        for place in via {
            if let Some(path) = place.strip_prefix("dir:") {
                let (peer, path) = self.existing_folder(Path::new(path))?;
                found.push(Found::Folder(peer.name.clone(), path));
                peers.push(peer);
            } else if place.starts_with(S3) {
                let bucket = self.existing_bucket(place).await?;
                if let Some(roster) = bucket.roster {
                    self.network().await?;
                    self.learn(vec![roster]).await;
                }
                found.push(Found::Bucket(bucket.name, bucket.config));
                peers.extend(bucket.peers);
            } else {
                self.meet(place).await?;
            }
        }
        let mut reader = self.reader().await?;
        if !peers.is_empty() {
            // Peers named on the command line enter the config only when recovery succeeded.
            peers.splice(0..0, self.0.peers.all());
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
        let recovered = backup::recover::recover(&reader, &self.0.home.account, before_ns, &say)
            .await
            .map_err(failures::recover)?;
        self.keep_places(found)?;
        let summary = RecoverSummary {
            account: self.0.home.account.account_id().to_string(),
            device: self.device().to_string(),
            recovered_device: recovered.device_name,
            snapshots: recovered.snapshots,
            snapshots_forgotten: recovered.forgotten,
            files: recovered.files,
            peers_answered: recovered.peers_answered as u64,
            peers_bad: recovered
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

    /// Folders and buckets that recovery was done from are peers from now on.
    fn keep_places(&self, found: Vec<Found>) -> Result<(), Failure> {
        let mut file = ConfigFile::open(&self.0.home.paths.config())?;
        for place in found {
            let (name, peer) = match place {
                Found::Bucket(name, peer) => (name, peer),
                Found::Folder(name, path) => {
                    let url = Some(format!("dir:{}", path.display()));
                    let peer = PeerConfig {
                        url,
                        ..PeerConfig::default()
                    };
                    (name, peer)
                }
            };
            let mut name: String = name
                .chars()
                .map(|c| if c.is_alphanumeric() { c } else { '-' })
                .collect();
            let peers = &file.config().peers;
            while peers.get(&name).is_some_and(|there| there.url != peer.url) {
                name.push('-');
            }
            let shares = peer.shares.map(|shares| shares.to_string());
            let fields = [
                ("url", peer.url),
                ("endpoint", peer.endpoint),
                ("region", peer.region),
                ("shares", shares),
            ];
            for (field, value) in fields {
                if let Some(value) = value {
                    file.set(&format!("peers.{name}.{field}"), &value)?;
                }
            }
        }
        file.save()?;
        *self.0.config.write().expect("no panic while the config is locked") = file.config().clone();
        self.refresh_peers();
        Ok(())
    }
}

/// A place without a node that was recovered from: its name, and what leads to it.
enum Found {
    Folder(String, PathBuf),
    Bucket(String, PeerConfig),
}
