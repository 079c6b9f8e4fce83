//! What strangers try, between real nodes, and who gets in all the same: friends who come back, joiners, recovering owners.

use std::net::{SocketAddr, TcpListener, TcpStream};

use super::*;

/// Where a node listens for TCP.
fn tcp_of(node: &TestNode) -> SocketAddr {
    let addresses = node.net.shared.core.links.listening();
    let found = addresses.iter().find_map(|address| {
        let mut parts = address.iter();
        match (parts.next(), parts.next()) {
            (Some(Protocol::Ip4(ip)), Some(Protocol::Tcp(port))) => Some((ip, port).into()),
            _ => None,
        }
    });
    found.expect("it listens for TCP")
}

/// All who have business with Ada: Bob, who was away; Cleo, who joins; and Bob with a new machine.
async fn all_get_in(ada: &TestNode, bob: TestNode) {
    let TestNode { net, fixture, home } = bob;
    drop(net);
    let address = ada.net.addresses()[0].clone();
    let in_time = |what: &'static str, comes: std::pin::Pin<Box<dyn Future<Output = bool>>>| async move {
        let begun = std::time::Instant::now();
        let came = tokio::time::timeout(Duration::from_secs(8), comes).await;
        assert_eq!(came, Ok(true), "{what}");
        println!("{what} after {:?}", begun.elapsed());
    };
    let back = start(home.path(), &fixture, 2).await;
    back.hint(ada.net.device(), ada.net.shared.core.links.listening()[0].clone());
    let store = back.peer(ada.net.device());
    in_time("Bob is back", Box::pin(async move { store.space().await.is_ok() })).await;
    drop(back);
    let new_home = tempfile::tempdir().unwrap();
    let recovered = start(new_home.path(), &fixture, 77).await;
    let meeting = recovered.clone();
    in_time(
        "Bob recovers",
        Box::pin(async move { meeting.meet(address).await.is_ok() }),
    )
    .await;
    let store = recovered.peer(ada.net.device());
    in_time("and reads", Box::pin(async move { store.list(None, 10).await.is_ok() })).await;
    let (cleo, ticket) = (node(3).await, ada.net.invite("Cleo", LATER).await.unwrap());
    let joining = cleo.net.clone();
    in_time(
        "Cleo joins",
        Box::pin(async move { joining.join(&ticket).await.is_ok() }),
    )
    .await;
}

/// Eighty sockets without a word, from one address, shut a node to its friends and to `recover`.
#[tokio::test(flavor = "multi_thread")]
async fn silent_sockets_shut_nobody_out() {
    let (ada, bob) = friends().await;
    let to = tcp_of(&ada);
    let silent: Vec<TcpStream> = (0..200).map(|_| TcpStream::connect(to).unwrap()).collect();
    all_get_in(&ada, bob).await;
    drop(silent);
}

/// A hundred and twenty streams without a greeting did the same.
#[tokio::test(flavor = "multi_thread")]
async fn silent_streams_of_strangers_shut_nobody_out() {
    let (ada, bob) = friends().await;
    let (mut strangers, mut silent) = (Vec::new(), Vec::new());
    for number in 100..103 {
        let eve = node(number).await;
        eve.net
            .hint(ada.net.device(), ada.net.shared.core.links.listening()[0].clone());
        let core = &eve.net.shared.core;
        let peer = core.connect(ada.net.device()).await.unwrap();
        for _ in 0..40 {
            let mut control = core.control.clone();
            let opened = control.open_stream(peer, StreamProtocol::new(SHARE_PROTOCOL)).await;
            let Ok(mut stream) = opened else { continue };
            // The stream's protocol is told with its first byte, here that of a frame's length. Of too many, some are dropped.
            let _may_be_dropped = stream.write_all(&[0]).await;
            let _may_be_dropped = stream.flush().await;
            silent.push(stream);
        }
        strangers.push(eve);
    }
    all_get_in(&ada, bob).await;
    drop((strangers, silent));
}

