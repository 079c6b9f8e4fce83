//! A folder as objects of an S3 bucket: what changed is found without asking the bucket, and sent in an order that never
//! leaves a page without what it shows.
//!
//! Leaves out: how S3 is spoken to (crate `s3`), printing, the command line. docs/publish.md says what the user sees.

mod adopt;
mod announce;
mod compress;
mod deletes;
mod error;
mod event;
mod folder_page;
#[doc(hidden)]
pub mod fuzzing;
mod invalidation;
mod inventory;
mod lock;
mod mark;
mod merge;
mod options;
mod plan;
mod planner;
mod pool;
mod redirects;
mod restore;
mod routes;
mod run;
mod send;
mod source;
mod stat;
mod template;
mod types;
mod walk;
mod worker;

pub use adopt::adopt;
pub use error::PublishError;
pub use event::{Drift, Event, Summary, Why};
pub use lock::LockError;
pub use options::{
    Cloudfront, Deletes, Hook, INVALIDATION_PATHS, KeyFormat, Links, LockMode, LockOptions, Options, Trust,
};
pub use restore::{RestoreOptions, Restored, restore};
pub use routes::{Routes, RoutesError};
pub use run::publish;
pub use template::TemplateError;
pub use watch::Watch;
