//! Who our steward is, and being one for others.

use std::sync::Arc;

use api::failure::{Exit, Failure};
use friendnet::roster::Roster;
use friendnet::share::remote::RemoteStore;
use friendnet::steward;
use proto::id::{AccountId, DeviceId, ShareId};
use proto::manifest::Manifest;
use proto::share::Share;
use proto::share_store::{BoxFuture, StoreError};
use proto::wire::pass_on::{PassOrder, Target};
use upload_queue::peers::PeerKey;
use upload_queue::peers::place::Place;
use upload_queue::steward::{PassState, Steward, StewardPeer};

use crate::Engine;

impl Engine {
    /// The steward that the config names, if the grid has it and the network runs. Of a member with several devices the first.
    pub(super) fn steward(&self) -> Option<StewardPeer> {
        let (name, net) = (self.config().steward?, self.0.net.get()?);
        let roster = net.roster();
        let account = only(roster.accounts_called(&name))?;
        let friends = self.friends(&roster);
        let device: DeviceId = friends
            .iter()
            .filter(|friend| friend.account == account)
            .map(|friend| friend.device)
            .min()?;
        Some(StewardPeer {
            key: Place::Friend(device).key(),
            steward: Arc::new(Friend(net.peer(device))),
        })
    }

    /// Whether the config names this peer as steward.
    pub(super) fn is_steward(&self, key: &PeerKey) -> bool {
        self.steward().is_some_and(|steward| steward.key == *key)
    }

    /// What stands in the config for a steward of this name: with its account, so that no namesake who comes later is taken for it.
    /// Refuses the name of nobody in the grid; no name means no steward.
    pub(super) fn steward_setting(&self, name: &str) -> Result<String, Failure> {
        if name.is_empty() {
            return Ok(String::new());
        }
        let account = self.member_named(name)?.ok_or_else(|| {
            Failure::new(
                Exit::Failed,
                format!("`steward` cannot be `{name}`: there is no member of that name"),
            )
            .hint("`gridbackup peer ls` lists the members")
        })?;
        let roster = Roster::load(&self.0.home.paths.roster());
        let member = roster.as_ref().and_then(|roster| roster.member(account));
        let bare = member.map_or(name, |member| &member.name);
        Ok(format!("{bare}~{account}"))
    }

    /// Carries out what friends order who named this node their steward, until it is dropped.
    pub(super) async fn pass_on_for_ever(&self) {
        match self.0.net.get().cloned() {
            Some(net) => steward::for_ever(net).await,
            None => std::future::pending().await,
        }
    }
}

fn only(accounts: Vec<AccountId>) -> Option<AccountId> {
    match accounts[..] {
        [account] => Some(account),
        _ => None,
    }
}

/// A friend's node as steward.
struct Friend(RemoteStore);

impl Friend {
    async fn order(&self, manifest: &Manifest, targets: &[(u8, PeerKey)]) -> Result<PassState, StoreError> {
        let target = |(index, peer): &(u8, PeerKey)| {
            let (index, device) = (*index, device(peer)?);
            Some(Target { index, device })
        };
        let order = PassOrder {
            manifest: manifest.clone(),
            targets: targets.iter().filter_map(target).collect(),
        };
        let passing = self.0.pass_on(&order).await?;
        // The steward says what it likes; a receipt is signed by the peer that has the share.
        let is_placed = |target: &&Target| passing.receipts.iter().any(|receipt| order.is_for(receipt, target));
        let placed = order.targets.iter().filter(is_placed).map(|target| target.index);
        Ok(PassState {
            placed: placed.collect(),
            have: passing.have,
            failing: passing.failing,
        })
    }
}

impl Steward for Friend {
    fn reaches(&self, peer: &PeerKey) -> bool {
        device(peer).is_some()
    }
    fn pass_on<'a>(
        &'a self,
        manifest: &'a Manifest,
        targets: &'a [(u8, PeerKey)],
    ) -> BoxFuture<'a, Result<PassState, StoreError>> {
        Box::pin(self.order(manifest, targets))
    }
    fn put_to_pass(&self, id: ShareId, share: Share) -> BoxFuture<'_, Result<u64, StoreError>> {
        Box::pin(self.0.put_to_pass(id, share))
    }
}

fn device(peer: &PeerKey) -> Option<DeviceId> {
    peer.place()?.device()
}
