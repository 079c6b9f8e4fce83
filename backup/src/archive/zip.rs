//! zip with deflated contents whose lengths follow them, so that nothing is written twice; zip64 where numbers need it
//! (PKWARE APPNOTE 6.3.10).
//!
//! For people whose system knows nothing better: permissions, symlinks and whole seconds are kept; owners, attributes and
//! hard links are not, and pipes, devices and sockets are left out. The directory of the archive is held in memory, some
//! 100 bytes and the name for each path.

use std::io::{self, Write};

use flate2::write::DeflateEncoder;
use flate2::{Compression, Crc};
use proto::log_record::{Content, EntryKind};

use super::{Archive, Member};

/// From this length on a file's lengths are written with 64 bits; incompressible content grows a little.
const LONG_BYTES: u64 = 0xF000_0000;
/// What a field of 32 bits says when the one of 64 bits counts (APPNOTE.TXT 4.4.8).
const U32_MAX: u64 = 0xFFFF_FFFF;
/// 4.5, the first version that knows lengths of 64 bits (APPNOTE.TXT 4.4.3.2).
const VERSION_NEEDED: u16 = 45;
/// The upper byte says that the attributes are those of UNIX (APPNOTE.TXT 4.4.2.2).
const MADE_ON_UNIX: u16 = 3 << 8 | VERSION_NEEDED;
/// Checksum and lengths come behind the contents, which are written in one pass (APPNOTE.TXT 4.4.4, bit 3).
const FLAG_LENGTHS_FOLLOW: u16 = 1 << 3;
/// The name is UTF-8 (APPNOTE.TXT 4.4.4, bit 11).
const FLAG_UTF8: u16 = 1 << 11;
/// The only method that is written (APPNOTE.TXT 4.4.5).
const DEFLATED: u16 = 8;

/// A zip archive.
pub struct Zip<W: Write> {
    out: Counting<W>,
    directory: Vec<u8>,
    members: u64,
    open: Option<Open>,
}

/// A member that is being written.
struct Open {
    name: Vec<u8>,
    flags: u16,
    method: u16,
    mode: u32,
    mtime_secs: i64,
    long: bool,
    at: u64,
    crc: Crc,
    deflated: DeflateEncoder<Vec<u8>>,
    written: u64,
}

struct Counting<W> {
    out: W,
    bytes: u64,
}

impl<W: Write> Counting<W> {
    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.bytes += bytes.len() as u64;
        self.out.write_all(bytes)
    }
}

impl<W: Write> Zip<W> {
    /// Writes to `out`.
    pub fn new(out: W) -> Self {
        Self {
            out: Counting { out, bytes: 0 },
            directory: Vec::new(),
            members: 0,
            open: None,
        }
    }
}

impl<W: Write> Archive for Zip<W> {
    fn has_links(&self) -> bool {
        false
    }

    fn begin(&mut self, member: &Member<'_>) -> io::Result<bool> {
        let Member { path, entry, bytes, .. } = member;
        let (kind_bits, ending): (u32, &[u8]) = match entry.kind {
            EntryKind::File => (0o100_000, b""),
            EntryKind::Directory => (0o040_000, b"/"),
            EntryKind::Symlink => (0o120_000, b""),
            _ => return Ok(false),
        };
        if path.is_empty() {
            return Ok(true); // a folder without a name cannot be said, and need not be
        }
        let name = [path, ending].concat();
        if name.len() > usize::from(u16::MAX) {
            return Ok(false);
        }
        let utf8 = if std::str::from_utf8(&name).is_ok() {
            FLAG_UTF8
        } else {
            0
        };
        let open = Open {
            flags: utf8 | FLAG_LENGTHS_FOLLOW,
            method: DEFLATED,
            mode: kind_bits | entry.meta.mode,
            mtime_secs: entry.meta.mtime_ns.div_euclid(1_000_000_000),
            long: *bytes >= LONG_BYTES,
            at: self.out.bytes,
            crc: Crc::new(),
            deflated: DeflateEncoder::new(Vec::new(), Compression::default()),
            written: 0,
            name,
        };
        self.out.put(&open.local_header())?;
        self.open = Some(open);
        if let (EntryKind::Symlink, Content::Inline(target)) = (entry.kind, &entry.content) {
            self.content(target)?;
        }
        Ok(true)
    }

    fn content(&mut self, bytes: &[u8]) -> io::Result<()> {
        let Some(open) = &mut self.open else { return Ok(()) };
        open.crc.update(bytes);
        open.deflated.write_all(bytes)?;
        open.pass_on(&mut self.out)
    }

    fn end(&mut self) -> io::Result<()> {
        let Some(mut open) = self.open.take() else {
            return Ok(());
        };
        open.deflated.try_finish()?;
        open.pass_on(&mut self.out)?;
        self.out.put(&open.descriptor())?;
        self.directory.extend_from_slice(&open.central_header());
        self.members += 1;
        Ok(())
    }

    fn finish(&mut self) -> io::Result<()> {
        let (start, len) = (self.out.bytes, self.directory.len() as u64);
        self.out.put(&std::mem::take(&mut self.directory))?;
        let mut end = Vec::new();
        if self.members >= 0xFFFF || start + len >= U32_MAX {
            let at = self.out.bytes;
            end.extend_from_slice(b"PK\x06\x06");
            end.extend_from_slice(&44u64.to_le_bytes());
            end.extend_from_slice(&MADE_ON_UNIX.to_le_bytes());
            end.extend_from_slice(&VERSION_NEEDED.to_le_bytes());
            end.extend_from_slice(&[0; 8]);
            for number in [self.members, self.members, len, start] {
                end.extend_from_slice(&number.to_le_bytes());
            }
            end.extend_from_slice(b"PK\x06\x07\0\0\0\0");
            end.extend_from_slice(&at.to_le_bytes());
            end.extend_from_slice(&1u32.to_le_bytes());
        }
        let members = self.members.min(0xFFFF) as u16;
        end.extend_from_slice(b"PK\x05\x06\0\0\0\0");
        end.extend_from_slice(&members.to_le_bytes());
        end.extend_from_slice(&members.to_le_bytes());
        end.extend_from_slice(&short(len));
        end.extend_from_slice(&short(start));
        end.extend_from_slice(&[0; 2]);
        self.out.put(&end)?;
        self.out.out.flush()
    }
}

