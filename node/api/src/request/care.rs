//! Looking after what was stored, and giving it up.

use super::field::asked;

asked! {
    /// How to look after shares.
    pub struct Check {
        /// Of the shares found, read back so many percent; none: only look whether they are there.
        #[serde(default)]
        pub read_percent: Option<u64>,
    }

    /// How long to build shares anew.
    pub struct Repair {
        /// One round, whether or not it leaves something to do.
        #[serde(default)]
        pub once: bool,
    }

    /// Which snapshots to forget: those named, and those that no `keep` keeps, if any is given.
    #[derive(Default)]
    #[serde(default)]
    pub struct Forget {
        /// These, whatever else is kept.
        pub snapshots: Vec<String>,
        /// Keep the newest so many.
        pub keep_last: u32,
        /// Keep the newest of each of so many hours.
        pub keep_hourly: u32,
        /// Keep the newest of each of so many days.
        pub keep_daily: u32,
        /// Keep the newest of each of so many weeks.
        pub keep_weekly: u32,
        /// Keep the newest of each of so many months.
        pub keep_monthly: u32,
        /// Keep the newest of each of so many years.
        pub keep_yearly: u32,
        /// Keep all that are at most so much older than the newest.
        pub keep_within_secs: Option<u64>,
        /// Keep all with one of these tags.
        pub keep_tags: Vec<String>,
        /// Backups that could not be read when this home was recovered.
        pub unread: bool,
        /// What only these other machines of the account want, which are gone for good.
        pub devices: Vec<String>,
        /// Even if nothing is left of what a device backs up.
        pub allow_empty_group: bool,
        /// Then give up what nobody wants.
        pub prune: bool,
        /// Only say what would be done.
        pub dry_run: bool,
    }

    /// How to give up what no snapshot wants.
    pub struct Prune {
        /// Only say what would be given up.
        #[serde(default)]
        pub dry_run: bool,
    }

    /// Which forgotten snapshots to bring back.
    pub struct Undelete {
        /// Which; none: all.
        #[serde(default)]
        pub snapshots: Vec<String>,
    }
}
