//! The score of a job: recent, small and user files first, and nothing waits for ever.
//!
//! The ageing term grows equally for all jobs, so the order of two jobs never changes while they wait: the score is
//! computed once and stored, and the database's index on it is the queue.

use serde::{Deserialize, Serialize};

/// Weights, in points; config.toml `[priority]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Weights {
    /// For a file modified just now; falls by half a step with each doubling of its age in days.
    pub recency: f64,
    /// For the smallest file; falls linearly with the logarithm of the size.
    pub smallness: f64,
    /// Added for each hour that a job waits.
    pub ageing_per_hour: f64,
    /// First rule that matches gives the class; none: `Class::Other`.
    pub rules: Vec<Rule>,
}

/// Which class files get, by gitignore-style pattern on the whole path, with points.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Case-insensitive glob over the path; `*.{doc,odt}` matches at any depth.
    pub pattern: String,
    /// Name shown by `queue`: `document`, `photo`, `media`, `system`, `cache`, …
    pub class: String,
    /// Points, positive or negative.
    pub points: f64,
}

/// A score and its parts, in points.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Score {
    /// Sum; higher goes first.
    pub total: f64,
    /// Part for the age of the file's mtime when it was enqueued.
    pub recency: f64,
    /// Part for the size.
    pub size: f64,
    /// Part for the class.
    pub class: f64,
    /// Part for the time it was enqueued (earlier is higher).
    pub ageing: f64,
}

impl Default for Weights {
    fn default() -> Self {
        todo!()
    }
}
