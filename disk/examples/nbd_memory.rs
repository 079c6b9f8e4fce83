//! Serves devices in memory over NBD, for trying clients and for measuring the server alone:
//! `cargo run --release -p disk --example nbd_memory -- unix:/tmp/nbd.sock [NAME=BYTES[,ro]]...`

use std::sync::Arc;

use anyhow::{Context, Result};
use disk::nbd::address::{Listener, Reach};
use disk::nbd::exports::{Export, FixedExports};
use disk::nbd::server::{Options, Server};
use disk::testing::MemoryDevice;

fn export(text: &str) -> Result<Export> {
    let (name, size) = text
        .split_once('=')
        .context("an export is NAME=BYTES or NAME=BYTES,ro")?;
    let (bytes, is_read_only) = match size.strip_suffix(",ro") {
        Some(bytes) => (bytes, true),
        None => (size, false),
    };
    let device = MemoryDevice::new(bytes.parse()?);
    let device = if is_read_only { device.read_only() } else { device };
    Ok(Export {
        name: name.to_owned(),
        description: "a disk in memory".to_owned(),
        device: Arc::new(device),
    })
}

#[tokio::main(flavor = "multi_thread", worker_threads = 1)]
async fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let address = arguments
        .next()
        .context("say where to listen: unix:PATH or HOST:PORT")?;
    let mut exports = arguments.map(|text| export(&text)).collect::<Result<Vec<_>>>()?;
    if exports.is_empty() {
        exports.push(export("disk=268435456")?);
    }
    let listener = Listener::bind(&address.parse()?, Reach::Loopback).await?;
    println!("{}", listener.local_address()?);
    let server = Server::new(Arc::new(FixedExports(exports)), Options::default());
    let serving = tokio::spawn({
        let server = server.clone();
        async move { server.serve(listener).await }
    });
    tokio::signal::ctrl_c().await?;
    server.stop().await;
    Ok(serving.await?)
}
