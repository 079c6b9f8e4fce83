//! How long keeping many shares takes: counting, listing, the exchange of what is to go, the expiry scan, a scrub.
//!
//! `cargo run --release -p node --example keeping -- 30000 100000` prints a line a step and size. Two nodes talk over loopback; the
//! owner's catalog knows a pack for each share. Shares are sparse files of the right length: only the scrub reads
//! them, and has real ones, a hundredth as many, which is what it reads in as many bytes at full speed.

use std::fs::{self, File};
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use database::Db;
use ed25519_dalek::SigningKey;
use friendnet::handle::NetHandle;
use friendnet::net::relays::RelayUse;
use friendnet::net::swarm::LocalDiscovery;
use friendnet::start::{Net, NetConfig, TransportConfig};
use proto::cap_index::PackRecord;
use proto::id::{AccountId, DeviceId, PackId, ShareId};
use proto::keys::{DeviceCert, WRAPPED_KEY_BYTES, power, words_key};
use proto::manifest::Manifest;
use proto::pack::{self, PackKey};
use proto::phrase::Seed;
use proto::shape::PackShape;
use proto::shape::ShareSize;
use proto::share_store::ShareStore;
use stores::folder::FolderStore;
use stores::room::Offered;
use stores::scrub::{self, Found};
use upload_queue::bandwidth::Bandwidth;
use upload_queue::packs::{self, Purpose};
use upload_queue::peers::place::Place;
use upload_queue::peers::{Peer, PeerKey, Reach};
use upload_queue::space::MinFree;

const SHAPE: PackShape = PackShape {
    k: 2,
    n: 3,
    share: ShareSize::Small,
};
/// A ticket's expiry that never comes.
const LATER: u64 = 1 << 40;
/// Longer than anything stays in the trash.
const DAYS: u64 = 31;

fn main() -> Result<()> {
    let sizes: Vec<u32> = std::env::args()
        .skip(1)
        .map(|size| size.parse().context("sizes are whole numbers"))
        .collect::<Result<_>>()?;
    let runtime = tokio::runtime::Runtime::new()?;
    for size in if sizes.is_empty() { vec![30_000, 100_000] } else { sizes } {
        runtime.block_on(measure(size))?;
    }
    Ok(())
}

async fn measure(count: u32) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let (holder_home, owner_home) = (dir.path().join("holder"), dir.path().join("owner"));
    let (holder, _) = start(&holder_home, 1).await?;
    let (owner, account) = start(&owner_home, 2).await?;
    owner.join(&holder.invite("owner", LATER).await?).await?;

    let root = holder_home.join("store");
    fill_store(&root, account, count)?;
    let db = backup::catalog::open(&owner_home.join("catalog.db"))?;
    let store = owner.peer(holder.device());
    let place = Place::Friend(holder.device());
    let peer = Peer {
        key: place.key(),
        place,
        name: "holder".to_owned(),
        domain: "holder".to_owned(),
        reach: Reach::Remote,
        store: std::sync::Arc::new(store.clone()),
    };
    fill_catalog(&db, &peer.key, account, count)?;

    let say =
        |step: &str, began: Instant| println!("{count:>8} shares  {step:<44} {:>8.2} s", began.elapsed().as_secs_f64());
    let began = Instant::now();
    let counting = holder.clone();
    tokio::task::spawn_blocking(move || counting.kept_for(account)).await??;
    say("count the bytes of an owner", began);

    let began = Instant::now();
    let (mut listed, mut after) = (0, None);
    loop {
        let batch = store.list(after, proto::wire::frame::IDS_MAX).await?;
        let Some(last) = batch.last() else { break };
        (listed, after) = (listed + batch.len(), Some(*last));
    }
    ensure!(listed == count as usize, "{listed} listed");
    say("list them over the network", began);

    let peers = [peer];
    let began = Instant::now();
    backup::prune::discard_dead(&db, &peers).await?;
    say("exchange, nothing to give up", began);

    db.write(|tx| packs::set_dead(tx, &packs::data_rows(tx)?, 0))?;
    let began = Instant::now();
    let done = backup::prune::discard_dead(&db, &peers).await?;
    ensure!(
        done[0].failed.is_none() && done[0].shares == u64::from(count),
        "{done:?}"
    );
    say("exchange, all given up", began);

    let folder = FolderStore::open(&root, account, None)?;
    let began = Instant::now();
    ensure!(folder.expire()?.shares == 0);
    say("expiry scan, nothing due", began);
    drop(folder);
    pass_days(&root)?;
    let folder = FolderStore::open(&root, account, None)?;
    let began = Instant::now();
    let expired = tokio::task::spawn_blocking(move || folder.expire()).await??;
    ensure!(expired.shares == u64::from(count), "{expired:?}");
    say("expiry scan, all due", began);
    measure_scrub(&dir.path().join("scrubbed"), account, count / 100).await
}

