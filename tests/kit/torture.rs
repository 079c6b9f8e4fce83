//! The torture set: everything of `fixture::odd_cases`, and what only tools that work by directory descriptor can hold.
//! Made by whoever calls: devices and other people's files only if that is root.

use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, linkat, mkdirat, mknodat, openat, symlinkat};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};

use crate::fixture::{is_root_user, noise, odd_cases};
use crate::home::program;

/// The folder of all whose paths, from there, one call of the kernel takes.
pub const SET: &str = "set";
/// The folder of longer ones.
pub const BEYOND: &str = "beyond";
/// A folder that nobody may list, with a file in it.
pub const CLOSED: &str = "set/closed";
/// Whose files the plain user's are (`nobody`).
pub const PLAIN_ID: u32 = 65_534;
/// Longest path that one call takes (`PATH_MAX` without its NUL).
const CALL_BYTES_MAX: usize = 4095;

/// Makes the set below `root`, with one folder of so many entries.
pub fn build(root: &Path, entries: usize) -> io::Result<()> {
    let set = root.join(SET);
    odd_cases(&set)?;
    every_byte(&set.join("bytes"))?;
    crowd(&set.join("crowd"), entries)?;
    owners(&set.join("owners"))?;
    attributes(&set.join("more-attributes"))?;
    fs::create_dir_all(set.join("closed/inner"))?;
    fs::write(set.join("closed/inner/file"), noise(30_000, 7))?;
    links(&set)?;
    long(&set)?;
    beyond(&root.join(BEYOND))?;
    for closed in ["closed/inner", "closed"] {
        fs::set_permissions(set.join(closed), Permissions::from_mode(0o000))?;
    }
    Ok(())
}

/// Runs `work` as a user with no rights, if this is root; the programs that it starts are run as that user too.
pub fn as_plain_user<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    if !is_root_user() {
        return work();
    }
    // Found as root: another user may not be able to look for it.
    let _found = program();
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            // Only of this thread: Linux keeps who is who by thread.
            let (uid, gid) = (PLAIN_ID, PLAIN_ID);
            let (uid, gid) = (rustix::fs::Uid::from_raw(uid), rustix::fs::Gid::from_raw(gid));
            set_thread_groups(&[]).expect("root may");
            set_thread_res_gid(gid, gid, gid).expect("root may");
            set_thread_res_uid(uid, uid, uid).expect("root may");
            work()
        });
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Names with each byte that a name can have.
fn every_byte(dir: &Path) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    for byte in (1..=255).filter(|byte| *byte != b'/') {
        fs::write(dir.join(OsStr::from_bytes(&[b'n', byte])), [byte])?;
    }
    fs::write(dir.join(OsStr::from_bytes(&[0xff; 255])), b"long")?;
    fs::write(dir.join("..."), b"dots")?;
    fs::write(dir.join(" "), b"space")
}

fn crowd(dir: &Path, entries: usize) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    for number in 0..entries {
        fs::write(dir.join(format!("entry-{number}")), number.to_string())?;
    }
    Ok(())
}

/// Other people's files, with ids up to 32 bits, and setuid.
fn owners(dir: &Path) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    for (uid, gid, mode) in [(12_345, 54_321, 0o4755), (4_000_000_000, 3_000_000_000, 0o2710)] {
        let file = dir.join(uid.to_string());
        fs::write(&file, b"of somebody")?;
        if is_root_user() {
            chown(&file, Some(uid), Some(gid))?;
        }
        fs::set_permissions(&file, Permissions::from_mode(mode))?;
    }
    Ok(())
}

/// A default ACL and what inherits it: `u::rwx,u:12345:rwx,g::r-x,m::rwx,o::---`.
const ACL: &[u8] = b"\x02\x00\x00\x00\x01\x00\x07\x00\xff\xff\xff\xff\x02\x00\x07\x00\x39\x30\x00\x00\x04\x00\x05\x00\xff\xff\xff\xff\x10\x00\x07\x00\xff\xff\xff\xff\x20\x00\x00\x00\xff\xff\xff\xff";
/// `cap_net_bind_service=ep` as the kernel keeps it (linux/capability.h, `vfs_cap_data` of revision 2).
const CAPABILITY: &[u8] = b"\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00";

