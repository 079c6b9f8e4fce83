//! A server with devices in memory, on a Unix socket and on a port, in this process.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use disk::nbd::address::{Address, Listener, Reach};
use disk::nbd::exports::{Export, FixedExports};
use disk::nbd::server::{Options, Server};
use disk::testing::MemoryDevice;

use crate::client::Client;

pub const MIB: u64 = 1 << 20;
pub const SIZE: u64 = 256 * MIB;

pub struct Served {
    pub socket: PathBuf,
    pub port: String,
    /// The device of the export `disk`, which is the default.
    pub device: Arc<MemoryDevice>,
    pub server: Server,
    pub runtime: tokio::runtime::Runtime,
    _folder: tempfile::TempDir,
}

impl Served {
    pub fn new() -> Self {
        Self::with(MemoryDevice::new(SIZE), Options::default())
    }

    pub fn with(device: MemoryDevice, options: Options) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .expect("a runtime");
        let device = Arc::new(device);
        let export = |name: &str, device: Arc<MemoryDevice>| Export {
            name: name.to_owned(),
            description: format!("The {name}"),
            device,
        };
        let exports = FixedExports(vec![
            export("disk", device.clone()),
            export("snapshot", Arc::new(MemoryDevice::new(4096).read_only())),
            export("too-large", Arc::new(MemoryDevice::new(1 << 63))),
            export("largest", Arc::new(MemoryDevice::new((1 << 63) - 1))),
        ]);
        let server = Server::new(Arc::new(exports), options);
        let socket = folder.path().join("nbd.socket");
        let listen = |address| {
            runtime
                .block_on(Listener::bind(&address, Reach::Loopback))
                .expect("it listens")
        };
        let unix = listen(Address::Unix(socket.clone()));
        let tcp = listen(Address::Tcp("127.0.0.1:0".to_owned()));
        let port = tcp.local_address().expect("it has an address").to_string();
        for listener in [unix, tcp] {
            let server = server.clone();
            runtime.spawn(async move { server.serve(listener).await });
        }
        Self {
            socket,
            port,
            device,
            server,
            runtime,
            _folder: folder,
        }
    }

    /// A client: all of these are one, by their process.
    pub fn client(&self) -> Client {
        Client::unix(&self.socket)
    }

    /// Another client, by its address.
    pub fn other(&self) -> Client {
        Client::tcp(&self.port)
    }
}

/// Waits until something holds that nothing tells of.
pub fn until(what: &str, holds: impl Fn() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(20), "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
