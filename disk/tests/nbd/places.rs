//! Where a server listens, and where it does not.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::Path;

use disk::nbd::address::{Address, ListenError, Listener, Reach};

fn bind(address: &str, reach: Reach) -> Result<Listener, ListenError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(Listener::bind(&address.parse()?, reach))
}

fn unix(path: &Path) -> String {
    format!("unix:{}", path.display())
}

#[test]
fn addresses_have_two_forms() {
    for right in ["unix:/tmp/a b", "127.0.0.1:10809", "localhost:0", "[::1]:10809"] {
        let address: Address = right.parse().expect("an address");
        assert_eq!(address.to_string(), right);
    }
    for wrong in [
        "",
        "unix:",
        "unix:a\0b",
        "/tmp/a",
        "localhost",
        "localhost:",
        ":10809",
        "::1:10809",
        "localhost:70000",
    ] {
        assert!(
            matches!(wrong.parse::<Address>(), Err(ListenError::Address(_))),
            "{wrong}"
        );
    }
}

#[test]
fn a_socket_is_its_owners_alone_and_goes_with_the_server() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("socket");
    let listener = bind(&unix(&path), Reach::Loopback).expect("it listens");
    let mode = std::fs::metadata(&path).expect("it is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    drop(listener);
    assert!(!path.exists());
}

#[test]
fn a_dead_servers_socket_is_replaced_and_a_live_ones_is_not() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("socket");
    let live = UnixListener::bind(&path).expect("it listens");
    assert!(matches!(
        bind(&unix(&path), Reach::Loopback),
        Err(ListenError::InUse(_))
    ));
    drop(live);
    assert!(path.exists());
    let listener = bind(&unix(&path), Reach::Loopback).expect("nobody answers there");
    assert!(matches!(
        bind(&unix(&path), Reach::Loopback),
        Err(ListenError::InUse(_))
    ));
    // One that took the place meanwhile keeps it.
    std::fs::remove_file(&path).expect("it is there");
    let _other = UnixListener::bind(&path).expect("it listens");
    drop(listener);
    assert!(path.exists());
}

#[test]
fn a_file_is_never_replaced() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("file");
    std::fs::write(&path, "mine").expect("it can be written");
    assert!(matches!(
        bind(&unix(&path), Reach::Loopback),
        Err(ListenError::NoSocket(_))
    ));
    assert_eq!(std::fs::read(&path).expect("it is there"), b"mine");
    let missing = folder.path().join("missing/socket");
    assert!(matches!(
        bind(&unix(&missing), Reach::Loopback),
        Err(ListenError::System { .. })
    ));
}

#[test]
fn ports_are_on_loopback_unless_told_otherwise() {
    for outside in ["0.0.0.0:0", "[::]:0"] {
        assert!(matches!(
            bind(outside, Reach::Loopback),
            Err(ListenError::NotLoopback(_))
        ));
    }
    bind("0.0.0.0:0", Reach::Anyone).expect("told otherwise");
    let listener = bind("127.0.0.1:0", Reach::Loopback).expect("loopback");
    let address = listener.local_address().expect("it has one").to_string();
    assert!(address.starts_with("127.0.0.1:") && !address.ends_with(":0"));
}
