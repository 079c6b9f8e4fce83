//! The score of a job (docs/priority.md): recent, small and user files first, and nothing waits for ever.
//!
//! The ageing term grows equally for all jobs, so the order of two jobs never changes while they wait: the score is
//! computed once and stored, and the database's index on it is the queue.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};
use serde::{Deserialize, Serialize};

/// Weights, in points; config.toml `[priority]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Weights {
    /// For a file modified just now; falls linearly with the logarithm of its age, to nothing at ten years.
    pub recency: f64,
    /// For an empty file; falls linearly with the logarithm of the size, to nothing at 1 TiB.
    pub smallness: f64,
    /// Added for each hour that a job waits.
    pub ageing_per_hour: f64,
    /// The first rule that matches gives the class; without one it is [`CLASS_OTHER`], at no points.
    pub rules: Vec<Rule>,
}

/// Which class files get, by gitignore-style pattern on the whole path, with points.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Case-insensitive glob. Matches at any depth (`*.{doc,odt}`, `node_modules/`) unless it begins with `/`; one that
    /// ends with `/` means all that is below such a folder.
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
    /// Part for the time it was enqueued: earlier is higher, zero at the start of 2026.
    pub ageing: f64,
}

/// Class of files that no rule names.
pub const CLASS_OTHER: &str = "other";

/// Time at which the ageing part is zero: 2026-01-01T00:00Z, in nanoseconds since 1970. Any fixed time gives the same
/// order; a near one keeps the numbers that people see small.
const AGEING_ZERO_NS: i64 = 1_767_225_600_000_000_000;
/// Age at which the recency part reaches zero, in days (docs/priority.md). Ten years.
const AGE_DAYS_MAX: f64 = 3650.0;
/// Size at which the size part reaches zero, in doublings of one byte (docs/priority.md). A terabyte.
const SIZE_DOUBLINGS_MAX: f64 = 40.0;
const HOUR_NS: f64 = 3.6e12;
const DAY_NS: f64 = 24.0 * HOUR_NS;

/// A rule's pattern is not a glob, or a weight is out of range.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WeightsError {
    /// The pattern does not parse.
    #[error("`{pattern}` is not a pattern: {reason}; correct it in [priority] of config.toml")]
    Pattern {
        /// As written.
        pattern: String,
        /// What the parser said.
        reason: String,
    },
    /// Infinite, not a number, or negative where that would let jobs starve.
    #[error("`{name}` in [priority] of config.toml is out of range: finite numbers, and ageing above zero")]
    Weight {
        /// Which.
        name: &'static str,
    },
}

impl Default for Weights {
    fn default() -> Self {
        let rules = DEFAULT_RULES.iter().map(|&(class, points, pattern)| Rule {
            pattern: pattern.to_owned(),
            class: class.to_owned(),
            points,
        });
        Self {
            recency: 100.0,
            smallness: 60.0,
            ageing_per_hour: 1.0,
            rules: rules.collect(),
        }
    }
}

