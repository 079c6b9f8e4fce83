//! Where a file is cut: FastCDC (2020) with a gear table of the account's own, chunk sizes by what the file is.
//!
//! Cuts depend on nothing but profile, seed and bytes, so that equal runs of equal files become equal chunks.

use std::borrow::Cow;

use fastcdc::v2020::{Normalization, cut_gear, get_gear_with_seed, select_masks};
use proto::size::{KIB, MIB};

/// Chunk sizes in bytes, all even (the chunker looks at two bytes at a time).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Profile {
    /// Nothing but the end of a run is shorter.
    pub min: usize,
    /// About the mean.
    pub avg: usize,
    /// Nothing is longer.
    pub max: usize,
}

/// Most files. The maximum fits a pack of small shares from k = 2 on, so that a small change never costs a large pack;
/// the minimum of half the mean spares the chunker half of its work.
const ORDINARY: Profile = Profile {
    min: 128 * KIB,
    avg: 256 * KIB,
    max: 510 * KIB,
};
/// Large files that change in place (disk images, databases, mail boxes): every peer gets a chunk for each changed byte.
const IN_PLACE: Profile = Profile {
    min: 16 * KIB,
    avg: 64 * KIB,
    max: 256 * KIB,
};
/// Large files that never change once written: few chunks, few index entries, quick to cut.
const MEDIA: Profile = Profile {
    min: 512 * KIB,
    avg: MIB,
    max: 3 * MIB,
};
/// Anything else from here on: an index entry for each 256 KiB would be too many.
const HUGE: Profile = Profile {
    min: 256 * KIB,
    avg: MIB,
    max: 3 * MIB,
};

/// Longest chunk that any profile makes.
pub const CHUNK_BYTES_MAX: usize = 3 * MIB;

/// Files that change in place are rewritten whole below this size anyway by most programs.
const IN_PLACE_BYTES_MIN: u64 = 64 * MIB as u64;
/// A single photo or song must not force a large pack for its last chunk.
const MEDIA_BYTES_MIN: u64 = 16 * MIB as u64;
/// 4,096 ordinary chunks.
const HUGE_BYTES_MIN: u64 = 1024 * MIB as u64;

const IN_PLACE_ENDINGS: &[&str] = &[
    "accdb",
    "db",
    "db3",
    "edb",
    "hdd",
    "ibd",
    "img",
    "mbox",
    "mdb",
    "mdf",
    "nsf",
    "ost",
    "pst",
    "qcow",
    "qcow2",
    "raw",
    "sparsebundle",
    "sqlite",
    "sqlite3",
    "vdi",
    "vhd",
    "vhdx",
    "vmdk",
];

const MEDIA_ENDINGS: &[&str] = &[
    "7z", "aac", "avi", "avif", "br", "bz2", "flac", "flv", "gif", "gz", "heic", "jpeg", "jpg", "jxl", "lz4", "lzma",
    "m4a", "m4v", "mkv", "mov", "mp3", "mp4", "mpeg", "mpg", "oga", "ogg", "ogv", "opus", "png", "rar", "tbz2", "tgz",
    "txz", "webm", "webp", "wma", "wmv", "xz", "zip", "zst",
];

/// What a file is, by its name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FileClass {
    /// Compressed already, never changed once written.
    Media,
    /// Changed in place.
    InPlace,
    /// Anything else.
    Ordinary,
}

/// The class of the file at `path`.
pub fn class_of(path: &[u8]) -> FileClass {
    let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    let Some(dot) = name.iter().rposition(|byte| *byte == b'.') else {
        return FileClass::Ordinary;
    };
    let is = |ending: &&str| name[dot + 1..].eq_ignore_ascii_case(ending.as_bytes());
    if MEDIA_ENDINGS.iter().any(&is) {
        FileClass::Media
    } else if IN_PLACE_ENDINGS.iter().any(is) {
        FileClass::InPlace
    } else {
        FileClass::Ordinary
    }
}

/// Chunk sizes for a file. A file that grows beyond one of the limits is cut, and sent, anew once.
pub fn profile(class: FileClass, bytes: u64) -> Profile {
    match class {
        FileClass::InPlace if bytes > IN_PLACE_BYTES_MIN => IN_PLACE,
        FileClass::Media if bytes > MEDIA_BYTES_MIN => MEDIA,
        _ if bytes > HUGE_BYTES_MIN => HUGE,
        _ => ORDINARY,
    }
}

/// The account's chunker.
pub struct Chunker {
    gear: Cow<'static, [u64]>,
    gear_shifted: Cow<'static, [u64]>,
}

