//! A friend's node that lies: takes over the home of one that has stopped, listens where that listened, and answers what it likes
//! about the shares that it keeps. `bench/hostile.py` measures what `recover` and `check` pay for it.
//!
//! `liar HOME ADDRESS endless|same|never`: a batch of ascending ids more each time, the same batch for ever, or no batch at all.
//! Whatever else is asked, it has nothing.

use std::path::Path;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use ed25519_dalek::SigningKey;
use friendnet::identity;
use futures::{AsyncReadExt, AsyncWriteExt, StreamExt};
use libp2p::{Multiaddr, Stream, StreamProtocol, SwarmBuilder, noise, tcp, yamux};
use proto::id::ShareId;
use proto::wire::frame::IDS_MAX;
use proto::wire::frame::{self, LENGTH_BYTES};
use proto::wire::greeting::Greeting;
use proto::wire::share::{Failure, ShareMessage};
use proto::wire::{SHARE_PROTOCOL, VERSION};

/// What it says when it is asked for a list.
#[derive(Clone, Copy)]
enum Lie {
    Endless,
    Same,
    Never,
}

#[tokio::main]
async fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [home, address, lie] = arguments.as_slice() else {
        bail!("liar HOME ADDRESS endless|same|never");
    };
    let lie = match lie.as_str() {
        "endless" => Lie::Endless,
        "same" => Lie::Same,
        "never" => Lie::Never,
        other => bail!("`{other}` is no lie"),
    };
    let (key, cert) = keys(Path::new(home))?;
    let mut swarm = SwarmBuilder::with_existing_identity(identity::keypair(&key))
        .with_tokio()
        .with_tcp(tcp::Config::default(), noise::Config::new, yamux::Config::default)?
        .with_behaviour(|_| libp2p_stream::Behaviour::new())?
        .with_swarm_config(|config| config.with_idle_connection_timeout(std::time::Duration::from_secs(3600)))
        .build();
    let mut lanes = swarm
        .behaviour()
        .new_control()
        .accept(StreamProtocol::new(SHARE_PROTOCOL))?;
    swarm.listen_on(address.parse::<Multiaddr>()?)?;
    tokio::spawn(async move { while swarm.next().await.is_some() {} });
    println!("ready");
    while let Some((_, stream)) = lanes.next().await {
        let cert = cert.clone();
        // Whoever asks may go at any time.
        tokio::spawn(async move { answer(stream, cert, lie).await.ok() });
    }
    Ok(())
}

/// The device's key and certificate.
fn keys(home: &Path) -> Result<(SigningKey, Vec<u8>)> {
    let text = std::fs::read_to_string(home.join("device.key")).context("a home has a device.key")?;
    let hex = text.lines().last().context("a key file has lines")?;
    let secret = data_encoding::HEXLOWER.decode(hex.as_bytes())?;
    let secret: [u8; 32] = secret.try_into().ok().context("a key has 32 bytes")?;
    Ok((
        SigningKey::from_bytes(&secret),
        std::fs::read(home.join("device.cert"))?,
    ))
}

async fn answer(mut stream: Stream, cert: Vec<u8>, lie: Lie) -> Result<()> {
    let _hello: Greeting = read(&mut stream).await?;
    let welcome = Greeting::Welcome {
        version: VERSION,
        cert: cert.into(),
    };
    say(&mut stream, &welcome, Bytes::new()).await?;
    loop {
        let asked: ShareMessage = read(&mut stream).await?;
        let request = asked.request();
        let (said, payload) = match asked {
            ShareMessage::List { after, .. } | ShareMessage::Trash { after, .. } => {
                let first = match lie {
                    Lie::Endless => after.map_or(0, |after| number(after) + 1),
                    Lie::Same => 0,
                    Lie::Never => continue,
                };
                (ShareMessage::Ids { request }, batch(first))
            }
            ShareMessage::Heads { .. } => (ShareMessage::HeadsAre { request }, Bytes::new()),
            ShareMessage::Ping { .. } => (ShareMessage::Done { request }, Bytes::new()),
            _ => {
                let failure = Failure::NotFound;
                (ShareMessage::Failed { request, failure }, Bytes::new())
            }
        };
        say(&mut stream, &said, payload).await?;
    }
}

async fn read<M: for<'b> minicbor::Decode<'b, ()>>(stream: &mut Stream) -> Result<M> {
    let mut length = [0; LENGTH_BYTES];
    stream.read_exact(&mut length).await?;
    let mut body = vec![0; frame::body_bytes(length)?];
    stream.read_exact(&mut body).await?;
    Ok(frame::parse(&body)?.0)
}

async fn say<M: minicbor::Encode<()>>(stream: &mut Stream, message: &M, payload: Bytes) -> Result<()> {
    stream.write_all(&frame::prefix(message, payload.len())).await?;
    stream.write_all(&payload).await?;
    Ok(stream.flush().await?)
}

/// A full batch of ids from `first` on.
fn batch(first: u64) -> Bytes {
    let ids = (first..first + u64::from(IDS_MAX)).flat_map(|number| {
        let mut id = [0; 32];
        id[..8].copy_from_slice(&number.to_be_bytes());
        id
    });
    ids.collect()
}

fn number(id: ShareId) -> u64 {
    id.0.first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes))
}
