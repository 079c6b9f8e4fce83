//! What a run may be told.

use std::path::PathBuf;
use std::time::Duration;

use crate::routes::Routes;

/// Most objects that a run deletes when nobody says how many. Chosen as in s3deploy: a folder of pictures, not a site.
pub const DELETES_MAX: u64 = 256;
/// Most objects on their way at once when nobody says how many; fewer while the endpoint asks for patience.
pub const WORKERS_MAX: usize = 64;

/// Most paths of an invalidation when nobody says how many. Chosen: 1,000 a month are free.
pub const INVALIDATION_PATHS: usize = 100;

/// How much is believed without asking.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Trust {
    /// The inventory says what is in the bucket; where nothing changed nothing is asked. A run without an inventory lists once.
    #[default]
    Inventory,
    /// The bucket is listed, and what differs from the inventory or the folder is repaired.
    Bucket,
}

/// What becomes of objects whose file is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deletes {
    /// They stay.
    Never,
    /// They are deleted if they are at most so many; else none is.
    UpTo(u64),
}

/// What becomes of symbolic links.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Links {
    /// What they lead to is published if it lies in the folder, too; others are named as broken.
    #[default]
    Inside,
    /// What they lead to is published, wherever it lies.
    Follow,
    /// They are left out.
    Skip,
}

/// A CloudFront distribution that shows the bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cloudfront {
    /// Its identifier.
    pub distribution: String,
    /// What it puts before paths to get keys; none: it is asked.
    pub origin_path: Option<String>,
    /// Most paths of an invalidation: more become folders.
    pub paths_max: usize,
}

/// How a command gets the keys of what was changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KeyFormat {
    /// One a line.
    #[default]
    Lines,
    /// With a zero byte after each.
    Nul,
    /// A JSON object a line: `change` and `key`.
    Json,
}

/// A command that hears of changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hook {
    /// For `sh -c`.
    pub command: String,
    /// On its standard input.
    pub format: KeyFormat,
}

/// How much the lock in the bucket is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LockMode {
    /// As well as the endpoint can.
    #[default]
    Auto,
    /// Nothing is published where the endpoint ignores conditions.
    Require,
    /// No lock, and no request is conditional.
    None,
}

/// How long a publisher is believed without a word when nobody says how long. Chosen: others do not wait long for a dead one, and
/// a line that is gone for half a minute does not end a run.
pub const TERM: Duration = Duration::from_secs(60);

/// The lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LockOptions {
    /// How much it is asked for.
    pub mode: LockMode,
    /// Another publisher, here or elsewhere, is waited for.
    pub wait: bool,
    /// How long this one is believed without a word.
    pub term: Duration,
}

impl Default for LockOptions {
    fn default() -> Self {
        Self {
            mode: LockMode::Auto,
            wait: false,
            term: TERM,
        }
    }
}

/// A run.
#[derive(Clone, Debug)]
pub struct Options {
    /// The folder.
    pub source: PathBuf,
    /// Where the inventory of this folder and bucket is kept; `.lock` is added for its lock.
    pub inventory: PathBuf,
    /// Headers and more, by name.
    pub routes: Routes,
    /// What is believed.
    pub trust: Trust,
    /// Files are read even where their times say that they did not change.
    pub checksum: bool,
    /// What becomes of objects whose file is gone.
    pub deletes: Deletes,
    /// A folder without files is published, that is: everything is deleted.
    pub allow_empty: bool,
    /// What becomes of links.
    pub links: Links,
    /// Keys are whole paths: several folders share a prefix, as backups do.
    pub whole_paths: bool,
    /// Folders without `index.html` get one that lists what is in them, even if the routes say nothing of it.
    pub index_pages: bool,
    /// Is told what it should not serve from its caches any more.
    pub cloudfront: Option<Cloudfront>,
    /// Runs after a run that changed something.
    pub hook: Option<Hook>,
    /// Nothing is sent, deleted or recorded.
    pub dry_run: bool,
    /// Most objects on their way at once.
    pub workers_max: usize,
    /// The lock.
    pub lock: LockOptions,
}

impl Options {
    /// A usual run.
    pub fn new(source: PathBuf, inventory: PathBuf) -> Self {
        Self {
            source,
            inventory,
            routes: Routes::default(),
            trust: Trust::default(),
            checksum: false,
            deletes: Deletes::UpTo(DELETES_MAX),
            allow_empty: false,
            links: Links::default(),
            whole_paths: false,
            index_pages: false,
            cloudfront: None,
            hook: None,
            dry_run: false,
            workers_max: WORKERS_MAX,
            lock: LockOptions::default(),
        }
    }
}
