//! Serves one volume over NBD, with its journal in a folder and what is committed in memory, for measuring both together, or in a file,
//! so that it can be killed and started again:
//! `cargo run --release -p disk --example nbd_volume -- unix:/tmp/nbd.sock FOLDER BYTES [FILE]`

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
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
use disk::volume::{Batch, Volume, VolumeOptions};
use disk::{Device, DeviceError, Extent, ExtentKind};
use futures::future::BoxFuture;

/// How often everything is committed.
const COMMIT_EVERY: Duration = Duration::from_millis(500);

/// Committed blocks.
enum Committed {
    Memory(Mutex<Vec<u8>>),
    /// Behind the blocks, the number of the last record that is in them (eight bytes, little-endian). Nothing is synced: it outlives its
    /// process, which is what it is for, not a power cut.
    File {
        file: File,
        size: u64,
    },
}

impl Committed {
    fn new(size: u64, file: Option<PathBuf>) -> io::Result<Self> {
        let Some(path) = file else {
            return Ok(Self::Memory(Mutex::new(vec![0; size as usize])));
        };
        let file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)?;
        file.set_len(size + 8)?;
        Ok(Self::File { file, size })
    }

    fn write(&self, batch: &Batch) -> Result<()> {
        for piece in &batch.pieces {
            let at = piece.start as usize * BLOCK_BYTES;
            let length = piece.count as usize * BLOCK_BYTES;
            match self {
                Self::Memory(bytes) => piece.read(&mut bytes.lock().expect("no holder panics")[at..at + length])?,
                Self::File { file, .. } => {
                    let mut blocks = vec![0; length];
                    piece.read(&mut blocks)?;
                    file.write_all_at(&blocks, at as u64)?;
                }
            }
        }
        if let Self::File { file, size } = self {
            file.write_all_at(&batch.seq.to_le_bytes(), *size)?;
        }
        Ok(())
    }

    fn commit(&self, volume: &Volume) -> Result<()> {
        // Files of what is not flushed are not released.
        futures::executor::block_on(volume.flush())?;
        let batch = volume.batch(u64::MAX)?;
        self.write(&batch)?;
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
        let Self::File { file, size } = self else { return 0 };
        let mut seq = [0; 8];
        file.read_exact_at(&mut seq, *size)
            .expect("the file is as long as that");
        u64::from_le_bytes(seq)
    }

    fn read_now(&self, start: u64, into: &mut [u8]) -> Result<bool, DeviceError> {
        let at = start as usize * BLOCK_BYTES;
        match self {
            Self::Memory(bytes) => {
                into.copy_from_slice(&bytes.lock().expect("no holder panics")[at..at + into.len()]);
            }
            Self::File { file, .. } => file.read_exact_at(into, at as u64)?,
        }
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
            .context("say unix:PATH or HOST:PORT, a folder, and bytes")
    };
    let (address, folder, size) = (next()?, PathBuf::from(next()?), next()?.parse()?);
    let committed = Arc::new(Committed::new(size, next().ok().map(PathBuf::from))?);
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
