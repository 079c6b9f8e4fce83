//! Opening: the longest chain of records that the files hold, from the last committed one on (docs/format/journal.md §4).

use std::collections::{HashMap, HashSet, VecDeque};
use std::fs;
use std::io::{self, ErrorKind};
use std::path::PathBuf;
use std::sync::Arc;

use durable::in_place::InPlaceFile;

use super::lap::{FoundHeader, HEADER_BYTES, JournalKey, Lap, LapHeader};
use super::record::{FIXED_BYTES, Head, HeadKind, MAGIC, Mac, SEALED_BYTES, SECTOR_BYTES, head_bytes};
use super::{Entry, Journal, JournalError, JournalOptions};

/// Bytes that are searched at a time, whole sectors. Chosen: what is behind the last record of a file is most of it at times.
const SCAN_BYTES: usize = 1 << 18;

/// What a file holds: the records from its first on, and the highest mark of any valid record of it.
struct Scanned {
    lap: Arc<Lap>,
    run: Vec<Entry>,
    flushed: u64,
}

impl Journal {
    /// Opens what is in the folder, or begins anew, for records after the last committed one. Also all entries after it, in
    /// order. A bad record above every mark is what a power cut left, and is dropped with all that follow.
    pub fn open(options: JournalOptions, key: JournalKey, committed: u64) -> Result<(Self, Vec<Entry>), JournalError> {
        let mut journal = Self {
            options,
            key,
            laps: VecDeque::new(),
            free: Vec::new(),
            next_file: 0,
            unflushed: VecDeque::new(),
            offset: 0,
            last: (committed, Mac::default()),
            reserved: (committed, Mac::default()),
            round: 0,
            is_making: false,
            has_made_none: false,
            committed,
            stop: None,
            flushed: committed,
            is_broken: false,
        };
        let smallest = head_bytes(1) + SEALED_BYTES;
        if journal.options.file_bytes < HEADER_BYTES + smallest.next_multiple_of(SECTOR_BYTES) {
            return Err(JournalError::TooLong);
        }
        let mut scanned = journal.scan()?;
        scanned.sort_by_key(|file| file.lap.header.lap);
        let flushed = scanned
            .iter()
            .map(|file| file.flushed)
            .max()
            .unwrap_or(0)
            .max(committed);
        let mut chain = longest(&scanned, committed, flushed)?;
        if let Some(last) = chain.last().filter(|entry| entry.head.seq >= committed) {
            journal.last = (last.head.seq, last.mac);
            journal.reserved = journal.last;
        }
        // Of what is committed parts may be gone: its files were used again.
        if journal.last.0 < flushed {
            let seq = journal.last.0 + 1;
            return Err(JournalError::Damaged { seq, flushed });
        }
        let (kept, blank) = forget_others(scanned, &chain)?;
        journal.free.extend(blank);
        chain.retain(|entry| entry.head.seq > committed);
        journal.flushed = flushed;
        journal.laps = kept.into();
        // Nothing more goes to a file whose end may be torn.
        journal.offset = journal.options.file_bytes;
        journal.make_durable(&mut chain)?;
        Ok((journal, chain))
    }

    /// What is above every mark may be in the page cache alone, after a sync that failed: it is written anew. In a journal that
    /// is full there is no room for that, and the files are synced as they are.
    fn make_durable(&mut self, chain: &mut Vec<Entry>) -> Result<(), JournalError> {
        let durable = chain.partition_point(|entry| entry.head.seq <= self.flushed);
        self.unflushed = chain[durable..].iter().cloned().collect();
        if self.unflushed.is_empty() {
            return Ok(());
        }
        let (last, unflushed) = (self.last, self.unflushed.clone());
        match self.try_rewrite() {
            Ok(entries) => chain.splice(durable.., entries).for_each(drop),
            Err(JournalError::Full) => {
                // What was written anew in part is followed by nothing.
                self.continue_from(last);
                self.unflushed = unflushed;
            }
            Err(other) => return Err(other),
        }
        let plan = self.plan_flush()?;
        plan.sync()?;
        self.flushed(&plan);
        Ok(())
    }

