//! Mounts a disk in memory as a file, until it is unmounted or Ctrl-C, for trying it and for measuring the mount alone:
//! `cargo run --release -p mount --example disk_memory -- FOLDER [BYTES[,ro]]`; the file is `FOLDER/disk`.

use std::ffi::OsStr;
use std::sync::Arc;

use anyhow::{Context, Result};
use disk::testing::MemoryDevice;
use mount::MountOptions;
use mount::disk::DiskMount;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<()> {
    let mut arguments = std::env::args_os().skip(1);
    let at = arguments.next().context("say where to mount: a folder")?.into();
    let size = arguments.next().unwrap_or_else(|| "268435456".into());
    let size = size.to_str().context("a size is a number of bytes")?;
    let device = match size.strip_suffix(",ro") {
        Some(size) => MemoryDevice::new(size.parse()?).read_only(),
        None => MemoryDevice::new(size.parse()?),
    };
    let allow_other = false;
    let options = MountOptions { at, allow_other };
    let mut mount = DiskMount::start(Arc::new(device), OsStr::new("disk"), &options)?;
    println!("{}", options.at.join("disk").display());
    tokio::select! {
        gone = mount.gone() => return Ok(gone?),
        stopped = tokio::signal::ctrl_c() => stopped?,
    }
    Ok(mount.unmount().await?)
}
