//! Trees to back up: real files of this machine, and every odd thing a file system can hold.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::fs::{CWD, FileType, Mode, Timespec, Timestamps, UTIME_OMIT, mknodat};

/// How many real files to copy, at most, and how many bytes.
#[derive(Clone, Copy, Debug)]
pub struct Scale {
    /// Files.
    pub files: usize,
    /// Bytes.
    pub bytes: u64,
}

/// Seconds that all fixture files' times lie in the past: nothing counts as being written just now.
const AGE: Duration = Duration::from_secs(90 * 24 * 3600);

/// Copies real files (documentation, headers, sources, binaries) of this machine below `root` until `scale` is reached,
/// keeping their folders. Returns what was copied.
pub fn real_files(root: &Path, scale: Scale) -> io::Result<Scale> {
    let mut done = Scale { files: 0, bytes: 0 };
    let per_source = Scale {
        files: scale.files.div_ceil(2),
        bytes: scale.bytes / 2,
    };
    for source in sources() {
        let limit = Scale {
            files: (done.files + per_source.files).min(scale.files),
            bytes: (done.bytes + per_source.bytes).min(scale.bytes),
        };
        let target = root.join(source.strip_prefix("/").unwrap_or(&source));
        copy_tree(&source, &target, 0, limit, &mut done)?;
    }
    // Small files use up the number long before the bytes: the rest is libraries and programs.
    let large = Scale {
        files: usize::MAX,
        bytes: scale.bytes,
    };
    for source in sources().into_iter().chain(toolchains()) {
        let target = root.join("large").join(source.strip_prefix("/").unwrap_or(&source));
        copy_tree(&source, &target, LARGE_BYTES, large, &mut done)?;
    }
    Ok(done)
}

/// From here on a file counts as large.
const LARGE_BYTES: u64 = 1 << 20;

fn toolchains() -> Option<PathBuf> {
    let rustup = std::env::var_os("RUSTUP_HOME").map(PathBuf::from);
    rustup.or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".rustup")))
}

fn sources() -> Vec<PathBuf> {
    let cargo = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cargo"));
    let registry = cargo.or(home).map(|cargo| cargo.join("registry/src"));
    ["/usr/share/doc", "/usr/include", "/usr/bin", "/usr/share", "/usr/lib"]
        .into_iter()
        .map(PathBuf::from)
        .chain(registry)
        .filter(|path| path.is_dir())
        .collect()
}

/// Copies regular files of at least `bytes_min`.
fn copy_tree(from: &Path, to: &Path, bytes_min: u64, limit: Scale, done: &mut Scale) -> io::Result<()> {
    let mut names: Vec<_> = match fs::read_dir(from) {
        Ok(entries) => entries.flatten().map(|entry| entry.file_name()).collect(),
        Err(_) => return Ok(()),
    };
    names.sort();
    for name in names {
        if done.files >= limit.files || done.bytes >= limit.bytes {
            return Ok(());
        }
        let (source, target) = (from.join(&name), to.join(&name));
        let Ok(meta) = fs::symlink_metadata(&source) else {
            continue;
        };
        if meta.is_dir() {
            copy_tree(&source, &target, bytes_min, limit, done)?;
        } else if meta.is_file() && (bytes_min..256 << 20).contains(&meta.len()) && !target.exists() {
            fs::create_dir_all(to)?;
            if fs::copy(&source, &target).is_ok() {
                set_old(&target, done.files as u64)?;
                *done = Scale {
                    files: done.files + 1,
                    bytes: done.bytes + meta.len(),
                };
            }
        }
    }
    Ok(())
}

fn set_old(path: &Path, seed: u64) -> io::Result<()> {
    let time = SystemTime::now() - AGE - Duration::new(seed % 10_000, (seed % 1_000_000_000) as u32);
    let since = time.duration_since(SystemTime::UNIX_EPOCH).expect("after 1970");
    let spec = Timespec {
        tv_sec: since.as_secs() as i64,
        tv_nsec: i64::from(since.subsec_nanos()),
    };
    let access = Timespec {
        tv_sec: 0,
        tv_nsec: UTIME_OMIT,
    };
    let times = Timestamps {
        last_access: access,
        last_modification: spec,
    };
    rustix::fs::utimensat(CWD, path, &times, rustix::fs::AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(())
}

/// Makes one of everything below `root`: odd names, links, holes, pipes, devices (as root), modes, times, attributes, ACLs.
pub fn odd_cases(root: &Path) -> io::Result<()> {
    fs::create_dir_all(root)?;
    names(root)?;
    sizes(root)?;
    links(root)?;
    sparse(root)?;
    special(root)?;
    modes_and_times(root)?;
    attributes(root)?;
    deep(root)
}

fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    fs::write(path, bytes)
}

