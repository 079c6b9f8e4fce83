//! A TCP proxy on loopback whose answers can be made late or cut off: a friend at the end of a bad line.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use anyhow::Result;

/// The proxy; its threads end with the connections.
#[derive(Clone)]
pub struct Proxy {
    /// Where it listens.
    pub at: SocketAddr,
    to: Arc<Mutex<Option<SocketAddr>>>,
    late_ms: Arc<AtomicU64>,
    bytes_max: Arc<AtomicU64>,
}

impl Proxy {
    /// Listens; refuses until it is told where to.
    pub fn start() -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        let proxy = Self {
            at: listener.local_addr()?,
            to: Arc::default(),
            late_ms: Arc::default(),
            bytes_max: Arc::new(AtomicU64::new(u64::MAX)),
        };
        let own = proxy.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let to = *own.to.lock().expect("no panic while the aim is locked");
                if let Some(server) = to.and_then(|to| TcpStream::connect(to).ok()) {
                    let _ends_with_the_connection = own.connect(client, server);
                }
            }
        });
        Ok(proxy)
    }

    /// Connections go there from now on.
    pub fn forward_to(&self, to: SocketAddr) {
        *self.to.lock().expect("no panic while the aim is locked") = Some(to);
    }

    /// Bytes from the server come so much later from now on.
    pub fn answer_late(&self, late: Duration) {
        self.late_ms.store(late.as_millis() as u64, Ordering::Relaxed);
    }

    /// A connection breaks off when the server has sent so many bytes over it from now on.
    pub fn cut_after(&self, bytes: u64) {
        self.bytes_max.store(bytes, Ordering::Relaxed);
    }

    fn connect(&self, client: TcpStream, server: TcpStream) -> Result<()> {
        for stream in [&client, &server] {
            stream.set_nodelay(true)?;
        }
        let (mut from, mut to) = (client.try_clone()?, server.try_clone()?);
        std::thread::spawn(move || {
            let _ = std::io::copy(&mut from, &mut to);
            let _ = to.shutdown(Shutdown::Write);
        });
        let (due, waiting) = mpsc::channel::<(Instant, Vec<u8>)>();
        let (late_ms, bytes_max) = (self.late_ms.clone(), self.bytes_max.clone());
        let mut server = server;
        std::thread::spawn(move || {
            let (mut buffer, mut sent) = (vec![0; 64 << 10], 0);
            while let Ok(len @ 1..) = server.read(&mut buffer) {
                sent += len as u64;
                if sent > bytes_max.load(Ordering::Relaxed) {
                    break;
                }
                let late = Duration::from_millis(late_ms.load(Ordering::Relaxed));
                if due.send((Instant::now() + late, buffer[..len].to_vec())).is_err() {
                    break;
                }
            }
        });
        let mut client = client;
        std::thread::spawn(move || {
            for (when, bytes) in waiting {
                std::thread::sleep(when.saturating_duration_since(Instant::now()));
                if client.write_all(&bytes).is_err() {
                    break;
                }
            }
            let _ = client.shutdown(Shutdown::Both);
        });
        Ok(())
    }
}
