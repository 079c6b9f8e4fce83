//! Strangers, counted by where they come from: who has to go when one more comes.
//!
//! Nobody is turned away at the door: the oldest of the same place goes, then the oldest of the place with the most. A stranger
//! with business here, a joiner or a recovering owner, needs a second; one who only fills places is soon the oldest.

use std::net::IpAddr;

use libp2p::Multiaddr;

use super::reach::ip;

/// How many may come from each place.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// From one IPv4 address, or one /64 of IPv6: what one customer gets.
    pub address: usize,
    /// From one /24, or one /48.
    pub network: usize,
    /// From one /16, or one /32: a small provider.
    pub provider: usize,
    /// In all.
    pub all: usize,
}

/// Who is here, the oldest first. `K` names one of them.
#[derive(Debug)]
pub struct Crowd<K> {
    limits: Limits,
    here: Vec<(K, Origin)>,
}

/// An address, its network and its provider: each a prefix of the next longer one. Without an IP address, all is one place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Origin([u128; PREFIXES]);

const PREFIXES: usize = 3;
/// Lengths of the prefixes, the longest first.
const PREFIXES_V4: [u32; PREFIXES] = [32, 24, 16];
const PREFIXES_V6: [u32; PREFIXES] = [64, 48, 32];
/// IPv4 addresses, mapped into IPv6, begin with so many bits (RFC 4291 §2.5.5.2).
const MAPPED_BITS: u32 = 96;

impl Origin {
    fn of(address: &Multiaddr) -> Self {
        let Some(ip) = ip(address) else {
            return Self([0; PREFIXES]);
        };
        let (bits, lengths) = match ip.to_canonical() {
            IpAddr::V4(ip) => (
                u128::from(ip.to_ipv6_mapped()),
                PREFIXES_V4.map(|length| MAPPED_BITS + length),
            ),
            IpAddr::V6(ip) => (u128::from(ip), PREFIXES_V6),
        };
        Self(lengths.map(|length| bits & (u128::MAX << (u128::BITS - length))))
    }
}

impl<K: Copy + PartialEq> Crowd<K> {
    /// Nobody is here.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            here: Vec::new(),
        }
    }

    /// One more comes from `address`. Those returned have to go, and are no longer counted.
    pub fn enter(&mut self, key: K, address: &Multiaddr) -> Vec<K> {
        let origin = Origin::of(address);
        self.here.push((key, origin));
        let Limits {
            address,
            network,
            provider,
            all,
        } = self.limits;
        let mut gone = Vec::new();
        for (level, limit) in [address, network, provider].into_iter().enumerate() {
            while self.count(level, origin) > limit.max(1) {
                gone.extend(self.remove_oldest(level, origin));
            }
        }
        while self.here.len() > all.max(1) {
            let last = PREFIXES - 1;
            let Some(fullest) = self.fullest(last) else { break };
            gone.extend(self.remove_oldest(last, fullest));
        }
        gone
    }

    /// One is gone, or no stranger any more.
    pub fn leave(&mut self, key: K) {
        self.here.retain(|(here, _)| *here != key);
    }

    fn count(&self, level: usize, origin: Origin) -> usize {
        let same = self.here.iter().filter(|(_, other)| other.0[level] == origin.0[level]);
        same.count()
    }

    /// Of the places with the most, that with the oldest.
    fn fullest(&self, level: usize) -> Option<Origin> {
        let counted = self.here.iter().enumerate();
        let counted = counted.map(|(age, (_, origin))| (self.count(level, *origin), std::cmp::Reverse(age), *origin));
        counted
            .max_by_key(|(count, age, _)| (*count, *age))
            .map(|(_, _, origin)| origin)
    }

    fn remove_oldest(&mut self, level: usize, origin: Origin) -> Option<K> {
        let mut here = self.here.iter();
        let oldest = here.position(|(_, other)| other.0[level] == origin.0[level])?;
        Some(self.here.remove(oldest).0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMITS: Limits = Limits {
        address: 2,
        network: 3,
        provider: 4,
        all: 6,
    };

    fn enter(crowd: &mut Crowd<u32>, key: u32, ip: &str) -> Vec<u32> {
        let kind = if ip.contains(':') { "ip6" } else { "ip4" };
        crowd.enter(key, &format!("/{kind}/{ip}/tcp/1").parse().unwrap())
    }

    #[test]
    fn the_oldest_of_the_same_place_goes_whatever_its_size() {
        let mut crowd = Crowd::new(LIMITS);
        let comes = [
            ("198.51.100.1", vec![]),
            ("198.51.100.1", vec![]),
            ("198.51.100.1", vec![0]),
            ("198.51.100.2", vec![]),
            ("198.51.100.3", vec![1]),
            ("198.51.7.1", vec![]),
            ("198.51.8.1", vec![2]),
            ("::ffff:198.51.9.1", vec![3]),
        ];
        for (key, (ip, gone)) in (0..).zip(comes) {
            assert_eq!(enter(&mut crowd, key, ip), gone, "{key}: {ip}");
        }
    }

    #[test]
    fn in_ipv6_a_customer_is_one_address() {
        let mut crowd = Crowd::new(LIMITS);
        assert!(enter(&mut crowd, 0, "2001:db8:1:2::1").is_empty());
        assert!(enter(&mut crowd, 1, "2001:db8:1:2::2").is_empty());
        assert_eq!(enter(&mut crowd, 2, "2001:db8:1:2:3::"), [0]);
        assert!(enter(&mut crowd, 3, "2001:db8:1:3::").is_empty());
        assert_eq!(enter(&mut crowd, 4, "2001:db8:1:4::"), [1], "the same /48");
        assert!(enter(&mut crowd, 5, "2001:db8:2::").is_empty());
        assert_eq!(enter(&mut crowd, 6, "2001:db8:3::"), [2], "the same /32");
    }

    #[test]
    fn when_all_places_are_taken_the_fullest_place_gives_one_up() {
        let mut crowd = Crowd::new(LIMITS);
        assert!(enter(&mut crowd, 100, "192.0.2.1").is_empty());
        for (key, ip) in (0..).zip(["198.51.1.1", "198.51.2.1", "198.51.3.1", "198.51.4.1", "203.0.113.1"]) {
            assert!(enter(&mut crowd, key, ip).is_empty());
        }
        assert_eq!(enter(&mut crowd, 5, "203.0.113.2"), [0], "not the oldest of all");
        crowd.leave(5);
        assert!(enter(&mut crowd, 6, "203.0.113.2").is_empty());
    }

    proptest! {
        /// Whatever comes from everywhere else, who is alone in its place is let in.
        #[test]
        fn no_limit_is_ever_passed_and_who_comes_is_in(ips in prop::collection::vec((0u8..3, 0u8..3, 0u8..9), 0..200)) {
            let mut crowd = Crowd::new(LIMITS);
            for (key, (b, c, d)) in (0..).zip(ips) {
                enter(&mut crowd, key, &format!("10.{b}.{c}.{d}"));
                let (_, newest) = *crowd.here.last().unwrap();
                prop_assert_eq!(crowd.here.last().map(|(key, _)| *key), Some(key));
                prop_assert!(crowd.here.len() <= LIMITS.all);
                for (level, limit) in [LIMITS.address, LIMITS.network, LIMITS.provider].into_iter().enumerate() {
                    prop_assert!(crowd.count(level, newest) <= limit);
                }
            }
        }
    }
}