impl Open {
    /// Writes out what came out of the compressor.
    fn pass_on<W: Write>(&mut self, out: &mut Counting<W>) -> io::Result<()> {
        let ready = self.deflated.get_mut();
        self.written += ready.len() as u64;
        out.put(ready)?;
        ready.clear();
        Ok(())
    }

    fn raw(&self) -> u64 {
        self.deflated.total_in()
    }

    /// What both headers say, from the needed version to the date.
    fn common(&self) -> Vec<u8> {
        let (date, time) = dos_time(self.mtime_secs);
        let fields = [VERSION_NEEDED, self.flags, self.method, time, date];
        fields.into_iter().flat_map(u16::to_le_bytes).collect()
    }

    /// The modification time as Info-ZIP's extra field has it, if it has room for it.
    fn extra_time(&self) -> Vec<u8> {
        match i32::try_from(self.mtime_secs) {
            Ok(secs) => [&b"UT\x05\0\x01"[..], &secs.to_le_bytes()].concat(),
            Err(_) => Vec::new(),
        }
    }

    fn local_header(&self) -> Vec<u8> {
        let mut extra = Vec::new();
        let mut lengths = [0; 8];
        if self.long {
            lengths = [0xFF; 8];
            extra.extend_from_slice(b"\x01\0\x10\0");
            extra.extend_from_slice(&[0; 16]);
        }
        extra.extend_from_slice(&self.extra_time());
        let mut header = b"PK\x03\x04".to_vec();
        header.extend_from_slice(&self.common());
        header.extend_from_slice(&[0; 4]);
        header.extend_from_slice(&lengths);
        header.extend_from_slice(&(self.name.len() as u16).to_le_bytes());
        header.extend_from_slice(&(extra.len() as u16).to_le_bytes());
        header.extend_from_slice(&self.name);
        header.extend_from_slice(&extra);
        header
    }

    fn descriptor(&self) -> Vec<u8> {
        let mut descriptor = b"PK\x07\x08".to_vec();
        descriptor.extend_from_slice(&self.crc.sum().to_le_bytes());
        for len in [self.written, self.raw()] {
            match self.long {
                true => descriptor.extend_from_slice(&len.to_le_bytes()),
                false => descriptor.extend_from_slice(&(len as u32).to_le_bytes()),
            }
        }
        descriptor
    }

    fn central_header(&self) -> Vec<u8> {
        let long: Vec<u8> = [self.raw(), self.written, self.at]
            .into_iter()
            .filter(|number| *number >= U32_MAX)
            .flat_map(u64::to_le_bytes)
            .collect();
        let mut extra = Vec::new();
        if !long.is_empty() {
            extra.extend_from_slice(b"\x01\0");
            extra.extend_from_slice(&(long.len() as u16).to_le_bytes());
            extra.extend_from_slice(&long);
        }
        extra.extend_from_slice(&self.extra_time());
        let mut header = b"PK\x01\x02".to_vec();
        header.extend_from_slice(&MADE_ON_UNIX.to_le_bytes());
        header.extend_from_slice(&self.common());
        header.extend_from_slice(&self.crc.sum().to_le_bytes());
        header.extend_from_slice(&short(self.written));
        header.extend_from_slice(&short(self.raw()));
        header.extend_from_slice(&(self.name.len() as u16).to_le_bytes());
        header.extend_from_slice(&(extra.len() as u16).to_le_bytes());
        header.extend_from_slice(&[0; 6]);
        header.extend_from_slice(&(self.mode << 16).to_le_bytes());
        header.extend_from_slice(&short(self.at));
        header.extend_from_slice(&self.name);
        header.extend_from_slice(&extra);
        header
    }
}

/// A number of 32 bits; all ones: it is in a zip64 field.
fn short(number: u64) -> [u8; 4] {
    (number.min(U32_MAX) as u32).to_le_bytes()
}

/// Date and time as MS-DOS has them, in UTC and within its years.
fn dos_time(secs: i64) -> (u16, u16) {
    // 1980-01-01 and the last even second of 2107.
    let secs = secs.clamp(315_532_800, 4_354_819_198);
    let (days, second) = (secs / 86_400, secs % 86_400);
    // Howard Hinnant's civil_from_days, for days after 1970.
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 {
        from_march + 3
    } else {
        from_march - 9
    };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let date = (year - 1980) << 9 | month << 5 | day;
    let time = (second / 3_600) << 11 | (second / 60 % 60) << 5 | (second % 60 / 2);
    (date as u16, time as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        assert_eq!(dos_time(0), (1 << 5 | 1, 0), "before 1980 is 1980");
        let date = (2026 - 1980) << 9 | 11 << 5 | 21;
        assert_eq!(dos_time(1_795_255_200), (date, 10 << 11));
        assert_eq!(dos_time(951_782_400).0, 20 << 9 | 2 << 5 | 29);
        assert_eq!(dos_time(i64::MAX), (127 << 9 | 12 << 5 | 31, 23 << 11 | 59 << 5 | 29));
    }
}
