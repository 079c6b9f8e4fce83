//! Which peers there are: what the config names, and the friends of the roster; reaching them, listing them.

use std::sync::Arc;
use std::time::Duration;

use api::failure::{Exit, Failure};
use api::output::Sink;
use api::{clock, message};
use friendnet::handle::NetHandle;
use friendnet::roster::Roster;
use futures::future::join_all;
use proto::id::{AccountId, DeviceId};
use stores::bucket::Signer;
use upload_queue::care::standing::{Patience, PeerRecord, Standing, Tally};
use upload_queue::packs;
use upload_queue::peers::place::Place;
use upload_queue::peers::{Peer, PeerKey, Reach};

use crate::config::{Config, ConfigFile, PeerConfig};
use crate::home::peer_id;
use crate::kind::kinds;
use crate::known::ACCOUNT;
use crate::policy::{patience, tolerate};
use crate::{Engine, kind};

/// How long a peer may take to say how much space it has.
pub(super) const PROBE_WAIT: Duration = Duration::from_secs(4);

impl Engine {
    /// Puts what the config names and, once the network runs, the friends of the roster into the peer set.
    pub(super) fn refresh_peers(&self) {
        let config = self.config();
        if let Some(net) = self.0.net.get() {
            self.set_quotas(net, &config);
        }
        let mut peers: Vec<_> = kinds().flat_map(|kind| self.open_peers(kind, &config)).collect();
        // Of a folder it is known at once whether it is there.
        for peer in peers.iter_mut().filter(|peer| peer.reach == Reach::Remote) {
            peer.store = self.0.silence.minded(&peer.key, peer.store.clone());
        }
        self.0.peers.set(peers);
        self.give_up_removed(&config);
        if let Some(uploader) = self.0.uploader.get() {
            uploader.set_steward(self.steward());
            uploader.set_tolerate(tolerate(&config));
            uploader.wake();
        }
    }

    /// The friends of the roster, once the network runs.
    pub(super) fn friend_peers(&self) -> Vec<Peer> {
        let Some(net) = self.0.net.get() else {
            return Vec::new();
        };
        let friends = self.friends(&net.roster()).into_iter().map(|friend| {
            let place = Place::Friend(friend.device);
            Peer {
                key: place.key(),
                place,
                domain: format!("{ACCOUNT}{}", friend.account),
                reach: Reach::Remote,
                store: Arc::new(net.peer(friend.device)),
                name: friend.name,
            }
        });
        friends.collect()
    }

    /// Tells the network what each friend may use here.
    pub(super) fn set_quotas(&self, net: &NetHandle, config: &Config) {
        let roster = net.roster();
        for friend in self.friends(&roster) {
            let entry = config_of(config, &roster, friend.account);
            let quota = entry.and_then(|(_, peer)| peer.quota.as_ref());
            net.set_quota(friend.account, quota.map(|quota| quota.0));
        }
    }

    /// Limits what a friend may use here.
    pub(super) async fn limit_friend(&self, name: &str, quota: Option<u64>, sink: &Sink) -> Result<Exit, Failure> {
        let account = self.member_named(name)?;
        let roster = Roster::load(&self.0.home.paths.roster());
        let (Some(account), Some(roster)) = (account, roster) else {
            return Err(self.unknown_peer(name));
        };
        let Some(quota) = quota else {
            return Err(Failure::new(
                Exit::Usage,
                format!("{name} is a friend, who holds one share of a pack"),
            )
            .hint("a friend has a --quota, a bucket also --shares"));
        };
        let mut file = ConfigFile::open(&self.0.home.paths.config())?;
        let entry = config_of(file.config(), &roster, account).map(|(name, _)| name.to_owned());
        let is_taken = |key: &String| file.config().peers.contains_key(key);
        let free = || {
            let name = Some(roster.name_of(account)).filter(|name| !is_taken(name));
            name.unwrap_or_else(|| account.to_string())
        };
        let key = entry.unwrap_or_else(free);
        file.set_of_peer(&key, "account", &account.to_string())?;
        file.set_of_peer(&key, "quota", &quota.to_string())?;
        file.save()?;
        self.set_config(file.config().clone());
        sink.send(message::Changed::new(
            message::Deed::Changed,
            message::Thing::Peer,
            name,
        ))
        .await?;
        Ok(Exit::Done)
    }

    pub(super) fn signer(&self) -> Signer {
        Signer {
            device: self.0.home.device.clone(),
            cert: self.0.home.cert.clone(),
        }
    }

