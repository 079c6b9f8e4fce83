//! The limits of the hour: from config.toml, or from the command line, which goes before.

use std::time::Duration;

use api::clock;
use api::human::ByteSize;
use upload_queue::bandwidth::schedule::{Hours, TimeOfDay};

use crate::config::Config;
use crate::{Engine, Mode};

/// How often the hour is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(20);

/// Bytes a second; none: as fast as it goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// To friends.
    pub upload: Option<ByteSize>,
    /// From friends.
    pub download: Option<ByteSize>,
}

impl Limits {
    /// What config.toml says for a time of day.
    fn at(config: &Config, time: TimeOfDay) -> Self {
        let holds = |hours: Option<Hours>| hours.is_some_and(|hours| hours.contain(time));
        match config.schedule.iter().find(|entry| holds(entry.hours())) {
            Some(entry) => Self {
                upload: entry.limit_upload,
                download: entry.limit_download,
            },
            None => Self {
                upload: config.limit_upload,
                download: config.limit_download,
            },
        }
    }
}

impl Engine {
    /// Puts the limits of this hour in force.
    pub(super) fn set_bandwidth(&self) {
        let now = i64::try_from(clock::now_secs()).unwrap_or(i64::MAX);
        let limits = Limits::at(&self.config(), TimeOfDay::at(now, clock::utc_offset_secs(now)));
        let given = match &self.0.mode {
            Mode::Command(options) => options.limits,
            Mode::Daemon(options) => options.limits,
        };
        let bandwidth = &self.0.bandwidth;
        bandwidth
            .upload
            .set(given.upload.or(limits.upload).map(|limit| limit.0));
        bandwidth
            .download
            .set(given.download.or(limits.download).map(|limit| limit.0));
    }

    /// Does so for as long as it is polled.
    pub(super) async fn keep_bandwidth(&self) {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            self.set_bandwidth();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hour_decides_and_what_it_leaves_out_is_full_speed() {
        let config: Config = toml_edit::de::from_str(
            "limit_upload = \"2M\"\nlimit_download = \"10M\"\n\n\
             [[schedule]]\nfrom = \"01:00\"\nto = \"07:00\"\n\n\
             [[schedule]]\nfrom = \"06:00\"\nto = \"09:00\"\nlimit_upload = \"500K\"\n",
        )
        .unwrap();
        config.validate().unwrap();
        let at = |time| Limits::at(&config, TimeOfDay::parse(time).unwrap());
        let limits = |upload: Option<u64>, download: Option<u64>| Limits {
            upload: upload.map(ByteSize),
            download: download.map(ByteSize),
        };
        assert_eq!(at("12:00"), limits(Some(2 << 20), Some(10 << 20)));
        assert_eq!(at("06:30"), limits(None, None));
        assert_eq!(at("07:00"), limits(Some(500 << 10), None));
    }

    #[test]
    fn hours_that_are_none_are_refused() {
        let config: Config = toml_edit::de::from_str("[[schedule]]\nfrom = \"25:00\"\nto = \"07:00\"\n").unwrap();
        assert!(config.validate().unwrap_err().contains("25:00"));
    }
}
