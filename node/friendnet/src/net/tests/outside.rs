//! Nodes that others cannot dial, on loopback: they listen nowhere, or take places at relays although they need not.

use futures::StreamExt;
use libp2p::swarm::SwarmEvent;

use super::*;

/// Longer than a dial through a relay takes on a machine that does much else.
const PATIENCE: Duration = Duration::from_secs(30);

/// A node that only dials, and is reached through relays.
async fn hidden(number: u8, ada: &TestNode) -> TestNode {
    let (home, fixture) = (tempfile::tempdir().unwrap(), Fixture::new(number.into()));
    let mut config = config(home.path(), &fixture, number, "/ip4/127.0.0.1/tcp/0");
    config.transport.listen = Vec::new();
    config.transport.relays = RelayUse::Always;
    let net = Net::start(config).await.unwrap();
    net.join(&ada.net.invite("hidden", LATER).await.unwrap()).await.unwrap();
    TestNode { net, fixture, home }
}

async fn has_place(node: &TestNode, relay: &TestNode) {
    eventually("the relay holds a place", || {
        node.net.reachability().relays == [relay.net.peer_id()]
    })
    .await;
}

fn is_announced(node: &TestNode, to: &TestNode) -> bool {
    let roster = to.net.roster();
    roster
        .device(node.net.device())
        .is_some_and(|device| device.addresses().iter().any(reach::is_relayed))
}