    fn scan(&mut self) -> Result<Vec<Scanned>, JournalError> {
        let mut scanned = Vec::new();
        for (number, path) in self.files()? {
            self.next_file = self.next_file.max(number + 1);
            let file = InPlaceFile::open(&path)?;
            let mut header = vec![0; HEADER_BYTES as usize];
            match file.read_at(&mut header, 0) {
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Err(JournalError::WrongKey(path)),
                other => other?,
            }
            match LapHeader::decode(&header, &self.key) {
                FoundHeader::None if file.bytes() == self.options.file_bytes => self.free.push(file),
                FoundHeader::None | FoundHeader::Wrong => return Err(JournalError::WrongKey(path)),
                FoundHeader::Valid(header) => scanned.push(scan_file(Lap::new(file, header, &self.key))?),
            }
        }
        Ok(scanned)
    }

    fn files(&self) -> Result<Vec<(usize, PathBuf)>, JournalError> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.options.folder)? {
            let path = entry?.path();
            let is_ours = path.extension().is_some_and(|ending| ending == "journal");
            let stem = path.file_stem().and_then(|stem| stem.to_str());
            if let Some(number) = stem.filter(|_| is_ours).and_then(|stem| stem.parse().ok()) {
                files.push((number, path));
            }
        }
        files.sort();
        Ok(files)
    }
}

/// Reads the heads of a file. Behind the first bad one others are looked for, for their marks.
fn scan_file(lap: Lap) -> Result<Scanned, JournalError> {
    let lap = Arc::new(lap);
    let (mut run, mut flushed): (Vec<Entry>, _) = (Vec::new(), lap.header.flushed);
    let (mut offset, mut is_whole) = (HEADER_BYTES, true);
    let mut expected = (lap.header.first_seq, lap.header.link);
    while offset + SECTOR_BYTES <= lap.file.bytes() {
        let Some((head, mac)) = read_head(&lap, offset)? else {
            (offset, is_whole) = (next_head(&lap, offset + SECTOR_BYTES)?, false);
            continue;
        };
        offset += head.record_bytes();
        flushed = flushed.max(head.flushed);
        lap.has(head.seq);
        is_whole &= (head.kind, head.seq, head.link) == (HeadKind::Changes, expected.0, expected.1);
        is_whole &= offset <= lap.file.bytes();
        if is_whole {
            expected = (head.seq + 1, mac);
            let lap = lap.clone();
            run.push(Entry { lap, head, mac });
        }
    }
    Ok(Scanned { lap, run, flushed })
}

/// What is in no chain loses what it would be found by, durably and before anything is appended: its numbers are used again, and
/// later it may be longer than what was appended since, or begin where something is committed by then. The files of the chain, and
/// those that hold none of it.
fn forget_others(files: Vec<Scanned>, chain: &[Entry]) -> io::Result<(Vec<Arc<Lap>>, Vec<InPlaceFile>)> {
    let in_chain: HashSet<Mac> = chain.iter().map(|entry| entry.mac).collect();
    let (mut kept, mut blank) = (Vec::new(), Vec::new());
    for Scanned { lap, mut run, .. } in files {
        let count = run.iter().take_while(|entry| in_chain.contains(&entry.mac)).count();
        let other = run.get(count).map(|entry| u64::from(entry.head.offset));
        run.truncate(count);
        let last = run.last().map(|entry| entry.head.seq);
        drop(run);
        let forgotten = match last {
            Some(_) => other,
            None => Some(0),
        };
        if let Some(offset) = forgotten {
            lap.file.write_at(&[0; SECTOR_BYTES as usize], offset)?;
            lap.file.sync()?;
        }
        match (last, Arc::try_unwrap(lap)) {
            (None, Ok(lap)) => blank.push(lap.file),
            (last, Err(lap)) => {
                lap.ends_at(last.unwrap_or(0));
                kept.push(lap);
            }
            (Some(last), Ok(lap)) => {
                lap.ends_at(last);
                kept.push(Arc::new(lap));
            }
        }
    }
    Ok((kept, blank))
}