    /// The devices of all other accounts in the roster.
    pub(super) fn friends(&self, roster: &Roster) -> Vec<Friend> {
        let own = self.0.home.account.account_id();
        let friends = roster.keepers(own).map(|device| Friend {
            device: device.cert.device,
            account: device.cert.account,
            name: roster.name_of(device.cert.account),
        });
        friends.collect()
    }

    /// Starts the network if there is anybody to reach. Friends are dialled when they are first asked for something: nobody
    /// waits for those who are away.
    pub(super) async fn connect(&self) -> Result<(), Failure> {
        let path = self.0.home.paths.roster();
        let roster = Roster::load(&path);
        if roster.is_some_and(|roster| !self.friends(&roster).is_empty()) {
            self.network().await?;
            self.refresh_peers();
        }
        Ok(())
    }

    /// The peers that answer now.
    pub(super) async fn online(&self) -> Vec<PeerKey> {
        let probes = self.0.peers.all().into_iter().map(|peer| async move {
            let answer = tokio::time::timeout(PROBE_WAIT, peer.store.space()).await;
            matches!(answer, Ok(Ok(_))).then_some(peer.key)
        });
        join_all(probes).await.into_iter().flatten().collect()
    }

    pub(super) async fn list_peers(&self, sink: &Sink) -> Result<Exit, Failure> {
        self.connect().await?;
        let config = self.config();
        let (watch, online) = self.look_at_peers().await?;
        let roster = Roster::load(&self.0.home.paths.roster());
        let peers = self.0.peers.all();
        for peer in peers.iter().filter(|peer| peer.place.is_counted()) {
            let mut bytes_for_me = 0;
            for part in peers.iter().filter(|part| kind::are_one(part, peer)) {
                bytes_for_me += self.0.db.read(|conn| packs::held_by(conn, &part.key))?.0;
            }
            let device = peer.place.device();
            let answers = online.contains(&peer.key);
            let route = device.and_then(|device| self.0.net.get()?.route(device));
            let known = watch.peers.get(&peer.key);
            let reach = if answers {
                kind::reach(peer, route)
            } else {
                message::Reach::None
            };
            let account = peer
                .domain
                .strip_prefix(ACCOUNT)
                .and_then(|id| id.parse::<AccountId>().ok());
            let kept = match account {
                Some(account) => self.bytes_kept_for(account).await,
                None => 0,
            };
            let message = message::Peer {
                kind: kind::of(&peer.place),
                peer_id: device.as_ref().map(peer_id),
                online: answers,
                reach,
                bytes_for_me,
                bytes_for_them: kept,
                quota: match (account, &roster) {
                    (Some(account), Some(roster)) => config_of(&config, roster, account).map(|(_, peer)| peer),
                    _ => config.peers.get(&peer.name),
                }
                .and_then(|peer| peer.quota.as_ref())
                .map(|quota| quota.0),
                uptime: known.and_then(|known| known.uptime()),
                last_seen: known.and_then(|known| known.seen_secs).and_then(clock::moment),
                audits: known.map(|known| audits(&known.tally)).filter(|(_, done)| *done > 0),
                standing: standing(known, &patience(&config)),
                is_steward: self.is_steward(&peer.key),
                name: peer.name.clone(),
            };
            sink.send(message).await?;
        }
        Ok(Exit::Done)
    }
}

/// Audits passed, and done: those that found nobody, or failed here, say nothing.
fn audits(tally: &Tally) -> (u64, u64) {
    (tally.success, tally.success + tally.failure + tally.contained)
}

fn standing(known: Option<&PeerRecord>, patience: &Patience) -> message::Standing {
    match known.map_or(Standing::Good, |known| known.standing(patience)) {
        Standing::Good => message::Standing::Good,
        Standing::Suspected => message::Standing::Suspected,
        Standing::Lost => message::Standing::Lost,
    }
}

/// A friend's device.
pub(super) struct Friend {
    pub device: DeviceId,
    pub account: AccountId,
    /// Its name for people.
    pub name: String,
}

/// What the config says of a friend: by its account, or, where a name stands alone, by that.
fn config_of<'a>(config: &'a Config, roster: &Roster, account: AccountId) -> Option<(&'a str, &'a PeerConfig)> {
    let name = roster.member(account).map(|member| member.name.as_str());
    let friends = || config.peers.iter().filter(|(_, peer)| peer.url.is_none());
    let id = account.to_string();
    let by_account = friends().find(|(_, peer)| peer.account.as_ref() == Some(&id));
    let by_name = || friends().find(|(key, peer)| peer.account.is_none() && Some(key.as_str()) == name);
    let found = by_account.or_else(by_name);
    found.map(|(key, peer)| (key.as_str(), peer))
}
