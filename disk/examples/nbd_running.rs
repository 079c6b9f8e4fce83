//! Serves a whole volume over NBD, with its packs in memory, and commits it as a daemon does, for measuring what reads and commits cost
//! on this side of the peers:
//! `cargo run --release -p disk --example nbd_running -- unix:/tmp/nbd.sock FOLDER BYTES`

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use disk::nbd::address::{Listener, Reach};
use disk::nbd::exports::{Export, FixedExports};
use disk::nbd::server::{Options, Server};
use disk::running::{Running, first_commit};
use disk::testing::packs::MemoryPacks;
use tokio::runtime::Handle;

/// Between two looks whether there is something to commit.
const LOOK: Duration = Duration::from_secs(1);
const VOLUME: [u8; 16] = [7; 16];

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let mut next = || {
        arguments
            .next()
            .context("say unix:PATH or HOST:PORT, a folder, and bytes")
    };
    let (address, folder, size) = (next()?, PathBuf::from(next()?), next()?.parse()?);
    let packs = MemoryPacks::new();
    let first = first_commit(VOLUME, "disk".to_owned(), size, Vec::new(), 0, &mut packs.clone())?;
    let commit = first.committed.root.commit;
    let running = Arc::new(Running::open(
        &folder,
        VOLUME,
        commit,
        &first.at,
        packs.clone(),
        Handle::current(),
        None,
    )?);
    let committing = running.clone();
    std::thread::spawn(move || {
        loop {
            std::thread::sleep(LOOK);
            let committed = committing.commit(0, &mut packs.clone(), &mut |_| Ok(()));
            if let Err(error) = committed {
                eprintln!("{error}");
            }
        }
    });
    let listener = Listener::bind(&address.parse()?, Reach::Loopback).await?;
    println!("{}", listener.local_address()?);
    let export = Export {
        name: "disk".to_owned(),
        description: "a volume with its journal and its packs".to_owned(),
        device: running.device(),
    };
    let server = Server::new(Arc::new(FixedExports(vec![export])), Options::default());
    server.serve(listener).await;
    Ok(())
}
