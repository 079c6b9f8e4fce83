//! Where to listen: the config's addresses, on the port that the system gave last time where they leave it open, so that
//! friends find this node again.

use std::fs;
use std::net::{TcpListener, UdpSocket};
use std::path::{Path, PathBuf};

use api::failure::{Exit, Failure};
use friendnet::Multiaddr;
use friendnet::multiaddr::Protocol;

/// The file in a home's state folder that remembers the port, as decimal text.
const PORT_FILE: &str = "port";

/// Parses addresses and fills in the remembered port, if it is still free.
pub fn addresses(texts: &[String], state_dir: &Path) -> Result<Vec<Multiaddr>, Failure> {
    let remembered = remembered(state_dir).filter(|&port| is_free(port));
    let parse = |text: &String| {
        let address: Multiaddr = text.parse().map_err(|_| {
            Failure::new(Exit::Usage, format!("`{text}` is not an address to listen on"))
                .hint("write it as a multiaddr, such as /ip4/0.0.0.0/tcp/4250")
        })?;
        Ok(address.iter().map(|part| fill(part, remembered)).collect())
    };
    texts.iter().map(parse).collect()
}

/// Remembers the first TCP port that is listened on.
pub fn remember(listening: &[Multiaddr], state_dir: &Path) {
    let port = listening
        .iter()
        .flat_map(|address| address.iter())
        .find_map(|part| match part {
            Protocol::Tcp(port) => Some(port),
            _ => None,
        });
    if let Some(port) = port.filter(|&port| Some(port) != remembered(state_dir)) {
        // Losing it costs friends one more look at the roster, nothing else.
        if let Err(error) = durable::replace_note(&file(state_dir), &[port.to_string().as_bytes()]) {
            tracing::warn!(%error, "the port cannot be remembered");
        }
    }
}

fn fill(part: Protocol<'_>, port: Option<u16>) -> Protocol<'_> {
    match (part, port) {
        (Protocol::Tcp(0), Some(port)) => Protocol::Tcp(port),
        (Protocol::Udp(0), Some(port)) => Protocol::Udp(port),
        (part, _) => part,
    }
}

fn file(state_dir: &Path) -> PathBuf {
    state_dir.join(PORT_FILE)
}

fn remembered(state_dir: &Path) -> Option<u16> {
    fs::read_to_string(file(state_dir)).ok()?.trim().parse().ok()
}

fn is_free(port: u16) -> bool {
    TcpListener::bind(("0.0.0.0", port)).is_ok() && UdpSocket::bind(("0.0.0.0", port)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_open_port_becomes_the_remembered_one_and_a_given_one_stays() {
        let dir = tempfile::tempdir().unwrap();
        let free = TcpListener::bind(("0.0.0.0", 0)).unwrap().local_addr().unwrap().port();
        let open = "/ip4/127.0.0.1/tcp/0".to_owned();
        assert_eq!(
            addresses(std::slice::from_ref(&open), dir.path()).unwrap()[0].to_string(),
            open
        );
        remember(&[format!("/ip4/127.0.0.1/tcp/{free}").parse().unwrap()], dir.path());
        let given = "/ip4/127.0.0.1/tcp/9".to_owned();
        let filled: Vec<_> = addresses(&[open, given.clone()], dir.path()).unwrap();
        assert_eq!(filled[0].to_string(), format!("/ip4/127.0.0.1/tcp/{free}"));
        assert_eq!(filled[1].to_string(), given);
        assert!(addresses(&["nowhere".to_owned()], dir.path()).is_err());
    }
}
