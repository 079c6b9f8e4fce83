//! A made-up folder with what real ones have, and what backup programs get wrong.

use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::io::{self, Seek, SeekFrom, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// Sizes at the borders of the size tiers and of chunks: one byte around each is where off-by-one errors live.
const SIZES: [usize; 12] = [
    0, 1, 127, 128, 129, 4_095, 4_096, 4_097, 65_520, 65_537, 300_000, 3_000_001,
];

/// Makes the folder.
pub fn make_up(folder: &Path) -> io::Result<PathBuf> {
    fs::create_dir_all(folder)?;
    for size in SIZES {
        fs::write(folder.join(format!("size-{size}")), random(size))?;
    }
    fs::write(
        folder.join("letters.txt"),
        "Dear friend, keep this for me.\n".repeat(200_000),
    )?;
    fs::write(folder.join("photo.jpg"), random(8_000_000))?;
    fs::write(folder.join("photo (copy).jpg"), random(8_000_000))?;

    let many = folder.join("many/small/files");
    fs::create_dir_all(&many)?;
    for number in 0..500 {
        fs::write(many.join(format!("note-{number:03}.txt")), random(number * 17))?;
    }

    let odd = folder.join("odd names");
    fs::create_dir(&odd)?;
    let long = "n".repeat(255);
    for name in [
        "größe.txt",
        "日本語",
        "new\nline",
        "-rf",
        "*",
        "\"quoted\"",
        " spaces ",
        &long,
    ] {
        fs::write(odd.join(name), name)?;
    }
    fs::write(odd.join(OsStr::from_bytes(b"not-utf8-\xff\xfe")), "x")?;
    fs::create_dir(odd.join("empty folder"))?;

    let special = folder.join("special");
    fs::create_dir(&special)?;
    symlink("../letters.txt", special.join("link"))?;
    symlink("/nowhere/at/all", special.join("dangling"))?;
    fs::hard_link(folder.join("letters.txt"), special.join("hard link"))?;
    let mut sparse = File::create(special.join("sparse"))?;
    sparse.seek(SeekFrom::Start(50 << 20))?;
    sparse.write_all(b"end")?;
    fs::write(special.join("script.sh"), "#!/bin/sh\n")?;
    fs::set_permissions(special.join("script.sh"), Permissions::from_mode(0o755))?;
    fs::write(special.join("secret"), "x")?;
    fs::set_permissions(special.join("secret"), Permissions::from_mode(0o400))?;

    let old = File::create(special.join("old"))?;
    old.set_modified(SystemTime::UNIX_EPOCH + Duration::new(315_532_800, 123_456_789))?;
    // Last, because what was made in the folder changed its time.
    File::open(&special)?.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000))?;
    Ok(folder.to_owned())
}

/// Bytes that do not compress and are the same in every demo.
fn random(bytes: usize) -> Vec<u8> {
    let mut content = vec![0; bytes];
    blake3::Hasher::new_derive_key("gridbackup 2026 demo")
        .finalize_xof()
        .fill(&mut content);
    content
}
