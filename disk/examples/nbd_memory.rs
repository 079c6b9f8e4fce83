//! Serves a device in memory over NBD, for clients and benchmarks: `nbd_memory ADDRESS [MIB]`.

use std::sync::Arc;

use anyhow::Context as _;
use disk::nbd::address::{Address, Listener, Reach};
use disk::nbd::exports::{Export, FixedExports};
use disk::nbd::server::{Options, Server};
use disk::testing::MemoryDevice;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let address: Address = arguments
        .next()
        .context("Say an address: unix:PATH or HOST:PORT")?
        .parse()?;
    let mib: u64 = arguments.next().map_or(Ok(64), |text| text.parse())?;
    let export = |name: &str, device: MemoryDevice| Export {
        name: name.to_owned(),
        description: "In memory".to_owned(),
        device: Arc::new(device),
    };
    let exports = FixedExports(vec![
        export("disk", MemoryDevice::new(mib << 20)),
        export("snapshot", MemoryDevice::new(mib << 20).read_only()),
    ]);
    let server = Server::new(Arc::new(exports), Options::default());
    let listener = Listener::bind(&address, Reach::Loopback).await?;
    println!("{}", listener.local_address()?);
    tokio::select! {
        () = server.serve(listener) => {}
        signal = tokio::signal::ctrl_c() => signal?,
    }
    server.stop().await;
    Ok(())
}