/// Without the limit of speed that the daemon sets.
async fn measure_scrub(root: &Path, account: AccountId, count: u32) -> Result<()> {
    let store = FolderStore::open(root, account, None)?;
    let device = SigningKey::from_bytes(&[2; 32]);
    let mut kept = 0;
    for number in 0.. {
        let key = PackKey(blake3::hash(&u32::to_le_bytes(number)).into());
        let sealed = pack::seal(&key, SHAPE, &vec![number as u8; SHAPE.plain_bytes()]);
        let manifest = Manifest::sign(key.pack_id(), SHAPE, sealed.ids.clone(), account, &device);
        for (id, share) in sealed.shares(&manifest).into_iter().take((count - kept) as usize) {
            store.put(id, share).await?;
            kept += 1;
        }
        if kept == count {
            break;
        }
    }
    let (began, mut found) = (Instant::now(), Found::default());
    scrub::account(&store, None, u64::MAX, &mut found, &mut |_| {}).await?;
    ensure!(
        found.shares == u64::from(count) && found.damaged.is_empty(),
        "{found:?}"
    );
    let secs = began.elapsed().as_secs_f64();
    println!(
        "{count:>8} shares  scrub of {:>5} MB at full speed {secs:>30.2} s",
        found.bytes / 1_000_000
    );
    Ok(())
}

async fn start(home: &Path, number: u8) -> Result<(NetHandle, AccountId)> {
    fs::create_dir_all(home)?;
    let words = words_key(&Seed([number; 32]));
    let device_key = SigningKey::from_bytes(&[number; 32]);
    let device = DeviceId(device_key.verifying_key().to_bytes());
    let net = Net::start(NetConfig {
        transport: TransportConfig {
            cert: DeviceCert::sign(&words, device, power::ALL, "figures", 0),
            device_key,
            listen: vec!["/ip4/127.0.0.1/tcp/0".parse()?],
            announce: Vec::new(),
            discovery: LocalDiscovery::Off,
            upnp: false,
            relays: RelayUse::Never,
            forwards: false,
            bandwidth: Bandwidth::default(),
        },
        account_name: format!("account {number}"),
        home: home.to_owned(),
        offered: Offered::Bytes(u64::MAX),
        min_free: MinFree::Bytes(0),
    })
    .await?;
    Ok((net, AccountId(words.verifying_key().to_bytes())))
}

fn id(number: u32) -> ShareId {
    ShareId(blake3::hash(&number.to_le_bytes()).into())
}

fn fill_store(root: &Path, account: AccountId, count: u32) -> Result<()> {
    drop(FolderStore::open(root, account, None)?);
    let shares = root.join(account.to_string()).join("shares");
    for number in 0..count {
        let name = id(number).to_string();
        let file = File::create(shares.join(&name[..2]).join(&name))?;
        file.set_len(SHAPE.share.stored_bytes() as u64)?;
    }
    Ok(())
}

fn fill_catalog(db: &Db, peer: &PeerKey, account: AccountId, count: u32) -> Result<()> {
    let device = SigningKey::from_bytes(&[2; 32]);
    db.write(|tx| {
        for number in 0..count {
            let pack = PackId(blake3::hash(&[&b"pack"[..], &number.to_le_bytes()].concat()).into());
            let elsewhere = [1, 2].map(|index| ShareId(blake3::hash(&[pack.0, [index; 32]].concat()).into()));
            let shares = vec![id(number), elsewhere[0], elsewhere[1]];
            let manifest = Manifest::sign(pack, SHAPE, shares, account, &device);
            let record = PackRecord {
                manifest: manifest.encode(),
                wrapped_key: [0; WRAPPED_KEY_BYTES],
            };
            packs::insert_known(tx, &record, &manifest, Purpose::Data)?;
            packs::record_held(tx, peer, &[id(number)])?;
        }
        Ok::<_, database::DbError>(())
    })?;
    Ok(())
}

/// As if the store had been counting for so long.
fn pass_days(root: &Path) -> Result<()> {
    let file = root.join("gridbackup-days");
    let text = fs::read_to_string(&file)?;
    let counted = text.lines().find_map(|line| line.strip_prefix("counted_secs "));
    let counted = counted.context("the store counts")?;
    let later = counted.parse::<u64>()? + DAYS * 86_400;
    Ok(fs::write(&file, text.replace(counted, &later.to_string()))?)
}