impl Chunker {
    /// Computes the gear tables.
    pub fn new(seed: u64) -> Self {
        let (gear, gear_shifted) = get_gear_with_seed(seed);
        Self { gear, gear_shifted }
    }

    /// Length of the first chunk of `bytes`, which begin at a cut and are either at least `profile.max` long or all that
    /// is left of their run.
    pub fn cut(&self, profile: Profile, bytes: &[u8]) -> usize {
        let (strict, lax) = select_masks(profile.avg, Normalization::Level2);
        let (_, len) = cut_gear(
            bytes,
            profile.min,
            profile.avg,
            profile.max,
            strict,
            lax,
            strict << 1,
            lax << 1,
            &self.gear,
            &self.gear_shifted,
        );
        len
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::{ProptestConfig, any, prop_assert, prop_assert_eq, proptest};

    use super::*;

    const SMALL: Profile = Profile {
        min: 1024,
        avg: 2048,
        max: 8192,
    };

    fn noise(seed: u64, bytes: usize) -> Vec<u8> {
        let mut out = vec![0; bytes];
        blake3::Hasher::new()
            .update(&seed.to_le_bytes())
            .finalize_xof()
            .fill(&mut out);
        out
    }

    fn chunks(seed: u64, mut bytes: &[u8], profile: Profile) -> Vec<&[u8]> {
        let chunker = Chunker::new(seed);
        let mut out = Vec::new();
        while !bytes.is_empty() {
            let (chunk, rest) = bytes.split_at(chunker.cut(profile, bytes));
            out.push(chunk);
            bytes = rest;
        }
        out
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn chunks_make_up_the_run_and_keep_the_limits(seed in any::<u64>(), bytes in 0usize..100_000) {
            let run = noise(seed, bytes);
            let cut = chunks(seed, &run, SMALL);
            prop_assert_eq!(cut.concat(), run.clone());
            prop_assert!(cut.iter().all(|chunk| chunk.len() <= SMALL.max));
            prop_assert!(cut.iter().rev().skip(1).all(|chunk| chunk.len() >= SMALL.min));
            prop_assert_eq!(cut, chunks(seed, &run, SMALL));
        }

        #[test]
        fn a_cut_does_not_depend_on_what_is_read_beyond_the_longest_chunk(seed in any::<u64>()) {
            let run = noise(seed, 3 * SMALL.max);
            let chunker = Chunker::new(seed);
            prop_assert_eq!(chunker.cut(SMALL, &run), chunker.cut(SMALL, &run[..SMALL.max]));
        }

        #[test]
        fn an_insertion_changes_few_chunks(seed in any::<u64>(), at in 0usize..200_000) {
            let before = noise(seed, 200_000);
            let mut after = before.clone();
            after.splice(at..at, *b"inserted");
            let known: HashSet<&[u8]> = chunks(7, &before, SMALL).into_iter().collect();
            let new = chunks(7, &after, SMALL).into_iter().filter(|chunk| !known.contains(chunk)).count();
            // About 100 chunks in all. Cuts meet again after a few chunks, how many is chance.
            prop_assert!(new <= 25, "{} new chunks", new);
        }
    }

    #[test]
    fn another_account_cuts_elsewhere() {
        let run = noise(1, 200_000);
        let lens = |seed| {
            chunks(seed, &run, SMALL)
                .iter()
                .map(|chunk| chunk.len())
                .collect::<Vec<_>>()
        };
        assert_ne!(lens(1), lens(2));
    }

    #[test]
    fn every_profile_is_one_that_the_chunker_takes() {
        for profile in [ORDINARY, IN_PLACE, MEDIA, HUGE] {
            assert!(profile.min < profile.avg && profile.avg < profile.max && profile.max <= CHUNK_BYTES_MAX);
            assert!([profile.min, profile.avg, profile.max].iter().all(|size| size % 2 == 0));
            Chunker::new(1).cut(profile, &noise(1, profile.max));
        }
    }

    #[test]
    fn files_are_known_by_their_ending() {
        assert_eq!(class_of(b"/photos/A.JPG"), FileClass::Media);
        assert_eq!(class_of(b"/vm/disk.qcow2"), FileClass::InPlace);
        assert_eq!(class_of(b"/home.db/notes"), FileClass::Ordinary);
        assert_eq!(profile(FileClass::InPlace, 1 << 30), IN_PLACE);
        assert_eq!(profile(FileClass::InPlace, 1 << 20), ORDINARY);
        assert_eq!(profile(FileClass::Media, 1 << 22), ORDINARY);
        assert_eq!(profile(FileClass::Ordinary, 1 << 31), HUGE);
    }
}