fn names(root: &Path) -> io::Result<()> {
    let dir = root.join("names");
    let long = "x".repeat(255);
    for name in [
        "plain",
        "with space",
        "new\nline",
        "tab\t",
        "ünïcödé-日本",
        "-dash",
        "quote'\"",
        "*?[a]",
        "\\",
        &long,
    ] {
        write(&dir.join(name), name.as_bytes())?;
    }
    write(&dir.join(OsStr::from_bytes(b"latin1-\xe9\xff")), b"not UTF-8")?;
    write(&dir.join(OsStr::from_bytes(b"\x01\x7f\x80")), b"control")
}

/// Around each size tier and segment: empty, tiny, very small, small, and on both sides of 64 KiB, 1 MiB and 4 MiB.
fn sizes(root: &Path) -> io::Result<()> {
    for size in [
        0,
        1,
        127,
        128,
        129,
        4095,
        4096,
        4097,
        65_519,
        65_520,
        65_521,
        1 << 20,
        (1 << 20) + 1,
        (4 << 20) + 7,
    ] {
        write(&root.join(format!("sizes/{size}-random")), &noise(size, size as u64))?;
        write(
            &root.join(format!("sizes/{size}-text")),
            &b"all work and no play ".repeat(size / 20 + 1)[..size],
        )?;
        write(&root.join(format!("sizes/{size}-zeros")), &vec![0; size])?;
    }
    Ok(())
}

/// Bytes that do not compress, the same for each `seed` (xorshift64).
pub fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

fn links(root: &Path) -> io::Result<()> {
    let dir = root.join("links");
    write(&dir.join("first"), &noise(100_000, 1))?;
    write(&dir.join("tiny"), b"tiny")?;
    fs::create_dir_all(dir.join("below"))?;
    fs::hard_link(dir.join("first"), dir.join("below/second"))?;
    fs::hard_link(dir.join("first"), dir.join("a-name-before"))?;
    fs::hard_link(dir.join("tiny"), dir.join("below/tiny"))?;
    symlink("first", dir.join("to-file"))?;
    symlink("below", dir.join("to-folder"))?;
    symlink("no/such/target", dir.join("dangling"))?;
    symlink("/etc/passwd", dir.join("absolute"))?;
    symlink(OsStr::from_bytes(b"\xff\xfe"), dir.join("target-not-utf8"))?;
    symlink("t".repeat(2000), dir.join("long-target"))
}

fn sparse(root: &Path) -> io::Result<()> {
    let dir = root.join("sparse");
    fs::create_dir_all(&dir)?;
    File::create(dir.join("all-hole"))?.set_len(10 << 20)?;
    let mut ends = File::create(dir.join("hole-at-both-ends"))?;
    ends.seek(SeekFrom::Start(5 << 20))?;
    ends.write_all(&noise(200_000, 2))?;
    ends.set_len(9 << 20)?;
    let mut islands = File::create(dir.join("islands"))?;
    islands.set_len(64 << 20)?;
    for island in 0..8 {
        islands.seek(SeekFrom::Start(island * (8 << 20)))?;
        islands.write_all(&noise(1 << 20, island + 3))?;
    }
    Ok(())
}

fn special(root: &Path) -> io::Result<()> {
    let dir = root.join("special");
    fs::create_dir_all(&dir)?;
    let mode = Mode::from_raw_mode(0o640);
    mknodat(CWD, dir.join("pipe"), FileType::Fifo, mode, 0)?;
    if is_root_user() {
        mknodat(
            CWD,
            dir.join("null"),
            FileType::CharacterDevice,
            mode,
            rustix::fs::makedev(1, 3),
        )?;
        mknodat(
            CWD,
            dir.join("disk"),
            FileType::BlockDevice,
            mode,
            rustix::fs::makedev(7, 200),
        )?;
        mknodat(CWD, dir.join("socket"), FileType::Socket, mode, 0)?;
    }
    Ok(())
}

/// Whether the tests run as root: owners, devices and trusted attributes can be had only then.
pub fn is_root_user() -> bool {
    rustix::process::geteuid().is_root()
}

