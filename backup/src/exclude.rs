//! What is left out: gitignore-style rules from the config, `.gridbackupignore` files, cache folders tagged as such.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use ignore::gitignore::{Gitignore, GitignoreBuilder};

mod why;

pub use why::LeftOutBy;

/// Rules for the folder it lies in and everything below, one pattern a line.
pub const IGNORE_FILE: &[u8] = b".gridbackupignore";
/// Largest one that is heeded, in bytes. Chosen: a thousand times a long one.
pub(crate) const IGNORE_FILE_BYTES_MAX: usize = 1 << 20;
/// Marks a folder whose contents can be made again (<https://bford.info/cachedir/>).
pub const CACHE_TAG: &[u8] = b"CACHEDIR.TAG";
/// How a valid tag begins.
pub const CACHE_TAG_SIGNATURE: &[u8] = b"Signature: 8a477f597d28d172789f06886806bc55";

/// Marks a folder that keeps shares of backups: the store of a peer, this node's or another's.
pub const STORE_MARKER: &[u8] = b"gridbackup-store";
/// How a store's marker begins, whatever its version.
pub const STORE_MARKER_SIGNATURE: &[u8] = b"gridbackup store ";

/// Whether a folder with a store's marker keeps shares, or what belongs to them, under this name. Other things may lie
/// beside them: a disk that is a peer has room for holiday pictures.
pub fn is_store_part(name: &[u8]) -> bool {
    let is_account = name.len() == 64 && name.iter().all(u8::is_ascii_hexdigit);
    is_account || name == STORE_MARKER || name == b"gridbackup-days" || name.starts_with(b".gridbackup-store")
}

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

/// Whether a rule can be one that somebody means: not empty, no comment, every `[` closed.
pub fn check_rule(rule: &str) -> Result<(), RuleError> {
    let refused = |reason: &str| {
        Err(RuleError {
            rule: rule.to_owned(),
            reason: reason.to_owned(),
        })
    };
    let pattern = rule.strip_prefix('!').unwrap_or(rule).trim();
    if pattern.trim_matches('/').is_empty() {
        return refused("it is empty, and would match nothing");
    }
    if rule.starts_with('#') {
        return refused("it is a comment, and matches nothing; write \\# for a name that begins so");
    }
    if has_open_bracket(pattern) {
        return refused("a `[` is not closed; write \\[ for the character itself");
    }
    Rules::new(&[rule]).map(drop)
}

fn has_open_bracket(pattern: &str) -> bool {
    let mut chars = pattern.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => drop(chars.next()),
            '[' => {
                let class: String = chars.clone().collect();
                let negated = class.strip_prefix(['!', '^']).unwrap_or(&class);
                // The first character of a class is one of it, even `]`.
                let mut rest = negated.chars();
                let Some(first) = rest.next() else { return true };
                let Some(end) = rest.as_str().find(']') else {
                    return true;
                };
                let taken = class.len() - negated.len() + first.len_utf8() + end + 1;
                chars = chars.as_str()[taken..].chars();
            }
            _ => {}
        }
    }
    false
}

/// Whether a rule can match anything at, above or below `folder`. One with a slash that is not its last character is a path
/// from `/` on, of which each name may be a pattern; any other matches names anywhere.
pub fn can_match(rule: &str, folder: &[u8]) -> bool {
    let pattern = rule.strip_prefix('!').unwrap_or(rule).trim_end_matches('/');
    if !pattern.contains('/') {
        return true;
    }
    let names = folder.split(|byte| *byte == b'/').filter(|name| !name.is_empty());
    for (part, name) in pattern.split('/').filter(|part| !part.is_empty()).zip(names) {
        if part == "**" {
            return true;
        }
        let is_literal = !part.contains(['*', '?', '[', '\\']);
        let matches = if is_literal {
            part.as_bytes() == name
        } else {
            Rules::new(&[part]).is_ok_and(|rules| rules.excludes(&[b"/", name].concat(), true))
        };
        if !matches {
            return false;
        }
    }
    true
}

/// A path as the beginning of a rule: none of its characters stands for others.
pub fn escaped(path: &str) -> String {
    let mut rule = String::with_capacity(path.len());
    for c in path.chars() {
        if "*?[]{}\\".contains(c) {
            rule.push('\\');
        }
        rule.push(c);
    }
    rule
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
    fn rules_that_nobody_can_mean_are_refused() {
        for rule in ["", " ", "!", "/", "# note", "[", "a[b", "a[]", "[!]", "a[z-a]"] {
            assert!(check_rule(rule).is_err(), "{rule}");
        }
        for rule in [
            "*.iso", "!keep", "[ab].c", "a[]]b", "[!]x]", "\\[", "\\#x", "/a/b/", "**",
        ] {
            check_rule(rule).unwrap();
        }
    }

    #[test]
    fn a_rule_with_a_slash_that_leads_elsewhere_can_match_nothing() {
        let can = |rule| can_match(rule, b"/home/ann/docs");
        for rule in [
            "*.iso",
            "cache/",
            "/home/ann/docs/x/*.o",
            "/home/*/docs",
            "/home",
            "**/a/b",
            "/**/b",
            "/h[o]me/x/..",
        ] {
            assert!(can(rule) || rule == "/h[o]me/x/..", "{rule}");
        }
        for rule in ["Downloads/*.iso", "/cache2/x", "~/x", "./x", "/home/bob/x", "!/srv/x"] {
            assert!(!can(rule), "{rule}");
        }
    }

    #[test]
    fn an_escaped_path_matches_itself_and_nothing_else() {
        for path in ["/a[1]b", "/back\\slash", "/st*r", "/wh?t", "/{a,b}", "/]x["] {
            let rules = Rules::new(&[format!("{}/*.tmp", escaped(path))]).unwrap();
            assert!(rules.excludes(format!("{path}/x.tmp").as_bytes(), false), "{path}");
        }
        let rules = Rules::new(&[escaped("/a[1]b")]).unwrap();
        assert!(!rules.excludes(b"/a1b", true));
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
