//! Repair for an owner who is away, by members who hold its shares and cannot read them.
//!
//! A share carries its pack's signed manifest: which shares there are. Who holds them, members ask each other. What the
//! members who are away just now hold, nobody can tell: each of them is taken to hold one of the missing shares until it
//! counts as lost. The owner learns of new places when it lists what its peers hold, in `repair` and in `recover`.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use api::clock;
use api::failure::Failure;
use api::output::Sink;
use friendnet::given_up::{Owner, Trash, was_given_up};
use friendnet::handle::NetHandle;
use friendnet::roster::Roster;
use futures::future::join_all;
use proto::id::{AccountId, DeviceId, PackId, ShareId};
use proto::manifest::Manifest;
use proto::share_store::{PeerStore, ShareStore};
use stores::folder::FolderStore;
use upload_queue::care::helper::{Turns, rank, seed_of};
use upload_queue::care::ledger;
use upload_queue::care::rebuild::{Source, build};
use upload_queue::care::repair::{Copy, PackState, Place, Planner};
use upload_queue::care::standing::{Standing, Watch};
use upload_queue::peers::batches::{Batches, Shelf};
use upload_queue::peers::place;
use upload_queue::peers::{Peer, PeerKey, Reach};

use crate::Engine;
use crate::known::ACCOUNT;
use crate::listing::listed;
use crate::policy::patience;

/// Rounds of repair that each further holder waits for the one before.
const ROUNDS_PER_RANK: u64 = 6;
/// How long a member may take to say how much space it has.
const SPACE_WAIT: Duration = Duration::from_secs(10);

/// A member's device, as a place for one owner's shares.
struct Member {
    place: Place,
    store: Arc<dyn PeerStore>,
    /// What it says it holds of the owner; `None`: it does not answer.
    listed: Option<HashSet<ShareId>>,
}

impl Engine {
    /// For every account whose devices are all silent for longer than `suspect_after`.
    pub(super) async fn help_others(&self, sink: &Sink) -> Result<(), Failure> {
        let Some(net) = self.0.net.get().cloned() else {
            return Ok(());
        };
        let patience = patience(&self.config());
        let watch = self.0.db.read(ledger::watch)?;
        let (roster, own) = (net.roster(), self.0.home.account.account_id());
        for owner in roster
            .members()
            .map(|member| member.account)
            .filter(|account| *account != own)
        {
            let mut devices = roster.devices().filter(|device| device.cert.account == owner);
            let away = devices.all(|device| watch.standing(&friend(device.cert.device), &patience) != Standing::Good);
            if away {
                sink.go_on()?;
                let helped = self.help(&net, &roster, &watch, owner).await?;
                if helped > 0 {
                    let name = roster.name_of(owner);
                    let text = format!("{helped} shares of {name}, who is away, were built anew at other members");
                    self.tell("helped", text, sink).await;
                }
            }
        }
        Ok(())
    }

