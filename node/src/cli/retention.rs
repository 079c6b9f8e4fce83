//! `forget`, `prune`, `undelete`: which snapshots stay, and what becomes of the space of the others.

use api::human::Within;
use api::request::{Forget, Prune, Request, Undelete};

/// Arguments of `forget`.
#[derive(Debug, clap::Args)]
pub struct ForgetArgs {
    /// Forget these, whatever else is kept
    #[arg(value_name = "SNAPSHOT")]
    snapshots: Vec<String>,
    /// Keep the newest N
    #[arg(long, value_name = "N", default_value_t = 0)]
    keep_last: u32,
    /// Keep the newest of each of the last N hours that have one
    #[arg(long, value_name = "N", default_value_t = 0)]
    keep_hourly: u32,
    /// Keep the newest of each of the last N days that have one
    #[arg(long, value_name = "N", default_value_t = 0)]
    keep_daily: u32,
    /// Keep the newest of each of the last N weeks that have one
    #[arg(long, value_name = "N", default_value_t = 0)]
    keep_weekly: u32,
    /// Keep the newest of each of the last N months that have one
    #[arg(long, value_name = "N", default_value_t = 0)]
    keep_monthly: u32,
    /// Keep the newest of each of the last N years that have one
    #[arg(long, value_name = "N", default_value_t = 0)]
    keep_yearly: u32,
    /// Keep all that are so much older than the newest, at most: y, m (months, as in restic), w, d, h; `6m`, `2y5m7d`
    #[arg(long, value_name = "DURATION")]
    keep_within: Option<Within>,
    /// Keep all with this tag; may be given several times
    #[arg(long, value_name = "TAG")]
    keep_tag: Vec<String>,
    /// Give up the backups that could not be read when this home was recovered
    #[arg(long)]
    unread: bool,
    /// This other machine of yours is gone for good: what only its backups want may be given up; may be given several times
    #[arg(long, value_name = "NAME")]
    device: Vec<String>,
    /// Do it even if nothing is left of some folders, or nothing at all
    #[arg(long)]
    allow_empty_group: bool,
    /// Then give up what no snapshot wants any more
    #[arg(long)]
    prune: bool,
    /// Only say what would be done
    #[arg(long)]
    dry_run: bool,
}

impl ForgetArgs {
    pub fn request(self) -> Request {
        Request::Forget(Forget {
            snapshots: self.snapshots,
            keep_last: self.keep_last,
            keep_hourly: self.keep_hourly,
            keep_daily: self.keep_daily,
            keep_weekly: self.keep_weekly,
            keep_monthly: self.keep_monthly,
            keep_yearly: self.keep_yearly,
            keep_within_secs: self.keep_within.map(|within| within.0.0.as_secs()),
            keep_tags: self.keep_tag,
            unread: self.unread,
            devices: self.device,
            allow_empty_group: self.allow_empty_group,
            prune: self.prune,
            dry_run: self.dry_run,
        })
    }
}

/// Arguments of `prune`.
#[derive(Debug, clap::Args)]
pub struct PruneArgs {
    /// Only say what would be given up
    #[arg(long)]
    dry_run: bool,
}

impl PruneArgs {
    pub fn request(self) -> Request {
        Request::Prune(Prune { dry_run: self.dry_run })
    }
}

/// Arguments of `undelete`.
#[derive(Debug, clap::Args)]
pub struct UndeleteArgs {
    /// Bring these back; without any, all that were forgotten
    #[arg(value_name = "SNAPSHOT")]
    snapshots: Vec<String>,
}

impl UndeleteArgs {
    pub fn request(self) -> Request {
        Request::Undelete(Undelete {
            snapshots: self.snapshots,
        })
    }
}