/// What can be made again comes before what people made, because a photo in a cache folder is cache.
const DEFAULT_RULES: &[(&str, f64, &str)] = &[
    (
        "cache",
        -60.0,
        "{.cache,cache,caches,.npm,.cargo,.rustup,.gradle,.m2,.venv}/",
    ),
    (
        "cache",
        -60.0,
        "{node_modules,__pycache__,target/debug,target/release,Trash,.Trash}/",
    ),
    ("cache", -60.0, "/{var/cache,var/tmp,tmp}/"),
    ("cache", -60.0, "*.{tmp,temp,bak,o,pyc,class,crdownload,part}"),
    ("system", -40.0, "/{usr,bin,sbin,lib,lib32,lib64,opt,boot,snap,nix}/"),
    ("system", -40.0, "*.{iso,img,qcow2,vdi,vmdk,deb,rpm,apk,dmg,exe,dll,so}"),
    ("document", 40.0, "*.{doc,docx,odt,rtf,txt,md,tex,pdf,epub,pages}"),
    ("document", 40.0, "*.{xls,xlsx,ods,csv,numbers,ppt,pptx,odp,key}"),
    ("document", 40.0, "*.{kdbx,gpg,asc,pem,eml,mbox,ics,vcf,gnucash}"),
    (
        "source",
        30.0,
        "*.{rs,c,h,cc,cpp,hpp,go,py,js,ts,java,kt,rb,sh,sql,html,css,ipynb}",
    ),
    ("photo", 20.0, "*.{jpg,jpeg,png,heic,heif,tif,tiff,webp,svg,xcf,psd}"),
    ("photo", 20.0, "*.{raw,dng,cr2,cr3,nef,arw,orf,rw2,raf}"),
    ("media", -20.0, "*.{mp4,mkv,avi,mov,m4v,mpg,mpeg,wmv,webm,vob}"),
    ("media", -20.0, "*.{mp3,flac,ogg,opus,m4a,wav,aac}"),
];

impl Weights {
    /// Whether a [`Scorer`] can use all of it.
    pub fn check(&self) -> Result<(), WeightsError> {
        let finite = [
            ("recency", self.recency, self.recency.is_finite()),
            ("smallness", self.smallness, self.smallness.is_finite()),
            (
                "ageing_per_hour",
                self.ageing_per_hour,
                self.ageing_per_hour.is_finite() && self.ageing_per_hour > 0.0,
            ),
        ];
        if let Some(&(name, ..)) = finite.iter().find(|(.., fine)| !fine) {
            return Err(WeightsError::Weight { name });
        }
        for rule in &self.rules {
            if !rule.points.is_finite() {
                return Err(WeightsError::Weight { name: "points" });
            }
            glob(&rule.pattern)?;
        }
        Ok(())
    }

    /// Hours after which a job is ahead of any job that is enqueued from then on, whatever the two are: all points
    /// there are between best and worst, divided by what ageing gives in an hour.
    pub fn wait_hours_max(&self) -> f64 {
        let points = || self.rules.iter().map(|rule| rule.points).chain([0.0]);
        let spread = points().fold(0.0, f64::max) - points().fold(0.0, f64::min);
        (self.recency.abs() + self.smallness.abs() + spread) / self.ageing_per_hour
    }
}

/// Scores files: weights with their patterns compiled.
pub struct Scorer {
    weights: Weights,
    patterns: GlobSet,
}

impl Scorer {
    /// Compiles the patterns. What [`Weights::check`] would refuse is replaced, with a warning, by the default or left
    /// out: a mistake in a config file does not stop a backup.
    pub fn new(mut weights: Weights) -> Self {
        if let Err(error) = weights.check() {
            tracing::warn!(%error, "part of the priority settings is not used");
            weights = usable(weights);
        }
        let mut patterns = GlobSetBuilder::new();
        for rule in &weights.rules {
            patterns.add(glob(&rule.pattern).expect("unusable rules were taken out above"));
        }
        let patterns = patterns.build().unwrap_or_else(|error| {
            // Each pattern compiles alone, all together are over the limit of the regex engine.
            tracing::warn!(%error, "the priority rules are too many; none is used");
            weights.rules.clear();
            GlobSet::empty()
        });
        Self { weights, patterns }
    }

    /// The class and score of a file that is enqueued at `now_ns`.
    pub fn score(&self, path: &[u8], bytes: u64, mtime_ns: i64, now_ns: i64) -> (&str, Score) {
        let matched = self.patterns.matches(OsStr::from_bytes(path));
        let rule = matched.into_iter().min().map(|first| &self.weights.rules[first]);
        let age_days = (now_ns.saturating_sub(mtime_ns).max(0)) as f64 / DAY_NS;
        let recency = self.weights.recency * falling(age_days, (1.0 + AGE_DAYS_MAX).log2());
        let size = self.weights.smallness * falling(bytes as f64, SIZE_DOUBLINGS_MAX);
        let class = rule.map_or(0.0, |rule| rule.points);
        let waited = now_ns.saturating_sub(AGEING_ZERO_NS) as f64 / HOUR_NS;
        let ageing = -self.weights.ageing_per_hour * waited;
        let score = Score {
            total: recency + size + class + ageing,
            recency,
            size,
            class,
            ageing,
        };
        (rule.map_or(CLASS_OTHER, |rule| &rule.class), score)
    }
}

