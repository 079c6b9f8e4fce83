//! tar as POSIX.1-2001 has it (pax), with extended attributes as star and GNU tar write them.
//!
//! Written by ourselves because names and attribute values are any bytes, and crates take text. Leaves out sockets, which
//! tar has no type for, and holes, which are written as zeros.

use std::io::{self, Write};

use proto::log_record::{Content, EntryKind, Meta};

use super::{Archive, Member, acl};

/// Headers and contents fill blocks of so many bytes (POSIX ustar).
const BLOCK: usize = 512;
/// Longest name or link target in a header (POSIX ustar).
const NAME_BYTES_MAX: usize = 100;
/// Largest numbers that fit in seven and eleven octal digits, which a ustar header has for ids, and for lengths and times.
const ID_MAX: u64 = 0o7_777_777;
const LONG_MAX: u64 = 0o77_777_777_777;
const NANOS: i64 = 1_000_000_000;

/// A tar archive.
pub struct Tar<W> {
    out: W,
    padding: usize,
}

impl<W: Write> Tar<W> {
    /// Writes to `out`.
    pub fn new(out: W) -> Self {
        Self { out, padding: 0 }
    }
}

impl<W: Write> Archive for Tar<W> {
    fn has_links(&self) -> bool {
        true
    }

    fn begin(&mut self, member: &Member<'_>) -> io::Result<bool> {
        let Some(header) = Header::of(member) else {
            return Ok(false);
        };
        let records = header.records();
        if !records.is_empty() {
            let pax = Header {
                path: b"././@PaxHeader".to_vec(),
                kind: b'x',
                bytes: records.len() as u64,
                ..Header::default()
            };
            self.out.write_all(&pax.block())?;
            self.out.write_all(&records)?;
            self.out.write_all(&vec![0; padding(records.len() as u64)])?;
        }
        self.out.write_all(&header.block())?;
        self.padding = padding(header.bytes);
        Ok(true)
    }

    fn content(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.out.write_all(bytes)
    }

    fn end(&mut self) -> io::Result<()> {
        self.out.write_all(&vec![0; std::mem::take(&mut self.padding)])
    }

    fn finish(&mut self) -> io::Result<()> {
        self.out.write_all(&[0; 2 * BLOCK])?;
        self.out.flush()
    }
}

/// Zeros after so many bytes, to the end of a block.
fn padding(bytes: u64) -> usize {
    (BLOCK - (bytes % BLOCK as u64) as usize) % BLOCK
}

/// What a header block and the records before it say.
#[derive(Default)]
struct Header {
    path: Vec<u8>,
    link: Vec<u8>,
    kind: u8,
    bytes: u64,
    meta: Meta,
    device: (u32, u32),
}

impl Header {
    fn of(member: &Member<'_>) -> Option<Self> {
        let Member { path, entry, .. } = member;
        let mut header = Self {
            path: if path.is_empty() { b".".to_vec() } else { path.to_vec() },
            meta: entry.meta.clone(),
            ..Self::default()
        };
        if let Some(first) = member.first_name {
            header.kind = b'1';
            header.link = first.to_vec();
            return Some(header);
        }
        header.kind = match entry.kind {
            EntryKind::File => b'0',
            EntryKind::Symlink => b'2',
            EntryKind::CharDevice => b'3',
            EntryKind::BlockDevice => b'4',
            EntryKind::Directory => b'5',
            EntryKind::Fifo => b'6',
            EntryKind::Socket => return None,
        };
        match (entry.kind, &entry.content) {
            (EntryKind::File, _) => header.bytes = member.bytes,
            (EntryKind::Directory, _) => header.path.push(b'/'),
            (EntryKind::Symlink, Content::Inline(target)) => header.link = target.clone(),
            (EntryKind::CharDevice | EntryKind::BlockDevice, _) => {
                let number = entry.meta.rdev;
                header.device = (rustix::fs::major(number), rustix::fs::minor(number));
            }
            _ => {}
        }
        Some(header)
    }

    /// Pax records of what the block has no room for.
    fn records(&self) -> Vec<u8> {
        let mut records = Vec::new();
        let meta = &self.meta;
        if self.path.len() > NAME_BYTES_MAX {
            push(&mut records, b"path", &self.path);
        }
        if self.link.len() > NAME_BYTES_MAX {
            push(&mut records, b"linkpath", &self.link);
        }
        for (key, value, max) in [
            ("size", self.bytes, LONG_MAX),
            ("uid", meta.uid.into(), ID_MAX),
            ("gid", meta.gid.into(), ID_MAX),
        ] {
            if value > max {
                push(&mut records, key.as_bytes(), value.to_string().as_bytes());
            }
        }
        let whole = (0..=LONG_MAX as i64 * NANOS).contains(&meta.mtime_ns) && meta.mtime_ns % NANOS == 0;
        if !whole {
            push(&mut records, b"mtime", decimal(meta.mtime_ns).as_bytes());
        }
        for xattr in &meta.xattrs {
            push(
                &mut records,
                &[b"SCHILY.xattr.", &escaped(&xattr.name)[..]].concat(),
                &xattr.value,
            );
            // Who unpacks with `--acls` takes only these; GNU tar makes an ACL from the mode if there are none.
            let key = match &xattr.name[..] {
                b"system.posix_acl_access" => "SCHILY.acl.access",
                b"system.posix_acl_default" => "SCHILY.acl.default",
                _ => continue,
            };
            if let Some(text) = acl::text(&xattr.value) {
                push(&mut records, key.as_bytes(), text.as_bytes());
            }
        }
        records
    }

