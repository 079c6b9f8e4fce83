//! Adding, changing and removing peers: what has to be known or done before config.toml may say it, and what it says then.

use api::failure::{Exit, Failure};
use api::message::{Changed, Deed, Message, Thing};
use api::output::Sink;
use api::request::{PeerAdd, PeerRemove, PeerSet};

use crate::Engine;
use crate::config::PeerUrl;
use crate::config::{self, ConfigFile, notices};

impl Engine {
    /// Makes a folder or bucket a peer.
    pub(super) async fn add_peer(&self, asked: &PeerAdd, sink: &Sink) -> Result<Exit, Failure> {
        let peer = self.prepare_peer(asked).await?;
        self.say_shared_disk(&peer, sink).await?;
        let messages = self.edit_config(|file| add(file, &peer))?;
        self.configured(messages, sink).await
    }

    /// Changes what a peer may hold: a folder or bucket by its entry in the config, else a friend.
    pub(super) async fn set_peer(&self, asked: &PeerSet, sink: &Sink) -> Result<Exit, Failure> {
        if let Some(shares) = asked.shares {
            self.resize_bucket(&asked.name, shares).await?;
        }
        let is_set = self.edit_config(|file| {
            let is_there = file.config().peers.contains_key(&asked.name);
            if is_there {
                limit(file, &asked.name, asked.quota, asked.shares)?;
            }
            Ok(is_there)
        })?;
        match is_set {
            true => self.configured(vec![changed(Deed::Changed, &asked.name)], sink).await,
            false => self.limit_friend(&asked.name, asked.quota, sink).await,
        }
    }

    /// Removes a member from the grid, or a folder or bucket from the config, if what it costs allows that.
    pub(super) async fn remove_peer(&self, asked: &PeerRemove, sink: &Sink) -> Result<Exit, Failure> {
        let whom = self.member_named(&asked.name)?;
        if !self.may_remove(&asked.name, whom, asked.how, sink).await? {
            return Ok(Exit::Done);
        }
        if let Some(whom) = whom {
            return self.remove_member(&asked.name, whom, sink).await;
        }
        let is_removed = self.edit_config(|file| {
            Ok(file.config().peers.contains_key(&asked.name) && file.unset(&format!("peers.{}", asked.name))?)
        })?;
        match is_removed {
            true => self.configured(vec![changed(Deed::Removed, &asked.name)], sink).await,
            false => Err(self.unknown_peer(&asked.name)),
        }
    }

    fn edit_config<T>(&self, change: impl FnOnce(&mut ConfigFile) -> Result<T, Failure>) -> Result<T, Failure> {
        let paths = &self.0.home.paths;
        config::edit(&paths.config(), &paths.last_config(), change)
    }
}

fn changed(action: Deed, name: &str) -> Message {
    Changed::new(action, Thing::Peer, name).into()
}

/// Says it in the config, where that has not said it.
fn add(file: &mut ConfigFile, peer: &PeerAdd) -> Result<Vec<Message>, Failure> {
    if peer.name.is_empty() || !peer.name.chars().all(|c| c.is_alphanumeric() || "-_".contains(c)) {
        return Err(
            Failure::new(Exit::Usage, format!("`{}` is no name for a peer", peer.name))
                .hint("use letters, digits, - and _"),
        );
    }
    PeerUrl::check(&peer.url).map_err(|reason| Failure::new(Exit::Usage, reason))?;
    if let Some(there) = file.config().peers.get(&peer.name) {
        if there.url.as_deref() == Some(&peer.url) {
            return Ok(vec![changed(Deed::Unchanged, &peer.name)]);
        }
        return Err(
            Failure::new(Exit::Failed, format!("There is a peer `{}` already", peer.name))
                .hint("choose another name, or remove it first with `gridbackup peer rm`"),
        );
    }
    let key = |field: &str| format!("peers.{}.{field}", peer.name);
    file.set(&key("url"), &peer.url)?;
    let texts = [
        ("endpoint", &peer.endpoint),
        ("region", &peer.region),
        ("storage_class", &peer.storage_class),
    ];
    for (field, value) in texts {
        if let Some(value) = value {
            file.set(&key(field), value)?;
        }
    }
    limit(file, &peer.name, peer.quota, peer.shares)?;
    let mut messages = vec![changed(Deed::Added, &peer.name)];
    let stores = notices::stores_in_folders(file.config()).into_iter();
    messages.extend(
        stores
            .filter(|store| store.peer.as_ref() == Some(&peer.name))
            .map(Message::from),
    );
    Ok(messages)
}

/// Sets the limits that are given.
fn limit(file: &mut ConfigFile, name: &str, quota: Option<u64>, shares: Option<u16>) -> Result<(), Failure> {
    if let Some(quota) = quota {
        file.set(&format!("peers.{name}.quota"), &quota.to_string())?;
    }
    if let Some(shares) = shares {
        file.set(&format!("peers.{name}.shares"), &shares.to_string())?;
    }
    Ok(())
}