fn modes_and_times(root: &Path) -> io::Result<()> {
    let dir = root.join("modes");
    for mode in [0o400, 0o644, 0o755, 0o777, 0o1644, 0o2755, 0o4755, 0o6755] {
        let file = dir.join(format!("{mode:o}"));
        write(&file, b"mode")?;
        fs::set_permissions(&file, fs::Permissions::from_mode(mode))?;
    }
    let sticky = dir.join("sticky-folder");
    fs::create_dir_all(&sticky)?;
    fs::set_permissions(&sticky, fs::Permissions::from_mode(0o1777))?;
    write(&dir.join("read-only-folder/inside"), b"inside")?;
    fs::set_permissions(dir.join("read-only-folder"), fs::Permissions::from_mode(0o555))?;
    if is_root_user() {
        write(&dir.join("no-mode"), b"0000")?;
        fs::set_permissions(dir.join("no-mode"), fs::Permissions::from_mode(0o000))?;
        write(&dir.join("someone-elses"), b"owner")?;
        std::os::unix::fs::chown(dir.join("someone-elses"), Some(12_345), Some(54_321))?;
    }
    for (name, secs, nanos) in [
        ("1969", -1, 999_999_999),
        ("1970", 0, 1),
        ("2038", 2_147_483_648, 123_456_789),
    ] {
        let file = root.join("times").join(name);
        write(&file, name.as_bytes())?;
        let spec = Timespec {
            tv_sec: secs,
            tv_nsec: nanos,
        };
        let times = Timestamps {
            last_access: spec,
            last_modification: spec,
        };
        rustix::fs::utimensat(CWD, &file, &times, rustix::fs::AtFlags::empty())?;
    }
    Ok(())
}

/// `u::rw-,u:12345:r--,g::r--,m::r--,o::---` as the kernel keeps it (linux/posix_acl_xattr.h).
const ACL: &[u8] = b"\x02\x00\x00\x00\x01\x00\x06\x00\xff\xff\xff\xff\x02\x00\x04\x00\x39\x30\x00\x00\x04\x00\x04\x00\xff\xff\xff\xff\x10\x00\x04\x00\xff\xff\xff\xff\x20\x00\x00\x00\xff\xff\xff\xff";

fn attributes(root: &Path) -> io::Result<()> {
    let dir = root.join("attributes");
    write(&dir.join("user"), b"with attributes")?;
    // File systems without attributes or ACLs (tmpfs of old kernels) leave these cases out.
    let _ = xattr::set(dir.join("user"), "user.comment", b"kept");
    let _ = xattr::set(dir.join("user"), "user.bytes", b"\x00\xff\x00");
    let _ = xattr::set(&dir, "user.folder", b"folders too");
    write(&dir.join("acl"), b"with an ACL")?;
    let _ = xattr::set(dir.join("acl"), "system.posix_acl_access", ACL);
    fs::create_dir_all(dir.join("acl-folder"))?;
    let _ = xattr::set(dir.join("acl-folder"), "system.posix_acl_default", ACL);
    if is_root_user() {
        write(&dir.join("trusted"), b"root only")?;
        let _ = xattr::set(dir.join("trusted"), "trusted.note", b"kept");
    }
    Ok(())
}

/// A path of some 2,000 bytes: longer than names, short enough for every tool that compares.
fn deep(root: &Path) -> io::Result<()> {
    let mut dir = root.join("deep");
    for _ in 0..10 {
        dir.push("d".repeat(180));
    }
    write(&dir.join("bottom"), b"deep down")
}

/// Changes about `fraction` of the regular files below `root` in place: appends to them. Returns how many.
pub fn change_some(root: &Path, fraction: f64) -> io::Result<usize> {
    let step = (1.0 / fraction) as usize;
    let mut files = Vec::new();
    list_files(root, &mut files)?;
    let picked: Vec<_> = files.iter().step_by(step).collect();
    for path in &picked {
        let mut file = File::options().append(true).open(path)?;
        file.write_all(&noise(300, path.as_os_str().len() as u64))?;
    }
    Ok(picked.len())
}

fn list_files(dir: &Path, into: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            list_files(&entry.path(), into)?;
        } else if kind.is_file() && entry.metadata()?.permissions().mode() & 0o200 != 0 {
            into.push(entry.path());
        }
    }
    into.sort();
    Ok(())
}

/// Flips one bit in the middle of a file.
pub fn flip_byte(path: &Path) -> io::Result<()> {
    let mut file = File::options().read(true).write(true).open(path)?;
    let middle = file.metadata()?.len() / 2;
    let mut byte = [0];
    file.seek(SeekFrom::Start(middle))?;
    file.read_exact(&mut byte)?;
    file.seek(SeekFrom::Start(middle))?;
    file.write_all(&[byte[0] ^ 1])
}
