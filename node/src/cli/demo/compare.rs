//! Two folders, byte for byte: names, kinds, content, modes, times and link targets.

use std::ffi::OsString;
use std::fs::{self, File, FileType, Metadata};
use std::io::{self, BufReader};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use api::failure::Failure;

/// How large a folder is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Size {
    /// Everything that is no folder.
    pub files: u64,
    /// Bytes of regular files, by length.
    pub bytes: u64,
}

/// What a comparison found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Comparison {
    /// Entries compared.
    pub entries: u64,
    /// A line each.
    pub differences: Vec<String>,
}

/// Counts a folder.
pub fn measure(folder: &Path) -> Result<Size, Failure> {
    let mut size = Size::default();
    let mut waiting = vec![folder.to_owned()];
    while let Some(path) = waiting.pop() {
        let metadata = fs::symlink_metadata(&path).map_err(|error| unreadable(&path, &error))?;
        if metadata.is_dir() {
            waiting.extend(names(&path)?.into_iter().map(|name| path.join(name)));
            continue;
        }
        size.files += 1;
        if metadata.is_file() {
            size.bytes += metadata.len();
        }
    }
    Ok(size)
}

/// Compares what is in two folders; the folders' own metadata may differ.
pub fn compare(left: &Path, right: &Path) -> Result<Comparison, Failure> {
    let mut comparison = Comparison::default();
    let mut waiting = vec![PathBuf::new()];
    while let Some(below) = waiting.pop() {
        let (in_left, in_right) = (names(&left.join(&below))?, names(&right.join(&below))?);
        for name in in_right.iter().filter(|name| !in_left.contains(*name)) {
            comparison
                .differences
                .push(format!("{}: only in the restored folder", below.join(name).display()));
        }
        for name in in_left {
            let path = below.join(name);
            let (original, restored) = (left.join(&path), right.join(&path));
            let metadata = fs::symlink_metadata(&original).map_err(|error| unreadable(&original, &error))?;
            // A socket belongs to a running process; nothing can give it back.
            if metadata.file_type().is_socket() {
                continue;
            }
            comparison.entries += 1;
            match difference(&original, &metadata, &restored) {
                Ok(None) => {}
                Ok(Some(what)) => comparison.differences.push(format!("{}: {what}", path.display())),
                Err(error) => comparison.differences.push(format!("{}: {error}", path.display())),
            }
            if metadata.is_dir() && fs::symlink_metadata(&restored).is_ok_and(|other| other.is_dir()) {
                waiting.push(path);
            }
        }
    }
    Ok(comparison)
}

fn difference(original: &Path, metadata: &Metadata, restored: &Path) -> io::Result<Option<String>> {
    let other = match fs::symlink_metadata(restored) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Some("not restored".to_owned())),
        other => other?,
    };
    if kind(metadata.file_type()) != kind(other.file_type()) {
        return Ok(Some(format!(
            "{} became {}",
            kind(metadata.file_type()),
            kind(other.file_type())
        )));
    }
    if metadata.is_symlink() {
        return Ok((fs::read_link(original)? != fs::read_link(restored)?).then(|| "link target differs".to_owned()));
    }
    if metadata.mode() != other.mode() {
        return Ok(Some(format!("mode {:o} became {:o}", metadata.mode(), other.mode())));
    }
    let times = [metadata, &other].map(|metadata| (metadata.mtime(), metadata.mtime_nsec()));
    if times[0] != times[1] {
        return Ok(Some(format!(
            "time {}.{:09} became {}.{:09}",
            times[0].0, times[0].1, times[1].0, times[1].1
        )));
    }
    if metadata.is_file() && !same_content(original, restored)? {
        return Ok(Some("content differs".to_owned()));
    }
    Ok(None)
}

fn same_content(left: &Path, right: &Path) -> io::Result<bool> {
    let hash = |path| {
        blake3::Hasher::new()
            .update_reader(BufReader::new(File::open(path)?))
            .map(|h| h.finalize())
    };
    Ok(hash(left)? == hash(right)?)
}

fn kind(file_type: FileType) -> &'static str {
    if file_type.is_dir() {
        "folder"
    } else if file_type.is_file() {
        "file"
    } else if file_type.is_symlink() {
        "link"
    } else if file_type.is_fifo() {
        "pipe"
    } else {
        "device"
    }
}

fn names(folder: &Path) -> Result<std::collections::BTreeSet<OsString>, Failure> {
    let listed = fs::read_dir(folder).and_then(|entries| entries.map(|entry| Ok(entry?.file_name())).collect());
    listed.map_err(|error| unreadable(folder, &error))
}

fn unreadable(path: &Path, error: &io::Error) -> Failure {
    Failure::context(format!("`{}` cannot be read: {error}", path.display()), error)
        .hint("name a folder that you may read")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn every_kind_of_difference_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let (left, right) = (dir.path().join("l"), dir.path().join("r"));
        for folder in [&left, &right] {
            super::super::folder::make_up(folder).unwrap();
        }
        let same_times = |comparison: &Comparison| {
            let differs = comparison.differences.iter().filter(|line| !line.contains(": time "));
            differs.cloned().collect::<Vec<_>>()
        };
        assert_eq!(same_times(&compare(&left, &right).unwrap()), Vec::<String>::new());
        fs::write(right.join("size-129"), vec![0; 129]).unwrap();
        let time = fs::metadata(left.join("size-129")).unwrap().modified().unwrap();
        File::options()
            .write(true)
            .open(right.join("size-129"))
            .unwrap()
            .set_modified(time)
            .unwrap();
        fs::set_permissions(right.join("size-1"), fs::Permissions::from_mode(0o600)).unwrap();
        fs::remove_file(right.join("size-0")).unwrap();
        fs::write(right.join("more"), "x").unwrap();
        fs::remove_file(right.join("special/link")).unwrap();
        std::os::unix::fs::symlink("elsewhere", right.join("special/link")).unwrap();
        let found = same_times(&compare(&left, &right).unwrap()).join("\n");
        for expected in [
            "size-129: content",
            "size-1: mode",
            "size-0: not restored",
            "more: only",
            "special/link: link target",
        ] {
            assert!(found.contains(expected), "{expected} not in:\n{found}");
        }
        assert_eq!(measure(&left).unwrap().files, measure(&right).unwrap().files);
    }
}
