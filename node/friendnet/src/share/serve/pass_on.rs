//! An owner's order to its steward, seen from the steward: make it durable, say how far it is.

use bytes::Bytes;
use proto::id::ShareId;
use proto::share_store::StoreError;
use proto::wire::pass_on::{PassOrder, write_receipts};
use proto::wire::share::ShareMessage;
use stores::passing::Order;
use stores::shelf::Shelf;

use super::Handlers;
use crate::blocking::blocking;

impl Handlers {
    /// Takes an order and answers how far it is.
    pub(super) async fn pass_on(&self, request: u32, payload: &[u8]) -> Result<(), StoreError> {
        self.only_owner()?;
        let refused = |reason: String| StoreError::Refused { reason };
        let order = PassOrder::decode(payload).map_err(|error| refused(error.to_string()))?;
        let (manifest, roster) = (&order.manifest, self.core.roster());
        let maker = roster.device(manifest.device).map(|device| device.cert.account);
        if manifest.account != self.caller.owner || maker != Some(self.caller.owner) {
            return Err(refused("The pack was not made by a device of this account".to_owned()));
        }
        if order.targets.iter().any(|target| target.device == self.core.device) {
            return Err(refused("A share to be kept here is put here, not passed on".to_owned()));
        }
        let (kept, shelf, now_secs) = (self.kept.clone(), self.shelf.clone(), self.core.now_secs());
        let (owner, shares) = (self.caller.owner, order.manifest.shares.clone());
        let (taken, have) = blocking(move || {
            let taken = kept.passing.take(order, now_secs)?;
            let passing = kept.passing.shelf(owner)?;
            let is_here = |id: &ShareId| shelf.store.has(*id) || passing.store.has(*id);
            let have = (0..).zip(&shares).filter(|(_, id)| is_here(id));
            Ok((taken, have.map(|(index, _)| index).collect::<Vec<u8>>()))
        })
        .await?;
        let (failing, receipts) = progress(taken.as_ref());
        let (have, failing) = (have.into(), failing.into());
        self.say(&ShareMessage::Passing { request, have, failing }, receipts)
            .await;
        Ok(())
    }

    /// Where a share is put that is to be passed on; only shares of packs with an order, within the owner's quota.
    pub(super) async fn passing_shelf(&self, id: ShareId, stored_bytes: u32) -> Result<Shelf, StoreError> {
        self.only_owner()?;
        let (kept, owner, shelf) = (self.kept.clone(), self.caller.owner, self.shelf.clone());
        blocking(move || {
            let passing = &kept.passing;
            if !passing.expects(owner, id) {
                return Err(StoreError::Refused {
                    reason: "There is no order to pass this share on".to_owned(),
                });
            }
            shelf
                .store
                .check_quota(passing.used_by(owner)? + u64::from(stored_bytes))?;
            passing.shelf(owner)
        })
        .await
    }
}

/// What did not arrive, and the signatures of those that have their share; nothing of an order that is void.
fn progress(order: Option<&Order>) -> (Vec<u8>, Bytes) {
    let failing = order.into_iter().flat_map(|order| order.failing.iter().copied());
    let receipts = order.map_or(&[][..], |order| &order.record.receipts);
    (failing.collect(), write_receipts(receipts).into())
}