    async fn help(&self, net: &NetHandle, roster: &Roster, watch: &Watch, owner: AccountId) -> Result<u64, Failure> {
        let mut caring = self.0.caring.lock().await;
        let of_net = net.clone();
        let shelf = tokio::task::spawn_blocking(move || of_net.shelf(owner)).await;
        let own = match shelf {
            Ok(Ok(shelf)) => shelf.store,
            Ok(Err(error)) => return Err(Failure::from_error(&error)),
            Err(stopped) => return Err(Failure::from_error(&stopped)),
        };
        let held = Batches::new(&own, Shelf::Kept).all().await;
        let held = held.map_err(|error| Failure::from_error(&error))?;
        if held.is_empty() {
            return Ok(0);
        }
        let (members, mut trashes): (Vec<Member>, Vec<Trash>) = self
            .members(net, roster, watch, owner, &own, &held)
            .await
            .into_iter()
            .unzip();
        let mut planner = Planner::new(members.iter().map(|member| member.place.clone()).collect());
        let me = friend(net.device());
        let turns = Turns {
            first_secs: 0,
            step_secs: ROUNDS_PER_RANK * self.config().repair_interval.0.as_secs().max(1),
        };
        // A pack that is still being sent lacks shares, too: its owner was here a moment ago, whether it was seen or not.
        let settled_after = self.config().suspect_after.0;
        let (mut seen, mut short, mut helped) = (HashSet::new(), HashSet::new(), 0);
        for id in held {
            let Some(manifest) = manifest(&own, id, (owner, settled_after), roster).await else {
                continue;
            };
            if !seen.insert(manifest.pack) {
                continue;
            }
            let (unlisted, count) = unlisted(&manifest, &members);
            let of_owner = Owner { account: owner, roster };
            if was_given_up(&unlisted, count, &mut trashes, of_owner).await {
                continue;
            }
            let state = state(&manifest, &members);
            let plan = planner.plan(&state);
            if plan.puts.is_empty() {
                continue;
            }
            short.insert(manifest.pack);
            let Some(rank) = rank(manifest.pack, &holders(&state, &members), &me) else {
                continue;
            };
            if caring.short.is_turn(manifest.pack, rank, clock::now_secs(), &turns) {
                helped += rebuild(&manifest, &members, &state, &plan.puts).await;
            }
        }
        // Packs of other owners keep their turns: this round says nothing of them.
        caring
            .short
            .keep(|pack: &PackId| short.contains(pack) || !seen.contains(pack));
        Ok(helped)
    }

    /// All devices that could keep the owner's shares, with what they hold of them and say to have in their trash.
    async fn members(
        &self,
        net: &NetHandle,
        roster: &Roster,
        watch: &Watch,
        owner: AccountId,
        own: &FolderStore,
        held: &[ShareId],
    ) -> Vec<(Member, Trash)> {
        let patience = patience(&self.config());
        let others = roster.devices().filter(|device| device.cert.account != owner);
        let asked = others.map(|device| {
            let id = device.cert.device;
            let (key, domain) = (friend(id), format!("{ACCOUNT}{}", device.cert.account));
            let standing = watch.standing(&key, &patience);
            async move {
                if id == net.device() {
                    let free_bytes = own.space().await.map_or(Some(0), |space| space.free_bytes);
                    let standing = Standing::Good;
                    let place = Place {
                        key,
                        domain,
                        standing,
                        free_bytes,
                    };
                    let listed = Some(held.iter().copied().collect());
                    let store: Arc<dyn PeerStore> = Arc::new(own.clone());
                    let trash = Trash::ask(store.clone(), id).await;
                    return (Member { place, store, listed }, trash);
                }
                let store: Arc<dyn PeerStore> = Arc::new(net.peer_of(id, owner));
                let peer = Peer {
                    key: key.clone(),
                    place: place::Place::Friend(id),
                    name: id.short(),
                    domain: domain.clone(),
                    reach: Reach::Remote,
                    store: store.clone(),
                };
                let space = tokio::time::timeout(SPACE_WAIT, store.space()).await;
                let (free_bytes, listed) = match space {
                    Ok(Ok(space)) => (space.free_bytes, listed(&peer).await.ok()),
                    _ => (Some(0), None),
                };
                let place = Place {
                    key,
                    domain,
                    standing,
                    free_bytes,
                };
                let trash = match listed {
                    Some(_) => Trash::ask(store.clone(), id).await,
                    None => Trash::empty(store.clone(), id),
                };
                (Member { place, store, listed }, trash)
            }
        });
        join_all(asked).await
    }
}

/// A friend's device as the watch knows it.
fn friend(device: DeviceId) -> PeerKey {
    place::Place::Friend(device).key()
}

/// The manifest of a share that has been here for a while, if a device of the owner made it.
async fn manifest(
    store: &FolderStore,
    id: ShareId,
    (owner, settled_after): (AccountId, Duration),
    roster: &Roster,
) -> Option<Manifest> {
    let store = store.clone();
    let read = tokio::task::spawn_blocking(move || match store.age(id)? < settled_after {
        true => Ok(None),
        false => store.manifest(id).map(Some),
    });
    let read = read.await.ok()?;
    let manifest = read
        .inspect_err(|error| tracing::warn!(share = %id, %error, "a share's manifest cannot be read"))
        .ok()??;
    let maker = roster.device(manifest.device).map(|device| device.cert.account);
    (manifest.account == owner && maker == Some(owner)).then_some(manifest)
}