/// Thirty-two connections of strangers were all there were.
#[tokio::test(flavor = "multi_thread")]
async fn strangers_who_stay_give_way_to_whoever_comes() {
    let (ada, bob) = friends().await;
    let mut strangers = Vec::new();
    for number in 100..140 {
        let eve = node(number).await;
        eve.net
            .hint(ada.net.device(), ada.net.shared.core.links.listening()[0].clone());
        // The last ones are let in, too, in place of the first.
        let _connected = eve.net.shared.core.connect(ada.net.device()).await;
        strangers.push(eve);
    }
    let connected = |eve: &&TestNode| ada.net.connected(eve.net.device());
    // One goes when the last comes, and they are asked one after the other.
    eventually("one address has 8", || strangers.iter().filter(connected).count() <= 8).await;
    all_get_in(&ada, bob).await;
}

/// A recovered machine that no roster has room for was shown the door like a stranger.
#[tokio::test(flavor = "multi_thread")]
async fn a_member_s_new_machine_is_no_stranger_until_its_account_is_removed() {
    let (ada, bob) = friends().await;
    let home = tempfile::tempdir().unwrap();
    let recovered = start(home.path(), &bob.fixture, 77).await;
    recovered.hint(ada.net.device(), ada.net.shared.core.links.listening()[0].clone());
    let core = &recovered.shared.core;
    // Its greeting alone, without a word about the roster.
    let hello = Frame::bare(&core.hello(None));
    let _lane = core.open(ada.net.device(), SHARE_PROTOCOL, &[hello]).await.unwrap();
    assert!(ada.net.roster().device(recovered.device()).is_none());
    assert!(ada.net.shared.core.links.is_vouched(recovered.peer_id()));
    ada.net.remove_member(bob.fixture.account()).unwrap();
    eventually("it is shown the door", || !ada.net.connected(recovered.device())).await;
    assert!(!ada.net.shared.core.links.is_vouched(recovered.peer_id()));
}

/// Asks `server` to dial `address`, as AutoNAT's clients do; returns when it has said how that went.
async fn ask_to_dial(asker: &NetHandle, server: &NetHandle, address: &Multiaddr) {
    let core = &asker.shared.core;
    let peer = core.connect(server.device()).await.unwrap();
    let mut control = core.control.clone();
    let protocol = StreamProtocol::new("/libp2p/autonat/2/dial-request");
    let mut stream = control.open_stream(peer, protocol).await.unwrap();
    let address = address.to_vec();
    // Protocol buffers by hand: a request with one address and a nonce.
    let mut request = vec![0x0a, address.len() as u8];
    request.extend(&address);
    request.push(0x11);
    request.extend(7u64.to_le_bytes());
    let mut message = vec![2 + request.len() as u8, 0x0a, request.len() as u8];
    message.extend(request);
    stream.write_all(&message).await.unwrap();
    stream.flush().await.unwrap();
    let mut data_wanted = [0; 1];
    stream.read_exact(&mut data_wanted).await.unwrap();
    let mut rest = vec![0; data_wanted[0].into()];
    stream.read_exact(&mut rest).await.unwrap();
    // What it wants is at most 100,000 bytes, in messages of 4,000.
    for _ in 0..25 {
        let mut data = vec![0xa6, 0x1f, 0x22, 0xa3, 0x1f, 0x0a, 0xa0, 0x1f];
        data.resize(data.len() + 4000, 0);
        stream.write_all(&data).await.unwrap();
    }
    stream.flush().await.unwrap();
    let answered = tokio::time::timeout(Duration::from_secs(15), stream.read(&mut data_wanted)).await;
    assert!(answered.is_ok(), "it says how it went");
}

/// A stranger had a node connect to services of its own machine, and learned what they do.
#[tokio::test(flavor = "multi_thread")]
async fn nobody_has_a_node_dial_its_own_machine() {
    let (ada, bob) = friends().await;
    let eve = node(6).await;
    eve.net
        .hint(ada.net.device(), ada.net.shared.core.links.listening()[0].clone());
    let service = TcpListener::bind("127.0.0.1:0").unwrap();
    service.set_nonblocking(true).unwrap();
    let port = service.local_addr().unwrap().port();
    let address: Multiaddr = format!("/ip4/127.0.0.1/tcp/{port}").parse().unwrap();
    for asker in [&eve.net, &bob.net] {
        ask_to_dial(asker, &ada.net, &address).await;
        assert!(service.accept().is_err(), "nobody came");
    }
}
