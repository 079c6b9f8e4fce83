//! What a bucket costs: list prices, and what the config says.

use crate::config::PeerConfig;

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

/// Dollars for a gigabyte.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Price {
    /// Kept for a month.
    pub a_month: f64,
    /// Read once, where that is known.
    pub to_read: Option<f64>,
}

/// Of a bucket with this URL.
pub(super) fn of_bucket(entry: &PeerConfig, url: &str) -> Option<Price> {
    let is_amazon = entry.endpoint.is_none() && !url.contains("endpoint=");
    let class = entry.storage_class.as_deref().unwrap_or("STANDARD");
    let listed = CLASSES.iter().find(|(name, _)| *name == class).map(|(_, price)| *price);
    Some(Price {
        a_month: entry.price.or(listed.filter(|_| is_amazon))?,
        to_read: is_amazon.then_some(OUT),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_amazons_prices_are_known_and_the_users_go_first() {
        let price = |url: &str, price: Option<f64>| {
            let entry = PeerConfig {
                price,
                ..PeerConfig::default()
            };
            of_bucket(&entry, url).map(|price| (price.a_month, price.to_read))
        };
        assert_eq!(price("s3://bucket", None), Some((0.023, Some(OUT))));
        assert_eq!(price("s3://bucket?endpoint=https://s3.example.org", None), None);
        let own = price("s3://bucket?endpoint=https://s3.example.org", Some(0.006));
        assert_eq!(own, Some((0.006, None)));
    }
}
