//! Keeps a place at relays for a node that others cannot reach: libp2p never asks again for a reservation that was lost.
//!
//! Plain state: `plan` says what to do, the driver does it and reports what became of it.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use libp2p::core::transport::ListenerId;
use libp2p::{Multiaddr, PeerId};

use super::back_off::BackOff;
use super::reach::is_global;

/// Places held at once: one relay may be switched off, and each place costs an entry in everybody's roster.
const PLACES: usize = 2;
/// How long a relay may take to answer (docs/protocol/reach.md).
const ANSWER_TIME: Duration = Duration::from_secs(20);
/// Waits before a relay that refused, failed or vanished is asked again: libp2p does not (docs/protocol/reach.md).
const RETRY_FIRST: Duration = Duration::from_secs(2);
const RETRY_LONGEST: Duration = Duration::from_secs(300);

/// When a node asks friends to forward connections to it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum RelayUse {
    /// Whenever it listens and nobody from outside has reached it.
    #[default]
    WhenUnreachable,
    /// Always.
    Always,
    /// Never: a command that ends soon.
    Never,
}

/// A friend that forwards for others.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Offer {
    /// The friend.
    pub relay: PeerId,
    /// Where it is, as we reach it.
    pub address: Multiaddr,
}

/// What the driver shall do.
#[derive(PartialEq, Eq, Debug)]
pub enum Step {
    /// Ask for a place.
    Reserve(Offer),
    /// Give a place up.
    Release(ListenerId),
}

/// The places.
#[derive(Default)]
pub struct Relays {
    places: HashMap<PeerId, Place>,
    back_off: HashMap<PeerId, BackOff>,
}

struct Place {
    listener: ListenerId,
    since: Instant,
    is_held: bool,
}

impl Relays {
    /// What to do now, given who offers and whether a place is needed at all.
    pub fn plan(&mut self, now: Instant, is_needed: bool, mut offers: Vec<Offer>) -> Vec<Step> {
        let is_over = |place: &Place| !is_needed || (!place.is_held && now - place.since > ANSWER_TIME);
        // The listener's end is reported by the swarm, and the place is given up then.
        let over = self.places.values().filter(|place| is_over(place));
        let mut steps: Vec<_> = over.map(|place| Step::Release(place.listener)).collect();
        if !is_needed {
            return steps;
        }
        // A relay in the local network serves only those who are there, too. The rest of the order spreads the load.
        offers.sort_by_key(|offer| (!is_global(&offer.address), offer.relay));
        let free = PLACES.saturating_sub(self.places.len());
        let may_ask = |offer: &Offer| {
            !self.places.contains_key(&offer.relay)
                && self.back_off.get(&offer.relay).is_none_or(|wait| wait.is_over(now))
        };
        steps.extend(offers.into_iter().filter(may_ask).take(free).map(Step::Reserve));
        steps
    }

    /// A place was asked for.
    pub fn asked(&mut self, now: Instant, relay: PeerId, listener: ListenerId) {
        let place = Place {
            listener,
            since: now,
            is_held: false,
        };
        self.places.insert(relay, place);
    }

    /// A place could not even be asked for.
    pub fn failed(&mut self, now: Instant, relay: PeerId) {
        self.back_off
            .entry(relay)
            .or_default()
            .failed(now, RETRY_FIRST, RETRY_LONGEST);
    }

    /// A relay said yes.
    pub fn held(&mut self, relay: PeerId) {
        if let Some(place) = self.places.get_mut(&relay) {
            place.is_held = true;
            self.back_off.remove(&relay);
        }
    }

    /// A listener ended; true if it was a place at a relay.
    pub fn ended(&mut self, now: Instant, listener: ListenerId) -> bool {
        let found = self.places.iter().find(|(_, place)| place.listener == listener);
        let Some(relay) = found.map(|(relay, _)| *relay) else {
            return false;
        };
        self.places.remove(&relay);
        self.failed(now, relay);
        true
    }

    /// The network has changed: ask again at once.
    pub fn forgive(&mut self) {
        self.back_off.clear();
    }

    /// Relays that hold a place.
    pub fn holding(&self) -> Vec<PeerId> {
        let held = self.places.iter().filter(|(_, place)| place.is_held);
        held.map(|(relay, _)| *relay).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offer(ip: &str) -> Offer {
        Offer {
            relay: PeerId::random(),
            address: format!("/ip4/{ip}/tcp/4250").parse().unwrap(),
        }
    }

    fn reserved(steps: &[Step]) -> Vec<PeerId> {
        let relay = |step: &Step| match step {
            Step::Reserve(offer) => Some(offer.relay),
            Step::Release(_) => None,
        };
        steps.iter().filter_map(relay).collect()
    }

    #[test]
    fn two_places_are_taken_at_public_relays_first() {
        let (mut relays, now) = (Relays::default(), Instant::now());
        let offers = [offer("192.168.1.2"), offer("198.51.100.1"), offer("198.51.100.2")];
        let asked = reserved(&relays.plan(now, true, offers.to_vec()));
        assert_eq!(asked.len(), 2);
        assert!(!asked.contains(&offers[0].relay));
        assert_eq!(
            reserved(&relays.plan(now, true, offers[..1].to_vec())),
            [offers[0].relay],
            "better one in the local network than none"
        );
    }

    #[test]
    fn a_lost_place_is_asked_for_again_after_a_wait() {
        let (mut relays, now, offer) = (Relays::default(), Instant::now(), offer("198.51.100.1"));
        let listener = ListenerId::next();
        relays.asked(now, offer.relay, listener);
        relays.held(offer.relay);
        assert_eq!(relays.holding(), [offer.relay]);
        assert!(relays.plan(now, true, vec![offer.clone()]).is_empty());
        assert!(relays.ended(now, listener));
        assert!(relays.holding().is_empty());
        assert!(relays.plan(now, true, vec![offer.clone()]).is_empty());
        let later = now + RETRY_FIRST;
        assert_eq!(
            reserved(&relays.plan(later, true, vec![offer])),
            [relays.back_off.keys().next().copied().unwrap()]
        );
    }

    #[test]
    fn a_relay_that_does_not_answer_and_places_no_longer_needed_are_given_up() {
        let (mut relays, now) = (Relays::default(), Instant::now());
        let (silent, kind) = (ListenerId::next(), ListenerId::next());
        let kind_relay = PeerId::random();
        relays.asked(now, PeerId::random(), silent);
        relays.asked(now, kind_relay, kind);
        relays.held(kind_relay);
        let later = now + ANSWER_TIME + Duration::from_secs(1);
        assert_eq!(relays.plan(later, true, Vec::new()), [Step::Release(silent)]);
        assert_eq!(relays.plan(later, false, Vec::new()).len(), 2);
    }
}
