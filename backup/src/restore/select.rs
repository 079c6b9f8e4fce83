//! Which paths of a snapshot are restored: the one asked for, thinned by include and exclude patterns.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use ignore::gitignore::{Gitignore, GitignoreBuilder};
use proto::log_record::EntryKind;

use crate::restore::{RestoreError, RestoreOptions};

/// Which paths are restored, and where below the target they go.
pub(super) struct Selection {
    base: Vec<u8>,
    /// Bytes of an absolute path that are not part of the relative one.
    cut: usize,
    include: Option<Gitignore>,
    exclude: Gitignore,
}

impl Selection {
    /// For an entry of `kind` at the path asked for.
    pub(super) fn new(options: &RestoreOptions, kind: EntryKind) -> Result<Self, RestoreError> {
        let base = base_path(options);
        let cut = match (base.as_slice(), kind) {
            (b"/", _) => 1,
            (_, EntryKind::Directory) => base.len() + 1,
            _ => base.iter().rposition(|byte| *byte == b'/').map_or(0, |slash| slash + 1),
        };
        let include = match options.include.as_slice() {
            [] => None,
            patterns => Some(matcher(patterns)?),
        };
        Ok(Self {
            base,
            cut,
            include,
            exclude: matcher(&options.exclude)?,
        })
    }
    /// The absolute path that the restore begins at.
    pub(super) fn base(&self) -> &[u8] {
        &self.base
    }
    /// Where an absolute path at or below the base goes; empty: the target itself.
    pub(super) fn relative<'a>(&self, path: &'a [u8]) -> &'a [u8] {
        path.get(self.cut..).unwrap_or_default()
    }
    /// The absolute path of what is at `relative`.
    pub(super) fn absolute(&self, relative: &[u8]) -> Vec<u8> {
        let prefix = &self.base[..self.cut.min(self.base.len())];
        let slash = if self.cut > self.base.len() { &b"/"[..] } else { b"" };
        match relative {
            [] => self.base.clone(),
            _ => [prefix, slash, relative].concat(),
        }
    }
    /// Whether some pattern decides what is restored.
    pub(super) fn is_thinned(&self) -> bool {
        self.include.is_some()
    }
    /// The include patterns, each alone.
    pub(super) fn patterns(options: &RestoreOptions) -> Result<Vec<Pattern>, RestoreError> {
        // One that takes back (`!`) or says nothing need not match.
        let alone = options.include.iter().filter(|text| !text.starts_with('!'));
        let mut patterns = Vec::new();
        for text in alone {
            let matcher = matcher(std::slice::from_ref(text))?;
            if !matcher.is_empty() {
                patterns.push(Pattern {
                    text: text.clone(),
                    matcher,
                });
            }
        }
        Ok(patterns)
    }
    /// Whether it is left out with all that is below it.
    pub(super) fn excludes(&self, relative: &[u8], is_directory: bool) -> bool {
        matches_any(&self.exclude, relative, is_directory)
    }
    /// Whether it is asked for, itself or by a folder above it.
    pub(super) fn includes(&self, relative: &[u8], is_directory: bool) -> bool {
        self.include
            .as_ref()
            .is_none_or(|include| matches_any(include, relative, is_directory))
    }
}

/// An include pattern.
pub(super) struct Pattern {
    pub(super) text: String,
    matcher: Gitignore,
}

impl Pattern {
    /// Whether it asks for what is at `relative`, or for a folder above it.
    pub(super) fn matches(&self, relative: &[u8], is_directory: bool) -> bool {
        matches_any(&self.matcher, relative, is_directory)
    }
}

/// The absolute path asked for, without doubled slashes and without one at its end.
pub(super) fn base_path(options: &RestoreOptions) -> Vec<u8> {
    let asked = options.path.as_deref().unwrap_or(b"/");
    let names = asked.split(|byte| *byte == b'/').filter(|name| !name.is_empty());
    let base = names.fold(Vec::new(), |base, name| [&base, &b"/"[..], name].concat());
    if base.is_empty() { b"/".to_vec() } else { base }
}

fn matches_any(matcher: &Gitignore, relative: &[u8], is_directory: bool) -> bool {
    !relative.is_empty()
        && matcher
            .matched_path_or_any_parents(Path::new(OsStr::from_bytes(relative)), is_directory)
            .is_ignore()
}

fn matcher(patterns: &[String]) -> Result<Gitignore, RestoreError> {
    // Rooted at ".", so that nothing is stripped from the relative paths that are matched.
    let mut builder = GitignoreBuilder::new(".");
    let bad = |error: ignore::Error| RestoreError::Pattern {
        reason: error.to_string(),
    };
    for pattern in patterns {
        builder.add_line(None, pattern).map_err(bad)?;
    }
    builder.build().map_err(bad)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(path: Option<&str>, include: &[&str], exclude: &[&str]) -> RestoreOptions {
        RestoreOptions {
            snapshot: 1,
            path: path.map(|path| path.as_bytes().to_vec()),
            target: "/nowhere".into(),
            include: include.iter().map(ToString::to_string).collect(),
            exclude: exclude.iter().map(ToString::to_string).collect(),
            overwrite: Default::default(),
            delete: None,
            dry_run: false,
            verify: false,
        }
    }

    #[test]
    fn a_folders_contents_go_into_the_target_and_a_file_keeps_its_name() {
        for (path, kind, absolute, relative) in [
            (None, EntryKind::Directory, "/home/u/a", "home/u/a"),
            (None, EntryKind::Directory, "/", ""),
            (Some("//home/u/"), EntryKind::Directory, "/home/u/a/b", "a/b"),
            (Some("/home/u"), EntryKind::Directory, "/home/u", ""),
            (Some("/home/u/a"), EntryKind::File, "/home/u/a", "a"),
        ] {
            let selection = Selection::new(&options(path, &[], &[]), kind).unwrap();
            assert_eq!(selection.relative(absolute.as_bytes()), relative.as_bytes());
            assert_eq!(selection.absolute(relative.as_bytes()), absolute.as_bytes());
        }
    }

    #[test]
    fn an_included_folder_includes_what_is_below_it_unless_excluded() {
        let selection = Selection::new(&options(None, &["docs", "*.txt"], &["*.tmp"]), EntryKind::Directory).unwrap();
        assert!(selection.includes(b"home/docs/deep/file", false));
        assert!(selection.includes(b"other/a.txt", false));
        assert!(!selection.includes(b"other/a.pdf", false));
        assert!(selection.excludes(b"home/docs/x.tmp", false));
        assert!(selection.includes(b"b\xff.txt", false));
    }
}
