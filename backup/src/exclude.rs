//! What is left out: gitignore-style rules from the config, `.gridbackupignore` files, cache folders tagged as such.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use ignore::gitignore::{Gitignore, GitignoreBuilder};

/// Rules for the folder it lies in and everything below, one pattern a line.
pub const IGNORE_FILE: &[u8] = b".gridbackupignore";
/// Largest one that is heeded, in bytes. Chosen: a thousand times a long one.
pub(crate) const IGNORE_FILE_BYTES_MAX: usize = 1 << 20;
/// Marks a folder whose contents can be made again (<https://bford.info/cachedir/>).
pub const CACHE_TAG: &[u8] = b"CACHEDIR.TAG";
/// How a valid tag begins.
pub const CACHE_TAG_SIGNATURE: &[u8] = b"Signature: 8a477f597d28d172789f06886806bc55";

/// Rules that leave paths out.
#[derive(Clone, Debug)]
pub struct Rules {
    patterns: Gitignore,
    texts: Vec<String>,
    cache_folders: CacheFolders,
}

/// What happens to the contents of folders that a valid `CACHEDIR.TAG` marks.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum CacheFolders {
    /// All but the tag is left out.
    #[default]
    LeaveOut,
    /// They are kept like any other.
    Keep,
}

/// A rule that cannot be parsed.
#[derive(Debug, thiserror::Error)]
#[error("Exclude rule `{rule}`: {reason}")]
pub struct RuleError {
    /// The rule.
    pub rule: String,
    /// What is wrong.
    pub reason: String,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            patterns: Gitignore::empty(),
            texts: Vec::new(),
            cache_folders: CacheFolders::default(),
        }
    }
}

impl Rules {
    /// gitignore-style patterns, matched against absolute paths; later ones win, `!` takes back in.
    pub fn new<S: AsRef<str>>(patterns: &[S]) -> Result<Self, RuleError> {
        let mut builder = GitignoreBuilder::new("/");
        for pattern in patterns {
            let rule = pattern.as_ref();
            let refused = |error: ignore::Error| RuleError {
                rule: rule.to_owned(),
                reason: error.to_string(),
            };
            builder.add_line(None, rule).map_err(refused)?;
        }
        let refused = |error: ignore::Error| RuleError {
            rule: String::new(),
            reason: error.to_string(),
        };
        let texts = patterns.iter().map(|pattern| pattern.as_ref().to_owned()).collect();
        let patterns = builder.build().map_err(refused)?;
        Ok(Self {
            patterns,
            texts,
            cache_folders: CacheFolders::default(),
        })
    }

    /// The same rules with another treatment of tagged cache folders.
    pub fn cache_folders(mut self, cache_folders: CacheFolders) -> Self {
        self.cache_folders = cache_folders;
        self
    }

    /// The patterns as they were given.
    pub fn texts(&self) -> &[String] {
        &self.texts
    }

    /// Leaves `path` out, for itself or for a folder that it is in? `.gridbackupignore` files and cache tags, which only
    /// a scan reads, are not considered.
    pub fn excludes(&self, path: &[u8], is_directory: bool) -> bool {
        let path = as_path(path);
        let itself = self.patterns.matched(path, is_directory);
        let mut folders = path.ancestors().skip(1).filter(|folder| folder.parent().is_some());
        itself.is_ignore() || (folders.any(|folder| self.patterns.matched(folder, true).is_ignore()))
    }

    /// As `excludes`, for a scan that came here through folders that are not left out. A rule of the config that says
    /// something wins over ignore files, and of these the nearest.
    pub(crate) fn excludes_entry(&self, folder: Option<&FolderRules>, path: &[u8], is_directory: bool) -> bool {
        let path = as_path(path);
        let said = self.patterns.matched(path, is_directory);
        if !said.is_none() {
            return said.is_ignore();
        }
        let mut at = folder;
        while let Some(rules) = at {
            let said = rules.patterns.matched(path, is_directory);
            if !said.is_none() {
                return said.is_ignore();
            }
            at = rules.above.as_deref();
        }
        false
    }

    pub(crate) fn heeds_cache_tags(&self) -> bool {
        self.cache_folders == CacheFolders::LeaveOut
    }

    /// There is nothing that could match.
    pub(crate) fn is_empty(&self) -> bool {
        self.patterns.is_empty()
    }
}

/// The rules of an ignore file, and those of the folders above.
#[derive(Debug)]
pub(crate) struct FolderRules {
    patterns: Gitignore,
    above: Option<Arc<FolderRules>>,
}

impl FolderRules {
    /// Lines that cannot be parsed say nothing; the others count.
    pub fn new(folder: &[u8], text: &str, above: Option<Arc<FolderRules>>) -> Self {
        let mut builder = GitignoreBuilder::new(as_path(folder));
        for line in text.lines() {
            if let Err(error) = builder.add_line(None, line) {
                tracing::warn!(folder = %folder.escape_ascii(), line, %error, "an ignore rule is left out");
            }
        }
        let patterns = builder.build().unwrap_or_else(|_| Gitignore::empty());
        Self { patterns, above }
    }
}

fn as_path(path: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_rules_win_and_an_exclamation_mark_takes_back_in() {
        let rules = Rules::new(&["*.iso", "!/srv/keep.iso", "/home/*/.cache/"]).unwrap();
        assert!(rules.excludes(b"/a/b.iso", false));
        assert!(!rules.excludes(b"/srv/keep.iso", false));
        assert!(rules.excludes(b"/home/u/.cache", true));
        assert!(rules.excludes(b"/home/u/.cache/x/y", false));
        assert!(!rules.excludes(b"/home/u/.cache", false));
        assert!(!Rules::default().excludes(b"/a", false));
    }

    #[test]
    fn a_name_that_is_not_utf_8_is_matched() {
        assert!(Rules::new(&["*.tmp"]).unwrap().excludes(b"/a/\xff\n.tmp", false));
    }

    #[test]
    fn a_rule_that_cannot_be_parsed_is_named() {
        assert_eq!(Rules::new(&["ok", "a[z-a]"]).unwrap_err().rule, "a[z-a]");
    }

    #[test]
    fn the_nearest_ignore_file_wins_and_the_config_before_all() {
        let above = Arc::new(FolderRules::new(b"/a", "*.log\n/only-here\n", None));
        let near = FolderRules::new(b"/a/b", "!keep.log\n*.secret\n", Some(above));
        let rules = Rules::new(&["!wanted.log"]).unwrap();
        assert!(rules.excludes_entry(Some(&near), b"/a/b/x.log", false));
        assert!(!rules.excludes_entry(Some(&near), b"/a/b/keep.log", false));
        assert!(!rules.excludes_entry(Some(&near), b"/a/b/wanted.log", false));
        assert!(!rules.excludes_entry(Some(&near), b"/a/b/only-here", false));
        assert!(rules.excludes_entry(Some(&near), b"/a/b/c/x.secret", false));
    }
}
