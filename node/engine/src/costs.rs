//! What buckets cost, estimated from what lies in them.

use api::failure::Failure;
use api::message::Cost;
use upload_queue::packs;

use crate::config::Config;
use crate::{Engine, kind};

const GIGABYTE: f64 = 1e9;

impl Engine {
    /// Of each bucket whose price is known.
    pub(super) fn costs(&self, config: &Config) -> Result<Vec<Cost>, Failure> {
        let peers = self.0.peers.all();
        let mut costs = Vec::new();
        for (name, peer) in &config.peers {
            let Some(price) = kind::price(peer) else { continue };
            let mut bytes = 0;
            for slot in peers
                .iter()
                .filter(|slot| slot.name == *name && kind::of(&slot.place) == kind::meant(peer))
            {
                bytes += self.0.db.read(|conn| packs::held_by(conn, &slot.key))?.0;
            }
            let gigabytes = bytes as f64 / GIGABYTE;
            costs.push(Cost {
                peer: name.clone(),
                bytes,
                dollars_a_month: gigabytes * price.a_month,
                dollars_to_read: price.to_read.map(|price| gigabytes * price),
            });
        }
        Ok(costs)
    }
}
