//! A crowd that says nothing: sockets, QUIC handshakes and streams to one node, from one address or from many, held open and made
//! anew whenever the node lets go of one. `bench/hostile.py` measures what the node pays for it.
//!
//! `strangers tcp|quic|streams TARGET COUNT SOURCES`: `TARGET` is IP:PORT; `SOURCES` is an address, or an IPv4 network such as
//! `10.9.0.0/16` all of which this machine takes for its own (`ip route add local 10.9.0.0/16 dev lo`). Each of the `COUNT` places is filled
//! at most once a second.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use futures::AsyncWriteExt;
use futures::future::BoxFuture;
use libp2p::core::muxing::{StreamMuxerBox, StreamMuxerExt};
use libp2p::core::transport::{DialOpts, ListenerId, PortUse, TransportError, TransportEvent};
use libp2p::core::upgrade::Version;
use libp2p::core::{Endpoint, Transport};
use libp2p::identity::Keypair;
use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, noise, quic, tcp, yamux};
use tokio::net::{TcpSocket, UdpSocket};

/// Bytes of the datagram that a QUIC connection begins with.
const INITIAL_BYTES: usize = 1200;
/// Streams on each connection that gets through.
const STREAMS: usize = 32;

/// Connections begun so far, and those that the other end has let go.
#[derive(Default)]
struct Counts {
    begun: AtomicU64,
    ended: AtomicU64,
}

#[tokio::main]
async fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [kind, target, count, sources] = arguments.as_slice() else {
        bail!("strangers tcp|quic|streams TARGET COUNT SOURCES");
    };
    let (target, count): (SocketAddr, usize) = (target.parse()?, count.parse()?);
    let sources: Arc<[Ipv4Addr]> = addresses(sources, count)?.into();
    let counts = Arc::new(Counts::default());
    match kind.as_str() {
        "tcp" => fill(count, &counts, move |place| {
            silent_tcp(sources[place % sources.len()], target)
        }),
        "streams" => fill(count, &counts, move |place| {
            silent_streams(sources[place % sources.len()], target)
        }),
        "quic" => {
            // Each datagram begins one connection: enough of them for a minute.
            let initials: Arc<[Vec<u8>]> = initials(count.max(2000)).await?.into();
            let next = Arc::new(AtomicU64::new(0));
            fill(count, &counts, move |place| {
                let number = next.fetch_add(1, Ordering::Relaxed) as usize;
                silent_quic(
                    sources[place % sources.len()],
                    target,
                    initials[number % initials.len()].clone(),
                )
            });
        }
        other => bail!("`{other}` is no kind of silence"),
    }
    println!("ready");
    loop {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let (begun, ended) = (
            counts.begun.load(Ordering::Relaxed),
            counts.ended.load(Ordering::Relaxed),
        );
        println!("{begun} begun, {ended} ended");
    }
}

/// As many addresses of a network as there are places, spread over all of it.
fn addresses(sources: &str, count: usize) -> Result<Vec<Ipv4Addr>> {
    let (network, bits) = sources.split_once('/').unwrap_or((sources, "32"));
    let (network, bits): (Ipv4Addr, u32) = (network.parse()?, bits.parse()?);
    let hosts = 1u64.checked_shl(32 - bits).context("a network has up to 32 bits")?;
    // The first and the last address of a network are nobody's.
    let usable = if hosts > 2 { hosts - 2 } else { hosts };
    let wanted = usable.min(count as u64);
    let step = usable / wanted;
    let first = u64::from(u32::from(network)) + u64::from(hosts > 2);
    (0..wanted)
        .map(|number| Ok(Ipv4Addr::from(u32::try_from(first + number * step)?)))
        .collect()
}

/// Keeps `count` places filled: `hold` ends when the other end lets go.
fn fill<F, H>(count: usize, counts: &Arc<Counts>, hold: F)
where
    F: Fn(usize) -> H + Send + Sync + 'static,
    H: Future<Output = Result<()>> + Send + 'static,
{
    let hold = Arc::new(hold);
    for place in 0..count {
        let (hold, counts) = (hold.clone(), counts.clone());
        tokio::spawn(async move {
            // Not all at once.
            tokio::time::sleep(Duration::from_millis(place as u64 % 1000)).await;
            loop {
                let again = tokio::time::sleep(Duration::from_secs(1));
                counts.begun.fetch_add(1, Ordering::Relaxed);
                let _let_go = hold(place).await;
                counts.ended.fetch_add(1, Ordering::Relaxed);
                again.await;
            }
        });
    }
}

async fn connected(source: Ipv4Addr, target: SocketAddr) -> io::Result<tokio::net::TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddrV4::new(source, 0).into())?;
    socket.connect(target).await
}