/// The first sector from there on that begins as a head does, or the end of the file.
fn next_head(lap: &Lap, mut offset: u64) -> io::Result<u64> {
    let mut sectors = vec![0; SCAN_BYTES];
    while offset < lap.file.bytes() {
        let now = sectors.len().min((lap.file.bytes() - offset) as usize);
        lap.file.read_at(&mut sectors[..now], offset)?;
        let mut begun = sectors[..now].chunks(SECTOR_BYTES as usize);
        if let Some(number) = begun.position(|sector| sector.starts_with(MAGIC)) {
            return Ok(offset + number as u64 * SECTOR_BYTES);
        }
        offset += now as u64;
    }
    Ok(offset)
}

/// The head that lies there; none if no valid one does.
pub(super) fn read_head(lap: &Lap, offset: u64) -> Result<Option<(Head, Mac)>, JournalError> {
    let mut fixed = [0; FIXED_BYTES];
    lap.file.read_at(&mut fixed, offset)?;
    let bytes = Head::head_bytes(&fixed).filter(|bytes| offset + bytes <= lap.file.bytes());
    let (Some(bytes), Ok(place)) = (bytes, u32::try_from(offset)) else {
        return Ok(None);
    };
    let mut head = vec![0; bytes as usize];
    lap.file.read_at(&mut head, offset)?;
    Ok(Head::decode(&head, lap.mac_key(), lap.header.lap, place))
}

/// The longest chain that begins at the last committed record or before it; of two that are as long, that of the newer file.
/// Records that were written anew have two places, which may both lead on: codes tell what follows what.
fn longest(files: &[Scanned], committed: u64, flushed: u64) -> Result<Vec<Entry>, JournalError> {
    let mut runs: Vec<&[Entry]> = Vec::new();
    // For each file, the record of another one that it follows, by file and place; only of those that lead back to a start.
    let mut followed: Vec<Option<Option<(usize, usize)>>> = Vec::new();
    let mut by_code: HashMap<(u64, Mac), (usize, usize)> = HashMap::new();
    for (number, file) in files.iter().enumerate() {
        let run = opening(&file.run, flushed)?;
        let header = &file.lap.header;
        let before = by_code.get(&(header.first_seq.wrapping_sub(1), header.link)).copied();
        let start = match (header.first_seq <= committed + 1, before) {
            (true, _) => Some(None),
            (false, Some(before)) => Some(Some(before)),
            (false, None) => None,
        };
        if start.is_some() {
            let codes = run.iter().enumerate();
            by_code.extend(codes.map(|(at, entry)| ((entry.head.seq, entry.mac), (number, at))));
        }
        runs.push(run);
        followed.push(start);
    }
    let end = |file: &usize| runs[*file].last().map_or(0, |entry| entry.head.seq);
    let newest = (0..files.len())
        .filter(|file| followed[*file].is_some())
        .max_by_key(end);
    let mut pieces = Vec::new();
    let mut next = newest.map(|file| (file, runs[file].len()));
    while let Some((file, count)) = next {
        pieces.push(&runs[file][..count]);
        next = followed[file].flatten().map(|(file, at)| (file, at + 1));
    }
    pieces.reverse();
    Ok(pieces.concat())
}

/// The records of a run up to the first one above the marks whose blocks are not whole. Those of what was durable are checked
/// when they are read.
fn opening(run: &[Entry], flushed: u64) -> Result<&[Entry], JournalError> {
    for (at, entry) in run.iter().enumerate() {
        if entry.head.seq > flushed && entry.payload()?.is_none() {
            return Ok(&run[..at]);
        }
    }
    Ok(run)
}
