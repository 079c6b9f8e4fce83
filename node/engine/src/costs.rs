//! What buckets cost, estimated from what lies in them.

use upload_queue::packs;
use upload_queue::place::Place;

use crate::Engine;
use crate::config::peer_url::PeerUrl;
use crate::config::{Config, PeerConfig};
use api::failure::Failure;
use api::message::Cost;

/// Dollars for a gigabyte and month: Amazon's list prices for us-east-1 (aws.amazon.com/s3/pricing), of which other regions
/// are up to twice.
const CLASSES: [(&str, f64); 6] = [
    ("STANDARD", 0.023),
    ("INTELLIGENT_TIERING", 0.023),
    ("REDUCED_REDUNDANCY", 0.024),
    ("STANDARD_IA", 0.0125),
    ("ONEZONE_IA", 0.01),
    ("GLACIER_IR", 0.004),
];
/// Dollars for a gigabyte that leaves Amazon's network, after the first hundred of a month.
const OUT: f64 = 0.09;
const GIGABYTE: f64 = 1e9;

impl Engine {
    /// Of each bucket whose price is known.
    pub(super) fn costs(&self, config: &Config) -> Result<Vec<Cost>, Failure> {
        let peers = self.0.peers.all();
        let mut costs = Vec::new();
        for (name, peer) in &config.peers {
            let Some((price, out)) = price(peer) else { continue };
            let mut bytes = 0;
            for slot in peers
                .iter()
                .filter(|slot| slot.name == *name && matches!(slot.place, Place::Bucket { .. }))
            {
                bytes += self.0.db.read(|conn| packs::held_by(conn, &slot.key))?.0;
            }
            let gigabytes = bytes as f64 / GIGABYTE;
            costs.push(Cost {
                peer: name.clone(),
                bytes,
                dollars_a_month: gigabytes * price,
                dollars_to_read: out.map(|out| gigabytes * out),
            });
        }
        Ok(costs)
    }
}

/// Dollars for a gigabyte and month, and for reading one.
fn price(peer: &PeerConfig) -> Option<(f64, Option<f64>)> {
    let url = match peer.named()? {
        PeerUrl::Bucket(url) => url,
        PeerUrl::Folder(_) => return None,
    };
    let is_amazon = peer.endpoint.is_none() && !url.contains("endpoint=");
    let class = peer.storage_class.as_deref().unwrap_or("STANDARD");
    let listed = CLASSES.iter().find(|(name, _)| *name == class).map(|(_, price)| *price);
    let price = peer.price.or(listed.filter(|_| is_amazon))?;
    Some((price, is_amazon.then_some(OUT)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_amazons_prices_are_known_and_the_users_go_first() {
        let peer = |url: &str, price: Option<f64>| PeerConfig {
            url: Some(url.into()),
            price,
            ..PeerConfig::default()
        };
        assert_eq!(price(&peer("s3://bucket", None)), Some((0.023, Some(OUT))));
        assert_eq!(price(&peer("s3://bucket?endpoint=https://s3.example.org", None)), None);
        let own = peer("s3://bucket?endpoint=https://s3.example.org", Some(0.006));
        assert_eq!(price(&own), Some((0.006, None)));
        assert_eq!(price(&peer("dir:/mnt", None)), None);
    }
}