/// A socket without a word, until it is closed.
async fn silent_tcp(source: Ipv4Addr, target: SocketAddr) -> Result<()> {
    let socket = connected(source, target).await?;
    let mut heard = [0; 512];
    loop {
        socket.readable().await?;
        match socket.try_read(&mut heard) {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// A QUIC handshake that ends with its first datagram.
async fn silent_quic(source: Ipv4Addr, target: SocketAddr, initial: Vec<u8>) -> Result<()> {
    let socket = UdpSocket::bind((source, 0)).await?;
    socket.send_to(&initial, target).await?;
    // Nobody says when the other end gives up: it is asked anew as often as sockets are.
    Ok(())
}

/// First datagrams of QUIC connections, as libp2p makes them, each of another connection.
async fn initials(count: usize) -> Result<Vec<Vec<u8>>> {
    let sink = UdpSocket::bind("127.0.0.1:0").await?;
    let port = sink.local_addr()?.port();
    let address: Multiaddr = format!("/ip4/127.0.0.1/udp/{port}/quic-v1").parse()?;
    let mut config = quic::Config::new(&Keypair::generate_ed25519());
    config.handshake_timeout = Duration::from_millis(500);
    let mut transport = quic::tokio::Transport::new(config);
    let options = DialOpts {
        role: Endpoint::Dialer,
        port_use: PortUse::New,
    };
    let (mut found, mut buffer) = (Vec::with_capacity(count), vec![0; 2048]);
    while found.len() < count {
        let dialing = tokio::spawn(
            transport
                .dial(address.clone(), options)
                .map_err(|error| anyhow::anyhow!("{error:?}"))?,
        );
        let received = tokio::time::timeout(Duration::from_secs(1), sink.recv_from(&mut buffer)).await;
        if let Ok(Ok((INITIAL_BYTES.., _))) = received {
            found.push(buffer[..INITIAL_BYTES].to_vec());
        }
        dialing.abort();
        // A second datagram of the same connection begins nothing.
        while sink.try_recv_from(&mut buffer).is_ok() {}
    }
    Ok(found)
}

/// A connection with streams on which nothing is said, until it is closed.
async fn silent_streams(source: Ipv4Addr, target: SocketAddr) -> Result<()> {
    let identity = Keypair::generate_ed25519();
    let mut transport = From { source }
        .upgrade(Version::V1Lazy)
        .authenticate(noise::Config::new(&identity)?)
        .multiplex(yamux::Config::default())
        .map(|(peer, connection), _| (peer, StreamMuxerBox::new(connection)));
    let address: Multiaddr = format!("/ip4/{}/tcp/{}", target.ip(), target.port()).parse()?;
    let options = DialOpts {
        role: Endpoint::Dialer,
        port_use: PortUse::New,
    };
    let (_, mut connection) = transport
        .dial(address, options)
        .map_err(|error| anyhow::anyhow!("{error:?}"))?
        .await?;
    let mut silent = Vec::new();
    for _ in 0..STREAMS {
        let mut stream = std::future::poll_fn(|context| {
            let _events = connection.poll_unpin(context)?;
            connection.poll_outbound_unpin(context)
        })
        .await?;
        // What multistream says first, and the protocol of shares: then a greeting is waited for.
        stream
            .write_all(b"\x13/multistream/1.0.0\n\x14/gridbackup/share/1\n")
            .await?;
        stream.flush().await?;
        silent.push(stream);
    }
    std::future::poll_fn(|context| -> Poll<io::Result<()>> {
        loop {
            match connection.poll_inbound_unpin(context) {
                Poll::Ready(Ok(stream)) => silent.push(stream),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => break,
            }
        }
        match connection.poll_unpin(context) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            _ => Poll::Pending,
        }
    })
    .await?;
    Ok(())
}

/// TCP from one address of many.
struct From {
    source: Ipv4Addr,
}

impl Transport for From {
    type Output = tcp::tokio::TcpStream;
    type Error = io::Error;
    type ListenerUpgrade = futures::future::Pending<io::Result<Self::Output>>;
    type Dial = BoxFuture<'static, io::Result<Self::Output>>;

    fn listen_on(&mut self, _: ListenerId, address: Multiaddr) -> Result<(), TransportError<io::Error>> {
        Err(TransportError::MultiaddrNotSupported(address))
    }

    fn remove_listener(&mut self, _: ListenerId) -> bool {
        false
    }

    fn dial(&mut self, address: Multiaddr, _: DialOpts) -> Result<Self::Dial, TransportError<io::Error>> {
        let mut parts = address.iter();
        let (Some(Protocol::Ip4(ip)), Some(Protocol::Tcp(port))) = (parts.next(), parts.next()) else {
            return Err(TransportError::MultiaddrNotSupported(address));
        };
        let source = self.source;
        Ok(Box::pin(async move {
            let socket = connected(source, (ip, port).into()).await?;
            Ok(tcp::tokio::TcpStream(socket))
        }))
    }

    fn poll(self: Pin<&mut Self>, _: &mut TaskContext<'_>) -> Poll<TransportEvent<Self::ListenerUpgrade, Self::Error>> {
        Poll::Pending
    }
}