/// What is known of a pack: who lists which share, and of those who do not answer, one missing share each.
fn state(manifest: &Manifest, members: &[Member]) -> PackState {
    let mut copies = Vec::new();
    let shape = manifest.shape;
    for member in members {
        let Some(listed) = &member.listed else { continue };
        let found = (0..).zip(&manifest.shares).filter(|(_, id)| listed.contains(id));
        // All shares of a pack with k = 1 are the same bytes: a member has them once.
        let most = if shape.k == 1 { 1 } else { usize::from(shape.n) };
        copies.extend(found.take(most).map(|(index, _)| Copy {
            index,
            peer: member.place.key.clone(),
        }));
    }
    let listed: BTreeMap<u8, usize> = copies.iter().fold(BTreeMap::new(), |mut counts, copy| {
        *counts.entry(copy.index).or_default() += 1;
        counts
    });
    let missing: Vec<u8> = match shape.k {
        1 => (copies.len() as u8..shape.n).collect(),
        _ => (0..shape.n).filter(|index| !listed.contains_key(index)).collect(),
    };
    let mut domains = HashSet::new();
    let silent = members
        .iter()
        .filter(|member| member.listed.is_none() && member.place.standing != Standing::Lost)
        .filter(|member| domains.insert(member.place.domain.clone()));
    copies.extend(silent.zip(missing).map(|(member, index)| Copy {
        index,
        peer: member.place.key.clone(),
    }));
    PackState {
        k: shape.k,
        n: shape.n,
        stored_bytes: shape.share.stored_bytes() as u64,
        seed: seed_of(manifest.pack),
        copies,
        on_the_way: Vec::new(),
    }
}

/// Those who hold shares of a pack and are there, ascending.
fn holders(state: &PackState, members: &[Member]) -> Vec<PeerKey> {
    let is_there = |copy: &&Copy| {
        let mut members = members.iter();
        members.any(|member| member.place.key == copy.peer && member.listed.is_some())
    };
    let there = state.copies.iter().filter(is_there);
    let there: BTreeSet<PeerKey> = there.map(|copy| copy.peer.clone()).collect();
    there.into_iter().collect()
}

/// The shares of a pack that no member lists, and how many shares it has.
fn unlisted(manifest: &Manifest, members: &[Member]) -> (BTreeSet<ShareId>, usize) {
    let mut ids: BTreeSet<ShareId> = manifest.shares.iter().copied().collect();
    let count = ids.len();
    for list in members.iter().filter_map(|member| member.listed.as_ref()) {
        ids.retain(|id| !list.contains(id));
    }
    (ids, count)
}

/// Builds and puts; returns how many shares arrived.
async fn rebuild(
    manifest: &Manifest,
    members: &[Member],
    state: &PackState,
    puts: &[upload_queue::care::repair::Put],
) -> u64 {
    let by_key: HashMap<&PeerKey, &Member> = members.iter().map(|member| (&member.place.key, member)).collect();
    let wanted: Vec<u8> = puts.iter().map(|put| put.index).collect();
    let mut copies: Vec<&Copy> = state
        .copies
        .iter()
        .filter(|copy| by_key[&copy.peer].listed.is_some())
        .collect();
    copies.sort_by_key(|copy| !wanted.contains(&copy.index));
    let source = |copy: &&Copy| Source {
        index: copy.index,
        store: by_key[&copy.peer].store.clone(),
    };
    let sources: Vec<Source> = copies.iter().map(source).collect();
    let built = match build(manifest, &sources, &wanted).await {
        Ok(built) => built,
        Err(error) => {
            tracing::warn!(pack = %manifest.pack.short(), %error, "a pack of an absent owner cannot be repaired now");
            return 0;
        }
    };
    let mut arrived = 0;
    for ((_, id, share), put) in built.shares.into_iter().zip(puts) {
        match by_key[&put.to].store.put(id, share).await {
            Ok(_) => arrived += 1,
            Err(error) => tracing::warn!(to = put.to.0, %error, "a share built anew was not taken"),
        }
    }
    arrived
}
