//! Serves one volume over NBD, with its journal in a folder and what is committed in memory, for measuring both together:
//! `cargo run --release -p disk --example nbd_volume -- unix:/tmp/nbd.sock FOLDER BYTES`

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result};
use disk::backing::Backing;
use disk::journal::record::BLOCK_BYTES;
use disk::journal::{JournalKey, JournalOptions};
use disk::nbd::address::{Listener, Reach};
use disk::nbd::exports::{Export, FixedExports};
use disk::nbd::server::{Options, Server};
use disk::volume::{Volume, VolumeOptions};
use disk::{Device, DeviceError, Extent, ExtentKind};
use futures::future::BoxFuture;

/// How often everything is committed.
const COMMIT_EVERY: Duration = Duration::from_millis(500);

/// Committed blocks, all in memory.
struct Committed(Mutex<Vec<u8>>);

impl Committed {
    fn commit(&self, volume: &Volume) -> Result<()> {
        // Files of what is not flushed are not released.
        futures::executor::block_on(volume.flush())?;
        let batch = volume.batch(u64::MAX)?;
        let mut bytes = self.0.lock().expect("no holder panics");
        for piece in &batch.pieces {
            let at = piece.start as usize * BLOCK_BYTES;
            piece.read(&mut bytes[at..at + piece.count as usize * BLOCK_BYTES])?;
        }
        drop(bytes);
        let seq = batch.seq;
        drop(batch);
        volume.release(seq);
        Ok(())
    }
}

impl Backing for Committed {
    fn size(&self) -> Option<u64> {
        None
    }

    fn committed_seq(&self) -> u64 {
        0
    }

    fn read_now(&self, start: u64, into: &mut [u8]) -> Result<bool, DeviceError> {
        let at = start as usize * BLOCK_BYTES;
        into.copy_from_slice(&self.0.lock().expect("no holder panics")[at..at + into.len()]);
        Ok(true)
    }

    fn read(&self, start: u64, count: u64) -> BoxFuture<'_, Result<Vec<u8>, DeviceError>> {
        let mut bytes = vec![0; count as usize * BLOCK_BYTES];
        let read = self.read_now(start, &mut bytes);
        Box::pin(async move { read.map(|_| bytes) })
    }

    fn extents(&self, _start: u64, count: u64) -> Result<Vec<Extent>, DeviceError> {
        let (length, kind) = (count * BLOCK_BYTES as u64, ExtentKind::Data);
        Ok(vec![Extent { length, kind }])
    }

    fn prefetch(&self, _start: u64, _count: u64) {}
}

#[tokio::main(flavor = "multi_thread", worker_threads = 1)]
async fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let mut next = || {
        arguments
            .next()
            .context("say unix:PATH or HOST:PORT, an empty folder, and bytes")
    };
    let (address, folder, size) = (next()?, PathBuf::from(next()?), next()?.parse()?);
    let committed = Arc::new(Committed(Mutex::new(vec![0; size as usize])));
    let options = VolumeOptions {
        journal: JournalOptions::new(folder),
        size,
        is_read_only: false,
        patience: Duration::from_secs(30),
    };
    let volume = Arc::new(Volume::open(
        options,
        JournalKey::new(&[1; 32], [2; 16]),
        committed.clone(),
    )?);
    let committing = volume.clone();
    std::thread::spawn(move || {
        loop {
            std::thread::sleep(COMMIT_EVERY);
            if let Err(error) = committed.commit(&committing) {
                eprintln!("{error}");
            }
        }
    });
    let listener = Listener::bind(&address.parse()?, Reach::Loopback).await?;
    println!("{}", listener.local_address()?);
    let export = Export {
        name: "disk".to_owned(),
        description: "a volume with its journal".to_owned(),
        device: volume,
    };
    let server = Server::new(Arc::new(FixedExports(vec![export])), Options::default());
    let serving = tokio::spawn({
        let server = server.clone();
        async move { server.serve(listener).await }
    });
    tokio::signal::ctrl_c().await?;
    server.stop().await;
    Ok(serving.await?)
}
