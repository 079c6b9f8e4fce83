//! What is left out: gitignore-style rules from the config, `.gridbackupignore` files, cache folders tagged as such.

/// Rules that leave paths out.
#[derive(Clone, Debug, Default)]
pub struct Rules {}

/// A rule that cannot be parsed.
#[derive(Debug, thiserror::Error)]
#[error("Exclude rule `{rule}`: {reason}")]
pub struct RuleError {
    /// The rule.
    pub rule: String,
    /// What is wrong.
    pub reason: String,
}

impl Rules {
    /// gitignore-style patterns, matched against absolute paths; later ones win, `!` takes back in.
    pub fn new<S: AsRef<str>>(_patterns: &[S]) -> Result<Self, RuleError> {
        todo!()
    }
    /// Leaves `path` out?
    pub fn excludes(&self, _path: &[u8], _is_directory: bool) -> bool {
        todo!()
    }
}