fn attributes(dir: &Path) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    // File systems without attributes leave these out.
    let _ = xattr::set(dir, "system.posix_acl_default", ACL);
    let _ = xattr::set(dir, "system.posix_acl_access", ACL);
    fs::create_dir_all(dir.join("inherits"))?;
    let file = dir.join("many");
    fs::write(&file, b"many")?;
    for (name, value) in [
        (&b"user.a=b"[..], &b"x"[..]),
        (b"user.100%25", b"y"),
        (b"user.empty", b""),
        (b"user.\xff\n", b"z"),
        (b"user.large", &noise(2_000, 3)),
    ] {
        let _ = xattr::set(&file, OsStr::from_bytes(name), value);
    }
    if is_root_user() {
        std::os::unix::fs::symlink("many", dir.join("link"))?;
        let _ = xattr::set(dir.join("link"), "trusted.of-a-link", b"link");
        let _ = xattr::set(&file, "security.capability", CAPABILITY);
    }
    Ok(())
}

/// Other names of things that are no files, and of a file in folders of any mode.
fn links(set: &Path) -> io::Result<()> {
    let dir = set.join("more-links");
    fs::create_dir_all(&dir)?;
    let mut others = vec![("special/pipe", "pipe"), ("links/dangling", "symlink")];
    if is_root_user() {
        others.extend([("special/null", "device"), ("special/socket", "socket")]);
    }
    for (old, new) in others {
        linkat(CWD, set.join(old), CWD, dir.join(new), AtFlags::empty())?;
    }
    fs::write(dir.join("file"), noise(70_000, 8))?;
    fs::hard_link(dir.join("file"), set.join("closed/a-name"))?;
    fs::hard_link(dir.join("file"), set.join("another-name"))
}

/// The longest paths that one call takes, from `set`; from `/` they are longer.
fn long(set: &Path) -> io::Result<()> {
    let (mut path, name) = (b"long".to_vec(), "l".repeat(200));
    let mut at = make_dir(&open(CWD, set.as_os_str().as_bytes())?, "long")?;
    // The last names are 50 to 250 bytes long.
    while path.len() + 1 + name.len() + 51 <= CALL_BYTES_MAX {
        at = make_dir(&at, &name)?;
        path.extend_from_slice(&[b"/", name.as_bytes()].concat());
    }
    fill(&at, CALL_BYTES_MAX - path.len() - 1, set)
}

/// Paths that no call takes in one piece: long names, and many folders beside each other all the way down.
fn beyond(root: &Path) -> io::Result<()> {
    fs::create_dir_all(root)?;
    let root_fd = open(CWD, root.as_os_str().as_bytes())?;
    let (mut at, name) = (make_dir(&root_fd, "names")?, "b".repeat(250));
    for _ in 0..21 {
        at = make_dir(&at, &name)?;
    }
    fill(&at, 200, root)?;
    let mut at = make_dir(&root_fd, "levels")?;
    for _ in 0..300 {
        // So many that a scan cannot keep all above open, and goes on by path.
        for beside in "abcdefghijkl".chars() {
            make_dir(&at, &beside.to_string())?;
        }
        at = make_dir(&at, "level-0123456789")?;
    }
    fill(&at, 20, root)
}

/// One of each that is stored in another way, under names of so many bytes.
fn fill(dir: &OwnedFd, name_bytes: usize, near: &Path) -> io::Result<()> {
    let name = |what: &str| format!("{what:.<name_bytes$}");
    for (what, bytes) in [("tiny", 10), ("small", 3_000), ("chunk", 50_000), ("large", 1_500_000)] {
        let flags = OFlags::CREATE | OFlags::WRONLY;
        let mut file = File::from(openat(dir, name(what), flags, Mode::from_raw_mode(0o640))?);
        file.write_all(&noise(bytes, bytes as u64))?;
        let _ = xattr::FileExt::set_xattr(&file, "user.deep", what.as_bytes());
    }
    symlinkat("aim", dir, name("link"))?;
    make_dir(dir, &name("folder"))?;
    mknodat(dir, name("pipe"), FileType::Fifo, Mode::RUSR, 0)?;
    let other = near.join(format!("far-{name_bytes}"));
    linkat(dir, name("large"), CWD, other, AtFlags::empty())?;
    Ok(())
}

fn open(at: impl std::os::fd::AsFd, name: &[u8]) -> io::Result<OwnedFd> {
    Ok(openat(at, name, OFlags::PATH | OFlags::DIRECTORY, Mode::empty())?)
}

fn make_dir(at: &OwnedFd, name: &str) -> io::Result<OwnedFd> {
    mkdirat(at, name, Mode::from_raw_mode(0o755))?;
    open(at, name.as_bytes())
}
