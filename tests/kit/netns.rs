//! A small internet of Linux network namespaces: a public street, and homes behind routers that translate addresses.
//!
//! ```text
//!   host 10.0.1.2 ── router 198.51.100.11 ──┐
//!   host 10.0.2.2 ── router 198.51.100.12 ──┼── street (a bridge)
//!                     public 198.51.100.2 ──┘
//! ```
//!
//! Or one local network of two hosts. Needs root, `ip` and `iptables`; says what is missing where it cannot be built.

use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, bail};

/// How a router maps an inner port.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Nat {
    /// To the same outer port wherever it can, as most home routers do: holes can be punched.
    KeepsPorts,
    /// To a new random port for each destination ("symmetric"): they cannot.
    Symmetric,
}

/// Tests run at once in one process.
static STREETS: AtomicU32 = AtomicU32::new(0);

/// The namespaces; removed when dropped.
pub struct Street {
    prefix: String,
    spaces: Vec<String>,
}

impl Street {
    /// A street with a public host and two homes, or why it cannot be made here.
    pub fn build(nat: Nat) -> Result<Self> {
        let mut street = Self::empty();
        street.lay(nat)?;
        Ok(street)
    }

    fn empty() -> Self {
        Self {
            prefix: format!("gb{}-{}-", std::process::id(), STREETS.fetch_add(1, Ordering::Relaxed)),
            spaces: Vec::new(),
        }
    }

    /// One local network of two hosts and nothing else: no router, no way out, no names.
    pub fn lan() -> Result<Self> {
        let mut lan = Self::empty();
        let street = lan.add("street")?;
        ip(&["-n", &street, "link", "add", "br0", "type", "bridge"])?;
        ip(&["-n", &street, "link", "set", "br0", "up"])?;
        for home in 1..=2 {
            let host = lan.add(&format!("host{home}"))?;
            lan.plug(&host, "eth0", &format!("h{home}"), &format!("192.168.7.1{home}/24"))?;
        }
        Ok(lan)
    }

    /// Gives the host in a home another address instead of all it had.
    pub fn readdress(&self, home: u8, at: &str) -> Result<()> {
        let host = self.host(home);
        ip(&["-n", &host, "address", "flush", "dev", "eth0"])?;
        address(&host, "eth0", at)
    }

    /// The namespace of the host with a public address.
    pub fn public(&self) -> String {
        self.space("pub")
    }

    /// The namespace of the host in home 1 or 2.
    pub fn host(&self, home: u8) -> String {
        self.space(&format!("host{home}"))
    }

    /// The public host's address.
    pub fn public_ip(&self) -> &'static str {
        "198.51.100.2"
    }

    fn space(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    fn lay(&mut self, nat: Nat) -> Result<()> {
        let street = self.add("street")?;
        ip(&["-n", &street, "link", "add", "br0", "type", "bridge"])?;
        ip(&["-n", &street, "link", "set", "br0", "up"])?;
        let public = self.add("pub")?;
        self.plug(&public, "eth0", "p0", "198.51.100.2/24")?;
        for home in 1..=2 {
            self.home(home, nat)?;
        }
        Ok(())
    }

    fn home(&mut self, home: u8, nat: Nat) -> Result<()> {
        let router = self.add(&format!("router{home}"))?;
        let host = self.add(&format!("host{home}"))?;
        self.plug(&router, "wan", &format!("r{home}"), &format!("198.51.100.1{home}/24"))?;
        ip(&[
            "-n", &router, "link", "add", "lan", "type", "veth", "peer", "name", "eth0", "netns", &host,
        ])?;
        address(&router, "lan", &format!("10.0.{home}.1/24"))?;
        address(&host, "eth0", &format!("10.0.{home}.2/24"))?;
        ip(&["-n", &host, "route", "add", "default", "via", &format!("10.0.{home}.1")])?;
        within(&router, &["sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward"])?;
        let mut masquerade = vec![
            "iptables",
            "-t",
            "nat",
            "-A",
            "POSTROUTING",
            "-o",
            "wan",
            "-j",
            "MASQUERADE",
        ];
        if nat == Nat::Symmetric {
            masquerade.push("--random-fully");
        }
        within(&router, &masquerade)?;
        // As home routers do: nothing comes in that nobody inside asked for.
        let answers = ["-m", "conntrack", "--ctstate", "ESTABLISHED,RELATED", "-j", "ACCEPT"];
        for chain in ["FORWARD", "INPUT"] {
            within(
                &router,
                &[&["iptables", "-A", chain, "-i", "wan"][..], &answers].concat(),
            )?;
            within(&router, &["iptables", "-A", chain, "-i", "wan", "-j", "DROP"])?;
        }
        Ok(())
    }

    /// Connects a namespace to the street.
    fn plug(&self, space: &str, device: &str, port: &str, at: &str) -> Result<()> {
        let street = self.space("street");
        ip(&[
            "-n", space, "link", "add", device, "type", "veth", "peer", "name", port, "netns", &street,
        ])?;
        ip(&["-n", &street, "link", "set", port, "master", "br0", "up"])?;
        address(space, device, at)
    }

    fn add(&mut self, name: &str) -> Result<String> {
        let space = self.space(name);
        ip(&["netns", "add", &space])?;
        self.spaces.push(space.clone());
        ip(&["-n", &space, "link", "set", "lo", "up"])?;
        Ok(space)
    }
}

impl Drop for Street {
    fn drop(&mut self) {
        for space in &self.spaces {
            let _ = ip(&["netns", "del", space]);
        }
    }
}

fn address(space: &str, device: &str, at: &str) -> Result<()> {
    ip(&["-n", space, "address", "add", at, "dev", device])?;
    ip(&["-n", space, "link", "set", device, "up"])
}

fn within(space: &str, command: &[&str]) -> Result<()> {
    ip(&[&["netns", "exec", space][..], command].concat())
}

fn ip(args: &[&str]) -> Result<()> {
    let done = Command::new("ip").args(args).output().context("start ip")?;
    if !done.status.success() {
        bail!(
            "ip {}: {}",
            args.join(" "),
            String::from_utf8_lossy(&done.stderr).trim()
        );
    }
    Ok(())
}