/// One at zero, falling linearly with the logarithm to zero after `doublings_max`.
fn falling(value: f64, doublings_max: f64) -> f64 {
    (1.0 - (1.0 + value).log2() / doublings_max).max(0.0)
}

fn usable(mut weights: Weights) -> Weights {
    let default = Weights::default();
    let finite = |value: f64, instead: f64| if value.is_finite() { value } else { instead };
    weights.recency = finite(weights.recency, default.recency);
    weights.smallness = finite(weights.smallness, default.smallness);
    weights.ageing_per_hour = finite(weights.ageing_per_hour, default.ageing_per_hour);
    if weights.ageing_per_hour <= 0.0 {
        weights.ageing_per_hour = default.ageing_per_hour;
    }
    weights
        .rules
        .retain(|rule| rule.points.is_finite() && glob(&rule.pattern).is_ok());
    weights
}

fn glob(pattern: &str) -> Result<globset::Glob, WeightsError> {
    let mut whole = String::with_capacity(pattern.len() + 5);
    if !pattern.starts_with('/') {
        whole.push_str("**/");
    }
    whole.push_str(pattern);
    if pattern.ends_with('/') {
        whole.push_str("**");
    }
    GlobBuilder::new(&whole)
        .case_insensitive(true)
        .literal_separator(true)
        .build()
        .map_err(|error| WeightsError::Pattern {
            pattern: pattern.to_owned(),
            reason: error.kind().to_string(),
        })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW_NS: i64 = AGEING_ZERO_NS + 300 * 24 * 3_600_000_000_000;
    const DAY: i64 = 24 * 3_600_000_000_000;
    const HOUR: i64 = 3_600_000_000_000;

    fn class(path: &str) -> String {
        Scorer::new(Weights::default())
            .score(path.as_bytes(), 1, NOW_NS, NOW_NS)
            .0
            .to_owned()
    }

    #[test]
    fn the_default_rules_name_the_classes() {
        for (path, expected) in [
            ("/home/ada/Thesis.DOCX", "document"),
            ("/home/ada/notes.md", "document"),
            ("/home/ada/photos/2020/IMG_1.CR3", "photo"),
            ("/home/ada/film.mkv", "media"),
            ("/home/ada/code/app/node_modules/x/readme.md", "cache"),
            ("/home/ada/.cache/thumbs/a.png", "cache"),
            ("/var/cache/apt/archives/x", "cache"),
            ("/usr/share/doc/x.pdf", "system"),
            ("/home/usr/x.pdf", "document"),
            ("/home/ada/src/main.rs", "source"),
            ("/home/ada/unknown", CLASS_OTHER),
        ] {
            assert_eq!(class(path), expected, "{path}");
        }
    }

    #[test]
    fn a_path_that_is_no_text_gets_a_class() {
        let scorer = Scorer::new(Weights::default());
        assert_eq!(scorer.score(b"/home/\xff\xfe.pdf", 1, 0, NOW_NS).0, "document");
    }

    #[test]
    fn a_part_is_a_summand_of_the_total() {
        let (_, score) = Scorer::new(Weights::default()).score(b"/a.pdf", 1000, NOW_NS - DAY, NOW_NS);
        assert_eq!(score.total, score.recency + score.size + score.class + score.ageing);
    }

    #[test]
    fn a_broken_rule_is_left_out_and_named() {
        let mut weights = Weights::default();
        weights.rules.insert(
            0,
            Rule {
                pattern: "*.{pdf".into(),
                class: "x".into(),
                points: 1.0,
            },
        );
        assert!(matches!(weights.check(), Err(WeightsError::Pattern { pattern, .. }) if pattern == "*.{pdf"));
        weights.ageing_per_hour = f64::NAN;
        let scorer = Scorer::new(weights);
        let (class, score) = scorer.score(b"/a.pdf", 1, NOW_NS, NOW_NS);
        assert_eq!(class, "document");
        assert!(score.total.is_finite());
    }

    /// The numbers of docs/priority.md are those of the code.
    #[test]
    fn the_documented_weights_are_the_defaults() {
        let docs = include_str!("../../docs/priority.md");
        let weights = Weights::default();
        weights.check().expect("the defaults can be used");
        for line in [
            format!("recency = {:.1}", weights.recency),
            format!("smallness = {:.1}", weights.smallness),
            format!("ageing_per_hour = {:.1}", weights.ageing_per_hour),
        ] {
            assert!(docs.contains(&line), "{line}");
        }
        for rule in &weights.rules {
            let row = format!("| `{}` | {} | {:+} |", rule.pattern, rule.class, rule.points);
            assert!(docs.contains(&row), "{row}");
        }
        let bound = format!("after {:.0} hours", weights.wait_hours_max());
        assert!(docs.contains(&bound), "{bound}");
    }

    proptest! {
        #[test]
        fn yesterdays_small_document_outranks_an_old_large_video(
            document_kib in 0u64..1024, video_mib in 300u64..100_000, video_age_days in 30i64..5000, enqueued_between_h in 0i64..24,
        ) {
            let scorer = Scorer::new(Weights::default());
            let later = NOW_NS + enqueued_between_h * HOUR;
            let document = scorer.score(b"/home/a/letter.odt", document_kib << 10, later - DAY, later).1;
            let video = scorer.score(b"/home/a/film.mp4", video_mib << 20, NOW_NS - video_age_days * DAY, NOW_NS).1;
            prop_assert!(document.total > video.total);
        }

        #[test]
        fn an_old_video_that_waited_long_enough_outranks_new_documents(
            video_mib in 300u64..100_000, video_age_days in 30i64..5000, document_bytes in 0u64..1_000_000,
        ) {
            let weights = Weights::default();
            let later = NOW_NS + (weights.wait_hours_max() as i64 + 1) * HOUR;
            let scorer = Scorer::new(weights);
            let video = scorer.score(b"/film.mp4", video_mib << 20, NOW_NS - video_age_days * DAY, NOW_NS).1;
            let document = scorer.score(b"/letter.odt", document_bytes, later, later).1;
            prop_assert!(video.total > document.total);
        }

        #[test]
        fn no_job_starves_whatever_the_weights(
            recency in 0.0f64..1000.0, smallness in 0.0f64..1000.0, ageing_per_hour in 0.1f64..10.0,
            points in -500.0f64..500.0, bytes in any::<u64>(), other_bytes in any::<u64>(),
            mtime_ns in any::<i64>(), other_mtime_ns in any::<i64>(), swap in any::<bool>(),
        ) {
            let rules = vec![Rule { pattern: "*.x".into(), class: "x".into(), points }];
            let weights = Weights { recency, smallness, ageing_per_hour, rules };
            let later = NOW_NS + ((weights.wait_hours_max() + 1.0) * HOUR_NS) as i64;
            let scorer = Scorer::new(weights);
            let (path, other): (&[u8], &[u8]) = if swap { (b"/a.x", b"/b") } else { (b"/a", b"/b.x") };
            let waiting = scorer.score(path, bytes, mtime_ns, NOW_NS).1;
            let newcomer = scorer.score(other, other_bytes, other_mtime_ns, later).1;
            prop_assert!(waiting.total > newcomer.total);
        }
    }
}