    fn block(&self) -> [u8; BLOCK] {
        let mut block = [0; BLOCK];
        let meta = &self.meta;
        put(&mut block[..100], &self.path);
        octal(&mut block[100..108], meta.mode.into(), ID_MAX);
        octal(&mut block[108..116], meta.uid.into(), ID_MAX);
        octal(&mut block[116..124], meta.gid.into(), ID_MAX);
        octal(&mut block[124..136], self.bytes, LONG_MAX);
        let secs = u64::try_from(meta.mtime_ns.div_euclid(NANOS)).unwrap_or(0);
        octal(&mut block[136..148], secs, LONG_MAX);
        block[156] = self.kind;
        put(&mut block[157..257], &self.link);
        block[257..265].copy_from_slice(b"ustar\x0000");
        octal(&mut block[329..337], self.device.0.into(), ID_MAX);
        octal(&mut block[337..345], self.device.1.into(), ID_MAX);
        block[148..156].fill(b' ');
        let sum: u64 = block.iter().map(|&byte| u64::from(byte)).sum();
        octal(&mut block[148..155], sum, ID_MAX);
        block
    }
}

fn put(field: &mut [u8], bytes: &[u8]) {
    let len = bytes.len().min(field.len());
    field[..len].copy_from_slice(&bytes[..len]);
}

/// Octal digits and a NUL; what does not fit is said in a record, and is zero here.
fn octal(field: &mut [u8], value: u64, max: u64) {
    let value = if value > max { 0 } else { value };
    let width = field.len() - 1;
    put(field, format!("{value:0width$o}\0").as_bytes());
}

/// The name of an attribute as GNU tar writes it: `=` would end the key.
fn escaped(name: &[u8]) -> Vec<u8> {
    let mut key = Vec::with_capacity(name.len());
    for byte in name {
        match byte {
            b'%' => key.extend_from_slice(b"%25"),
            b'=' => key.extend_from_slice(b"%3D"),
            byte => key.push(*byte),
        }
    }
    key
}

/// Nanoseconds as decimal seconds.
fn decimal(ns: i64) -> String {
    let sign = if ns < 0 { "-" } else { "" };
    let ns = ns.unsigned_abs();
    format!("{sign}{}.{:09}", ns / NANOS as u64, ns % NANOS as u64)
}

/// `LENGTH KEY=VALUE\n`, where the length counts itself.
fn push(records: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut len = rest + 1;
    while len != rest + len.to_string().len() {
        len = rest + len.to_string().len();
    }
    records.extend_from_slice(format!("{len} ").as_bytes());
    records.extend_from_slice(key);
    records.push(b'=');
    records.extend_from_slice(value);
    records.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_counts_its_own_length() {
        for len in [0, 1, 80, 85, 86, 87, 88, 980, 985, 986, 990, 9_980, 9_990] {
            let mut records = Vec::new();
            push(&mut records, b"path", &vec![b'x'; len]);
            let said = records.split(|byte| *byte == b' ').next().unwrap();
            assert_eq!(
                std::str::from_utf8(said).unwrap().parse::<usize>().unwrap(),
                records.len()
            );
        }
    }

    #[test]
    fn times_before_1970_are_written_as_negative_decimals() {
        assert_eq!(decimal(-1), "-0.000000001");
        assert_eq!(decimal(-1_500_000_000), "-1.500000000");
        assert_eq!(decimal(2_147_483_648_123_456_789), "2147483648.123456789");
    }

    #[test]
    fn attributes_are_escaped_and_acls_are_said_once_more_as_text() {
        let xattr = |name: &[u8], value: &[u8]| proto::log_record::Xattr {
            name: name.to_vec(),
            value: value.to_vec(),
        };
        let acl = b"\x02\x00\x00\x00\x01\x00\x06\x00\xff\xff\xff\xff\x20\x00\x00\x00\xff\xff\xff\xff";
        let header = Header {
            meta: Meta {
                xattrs: vec![xattr(b"user.a=1%", b"x"), xattr(b"system.posix_acl_default", acl)],
                ..Meta::default()
            },
            ..Header::default()
        };
        let records = header.records();
        assert!(
            records.starts_with(b"32 SCHILY.xattr.user.a%3D1%25=x\n"),
            "{}",
            records.escape_ascii()
        );
        let text = b"\n43 SCHILY.acl.default=user::rw-,other::---\n";
        assert!(records.ends_with(text), "{}", records.escape_ascii());
    }

    #[test]
    fn sizes_and_ids_that_do_not_fit_are_said_in_records() {
        let header = Header {
            path: b"big".to_vec(),
            kind: b'0',
            bytes: 9 << 30,
            meta: Meta {
                uid: 3_000_000,
                gid: 5,
                ..Meta::default()
            },
            ..Header::default()
        };
        assert_eq!(header.records(), b"19 size=9663676416\n15 uid=3000000\n");
        assert_eq!(&header.block()[108..136], b"0000000\x000000005\x0000000000000\x00");
    }
}
