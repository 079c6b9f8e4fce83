//! By what a path is left out: asked for one path, where a scan decides over whole folders in the same order.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{CACHE_TAG, CACHE_TAG_SIGNATURE, FolderRules, IGNORE_FILE, Rules, as_path};

/// Largest ignore file that is read here. Chosen: as the scan has it.
const IGNORE_FILE_BYTES_MAX: u64 = 1 << 20;

/// What leaves something out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LeftOutBy {
    /// A rule of the config.
    Rule(String),
    /// A line of an ignore file.
    IgnoreFile {
        /// The file.
        file: PathBuf,
        /// The line.
        rule: String,
    },
    /// A valid `CACHEDIR.TAG` in this folder.
    CacheTag(PathBuf),
}

impl fmt::Display for LeftOutBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rule(rule) => write!(f, "the rule `{rule}` leaves it out"),
            Self::IgnoreFile { file, rule } => write!(f, "`{rule}` in {} leaves it out", file.display()),
            Self::CacheTag(folder) => write!(f, "{} is marked as a cache by its CACHEDIR.TAG", folder.display()),
        }
    }
}

impl Rules {
    /// By what a scan of `root` leaves `path` out, for itself or for a folder below the root that it is in.
    pub fn why(&self, root: &[u8], path: &[u8], is_directory: bool) -> Option<LeftOutBy> {
        let (root, path) = (as_path(root), as_path(path));
        let below = path.strip_prefix(root).ok()?;
        let mut folder = root.to_owned();
        let mut folder_rules = None;
        let mut names = below.components().peekable();
        while let Some(name) = names.next() {
            if self.heeds_cache_tags() && is_tagged(&folder) && name.as_os_str() != as_path(CACHE_TAG).as_os_str() {
                return Some(LeftOutBy::CacheTag(folder));
            }
            let file = folder.join(as_path(IGNORE_FILE));
            if let Some(text) = read_start(&file, IGNORE_FILE_BYTES_MAX) {
                let text = String::from_utf8_lossy(&text).into_owned();
                let above = folder_rules.take();
                let bytes = folder.as_os_str().as_encoded_bytes();
                folder_rules = Some(Arc::new(FolderRules::new(bytes, &text, above)));
            }
            folder.push(name);
            let is_directory = is_directory || names.peek().is_some();
            let found = self.said(folder_rules.as_deref(), &folder, is_directory);
            if found.is_some() {
                return found;
            }
        }
        None
    }

    /// As `excludes_entry`, with the reason.
    fn said(&self, folder: Option<&FolderRules>, path: &Path, is_directory: bool) -> Option<LeftOutBy> {
        let said = self.patterns.matched(path, is_directory);
        if !said.is_none() {
            let rule = said.inner().map(|glob| glob.original().to_owned());
            return rule.filter(|_| said.is_ignore()).map(LeftOutBy::Rule);
        }
        let mut at = folder;
        while let Some(rules) = at {
            let said = rules.patterns.matched(path, is_directory);
            if !said.is_none() {
                let rule = said.inner().filter(|_| said.is_ignore())?.original().to_owned();
                let file = rules.patterns.path().join(as_path(IGNORE_FILE));
                return Some(LeftOutBy::IgnoreFile { file, rule });
            }
            at = rules.above.as_deref();
        }
        None
    }
}

fn is_tagged(folder: &Path) -> bool {
    let length = CACHE_TAG_SIGNATURE.len() as u64;
    read_start(&folder.join(as_path(CACHE_TAG)), length).is_some_and(|start| start == CACHE_TAG_SIGNATURE)
}

/// The start of a regular file; none if it is another thing or cannot be read.
fn read_start(path: &Path, limit: u64) -> Option<Vec<u8>> {
    std::fs::symlink_metadata(path)
        .ok()
        .filter(std::fs::Metadata::is_file)?;
    let mut start = Vec::new();
    File::open(path).ok()?.take(limit).read_to_end(&mut start).ok()?;
    Some(start)
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStrExt;

    use super::*;

    #[test]
    fn the_reason_is_the_one_by_which_a_scan_leaves_it_out() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        for folder in ["work/deep", "cache"] {
            std::fs::create_dir_all(root.join(folder)).unwrap();
        }
        std::fs::write(root.join(".gridbackupignore"), "*.log\n").unwrap();
        std::fs::write(root.join("work/.gridbackupignore"), "!keep.log\n/deep/\n").unwrap();
        std::fs::write(root.join("cache/CACHEDIR.TAG"), CACHE_TAG_SIGNATURE).unwrap();
        let rules = Rules::new(&["*.iso", "!wanted.log"]).unwrap();
        let why = |path: &str| {
            let path = root.join(path);
            let said = rules.why(root.as_os_str().as_bytes(), path.as_os_str().as_bytes(), false);
            said.map(|by| by.to_string().replace(&*root.to_string_lossy(), ""))
        };
        for (path, expected) in [
            ("a.txt", None),
            ("a.iso", Some("the rule `*.iso` leaves it out")),
            ("a.log", Some("`*.log` in /.gridbackupignore leaves it out")),
            ("wanted.log", None),
            ("work/keep.log", None),
            ("work/x.log", Some("`*.log` in /.gridbackupignore leaves it out")),
            ("work/deep/x", Some("`/deep/` in /work/.gridbackupignore leaves it out")),
            ("cache/CACHEDIR.TAG", None),
            ("cache/x", Some("/cache is marked as a cache by its CACHEDIR.TAG")),
        ] {
            assert_eq!(why(path).as_deref(), expected, "{path}");
        }
    }
}
