//! Host names in addresses: a home server behind a dynamic name is announced by that name and looked up before each dial.
//!
//! By the system's resolver, so that it knows what the machine knows; libp2p's own resolver would bring a second one.

use std::net::IpAddr;
use std::time::Duration;

use libp2p::Multiaddr;
use libp2p::multiaddr::Protocol;

/// How long one name may take.
const LOOKUP_TIME: Duration = Duration::from_secs(5);
/// Most addresses taken from one name.
const ANSWERS_MAX: usize = 4;

/// The addresses with names replaced by what they stand for now; those whose name is not known are left out.
pub async fn resolve(addresses: Vec<Multiaddr>) -> Vec<Multiaddr> {
    let mut resolved = Vec::new();
    for address in addresses {
        let Some(name) = name_in(&address) else {
            resolved.push(address);
            continue;
        };
        match tokio::time::timeout(LOOKUP_TIME, tokio::net::lookup_host((name.as_str(), 0))).await {
            Ok(Ok(found)) => {
                resolved.extend(found.filter_map(|host| with_ip(&address, host.ip())).take(ANSWERS_MAX));
            }
            Ok(Err(error)) => tracing::debug!("{name}: {error}"),
            Err(_) => tracing::debug!("{name}: no answer in time"),
        }
    }
    resolved
}

fn name_in(address: &Multiaddr) -> Option<String> {
    address.iter().find_map(|part| match part {
        Protocol::Dns(name) | Protocol::Dns4(name) | Protocol::Dns6(name) => Some(name.into_owned()),
        _ => None,
    })
}

/// `None` if the address asks for the other family.
fn with_ip(address: &Multiaddr, ip: IpAddr) -> Option<Multiaddr> {
    let replace = |part| match (part, ip) {
        (Protocol::Dns6(_), IpAddr::V4(_)) | (Protocol::Dns4(_), IpAddr::V6(_)) => None,
        (Protocol::Dns(_) | Protocol::Dns4(_) | Protocol::Dns6(_), ip) => Some(Protocol::from(ip)),
        (part, _) => Some(part),
    };
    address.iter().map(replace).collect()
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    #[test]
    fn a_name_is_replaced_by_addresses_of_the_family_it_asks_for() {
        let address = |text: &str| text.parse::<Multiaddr>().unwrap();
        let (v4, v6) = (IpAddr::from(Ipv4Addr::LOCALHOST), IpAddr::from(Ipv6Addr::LOCALHOST));
        let named = address("/dns4/home.example/tcp/5");
        assert_eq!(name_in(&named).as_deref(), Some("home.example"));
        assert_eq!(with_ip(&named, v4), Some(address("/ip4/127.0.0.1/tcp/5")));
        assert_eq!(with_ip(&named, v6), None);
        assert_eq!(
            with_ip(&address("/dns/home.example/tcp/5"), v6),
            Some(address("/ip6/::1/tcp/5"))
        );
    }

    #[tokio::test]
    async fn addresses_without_names_are_left_as_they_are() {
        let addresses = vec!["/ip4/127.0.0.1/tcp/5".parse().unwrap()];
        assert_eq!(resolve(addresses.clone()).await, addresses);
    }
}