#[tokio::test(flavor = "multi_thread")]
async fn two_nodes_that_nobody_can_dial_exchange_shares_through_a_friend() {
    let ada = node(1).await;
    let (bob, cleo) = (hidden(2, &ada).await, hidden(3, &ada).await);
    has_place(&bob, &ada).await;
    has_place(&cleo, &ada).await;
    eventually("Bob hears where Cleo is", || is_announced(&cleo, &bob)).await;
    let (id, share) = bob.fixture.share(0);
    let store = bob.net.peer(cleo.net.device());
    store.put(id, share.clone()).await.unwrap();
    assert_eq!(store.get(id, 0..100).await.unwrap(), share.data[..100]);
    assert_eq!(bob.net.route(cleo.net.device()), Some(Route::Relayed));
    assert_eq!(bob.net.route(ada.net.device()), Some(Route::Direct));
    assert_eq!(ada.net.counters().bytes_received, 0, "the relay sees sealed bytes only");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relayed_connection_gives_way_to_a_straight_one() {
    let ada = node(1).await;
    let cleo = hidden(3, &ada).await;
    let bob = node(2).await;
    bob.net
        .join(&ada.net.invite("Bob", LATER).await.unwrap())
        .await
        .unwrap();
    has_place(&cleo, &ada).await;
    eventually("Bob reaches Cleo", || bob.net.connected(cleo.net.device())).await;
    eventually("straight", || {
        bob.net
            .route(cleo.net.device())
            .is_some_and(|route| route > Route::Relayed)
    })
    .await;
    let (id, share) = bob.fixture.share(0);
    bob.net.peer(cleo.net.device()).put(id, share).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_place_at_a_relay_is_taken_again_when_the_relay_comes_back() {
    let ada = node(1).await;
    let bob = hidden(2, &ada).await;
    has_place(&bob, &ada).await;
    let TestNode { net, fixture, home } = ada;
    let at = net.shared.core.links.listening()[0].clone();
    drop(net);
    eventually("the place is lost", || bob.net.reachability().relays.is_empty()).await;
    eventually("no longer announced", || bob.net.addresses().is_empty()).await;
    let mut again = config(home.path(), &fixture, 1, "/ip4/127.0.0.1/tcp/0");
    again.transport.listen = vec![at];
    let ada = TestNode {
        net: Net::start(again).await.unwrap(),
        fixture,
        home,
    };
    has_place(&bob, &ada).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_gets_no_place_and_no_circuit() {
    let ada = node(1).await;
    let bob = hidden(2, &ada).await;
    has_place(&bob, &ada).await;
    let (home, fixture) = (tempfile::tempdir().unwrap(), Fixture::new(6));
    let mut config = config(home.path(), &fixture, 6, "/ip4/127.0.0.1/tcp/0");
    config.transport.listen = Vec::new();
    config.transport.relays = RelayUse::Always;
    let eve = Net::start(config).await.unwrap();
    let through = ada.net.addresses()[0]
        .clone()
        .with(Protocol::P2pCircuit)
        .with(Protocol::P2p(bob.net.peer_id()));
    let met = eve.meet(through).await;
    assert!(matches!(met, Err(JoinError::Connect(_))), "{met:?}");
    assert!(eve.reachability().relays.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn quic_carries_shares_where_tcp_does_not_lead() {
    let (home, fixture) = (tempfile::tempdir().unwrap(), Fixture::new(1));
    let config = config(home.path(), &fixture, 1, "/ip4/127.0.0.1/udp/0/quic-v1");
    let ada = TestNode {
        net: Net::start(config).await.unwrap(),
        fixture,
        home,
    };
    let bob = node(2).await;
    bob.net
        .join(&ada.net.invite("Bob", LATER).await.unwrap())
        .await
        .unwrap();
    let (id, share) = bob.fixture.share(0);
    bob.net.peer(ada.net.device()).put(id, share).await.unwrap();
    assert_eq!(bob.net.route(ada.net.device()), Some(Route::Direct));
}

/// libp2p-relay as published panics when a relay says yes to a place that was given up meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn a_place_that_is_given_up_before_the_relay_says_yes_can_be_taken_again() {
    let ada = node(1).await;
    let bob = hidden(2, &ada).await;
    has_place(&bob, &ada).await;
    bob.net.stop();
    let at = ada.net.listen_addresses()[0].clone();
    let mut swarm = swarm::build(SwarmConfig {
        identity: identity::keypair(&SigningKey::from_bytes(&[2; 32])),
        discovery: LocalDiscovery::Off,
        members: ada.net.roster_changes(),
        forwards: false,
        upnp: false,
    })
    .unwrap();
    swarm.dial(at.clone()).unwrap();
    let place = at.with(libp2p::multiaddr::Protocol::P2pCircuit);
    let poll_for = async |swarm: &mut libp2p::Swarm<swarm::Behaviour>, micros| {
        let mut placed = false;
        let polling = async {
            loop {
                placed |= matches!(swarm.select_next_some().await, SwarmEvent::NewListenAddr { .. });
            }
        };
        let _: Result<(), _> = tokio::time::timeout(Duration::from_micros(micros), polling).await;
        placed
    };
    poll_for(&mut swarm, 500_000).await;
    for round in 0..200 {
        let listener = swarm.listen_on(place.clone()).unwrap();
        poll_for(&mut swarm, round * 20).await;
        swarm.remove_listener(listener);
        poll_for(&mut swarm, 5_000).await;
    }
    swarm.listen_on(place).unwrap();
    assert!(poll_for(&mut swarm, 2_000_000).await);
}

/// libp2p-relay as published tells every connection that this node forwards from now on, also those through a relay, whose
/// handler cannot be told anything: it panicked, and the friend at the other end was cut off until the next start.
#[tokio::test(flavor = "multi_thread")]
async fn a_friend_behind_a_relay_stays_connected_when_this_node_is_found_to_be_reached_from_outside() {
    let ada = node(1).await;
    let (bob, cleo) = (hidden(2, &ada).await, hidden(3, &ada).await);
    has_place(&bob, &ada).await;
    let (at, bob_peer) = (ada.net.addresses()[0].clone(), bob.net.peer_id());
    cleo.net.stop();
    let mut swarm = swarm::build(SwarmConfig {
        identity: identity::keypair(&SigningKey::from_bytes(&[3; 32])),
        discovery: LocalDiscovery::Off,
        members: ada.net.roster_changes(),
        forwards: true,
        upnp: false,
    })
    .unwrap();
    swarm
        .dial(at.with(Protocol::P2pCircuit).with(Protocol::P2p(bob_peer)))
        .unwrap();
    let relayed = async |swarm: &mut libp2p::Swarm<swarm::Behaviour>| loop {
        if let SwarmEvent::ConnectionEstablished { peer_id, endpoint, .. } = swarm.select_next_some().await
            && peer_id == bob_peer
        {
            return endpoint.is_relayed();
        }
    };
    assert!(tokio::time::timeout(PATIENCE, relayed(&mut swarm)).await.unwrap());
    swarm.add_external_address("/ip4/203.0.113.7/tcp/4250".parse().unwrap());
    let mut control = swarm.behaviour().streams.new_control();
    let mut opening = std::pin::pin!(async {
        // The news are on their way to the connections.
        tokio::time::sleep(Duration::from_millis(200)).await;
        control.open_stream(bob_peer, StreamProtocol::new(SHARE_PROTOCOL)).await
    });
    let opened = tokio::time::timeout(PATIENCE, async {
        loop {
            tokio::select! {
                opened = &mut opening => return opened.map(drop),
                _ = swarm.select_next_some() => {}
            }
        }
    });
    opened.await.unwrap().unwrap();
}
