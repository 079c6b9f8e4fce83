//! What is logged, as stderr gets it: a line each, without colours; a JSON object each with `--json`.
//!
//! A command's lines look like its other problems; a daemon's begin with the time, as they end up in a log.

use std::fmt;

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use crate::render::clean;
use crate::stderr;

/// How much is logged, and how.
#[derive(Clone, Copy, Debug)]
pub struct LogOptions {
    /// `-v`: 1, `-vv`: 2.
    pub verbose: u8,
    /// Only errors.
    pub quiet: bool,
    /// JSON lines.
    pub json: bool,
    /// With the time.
    pub dated: bool,
}

/// Our own crates: what others log at the level of warnings is for their authors.
const OURS: [&str; 14] = [
    "node",
    "engine",
    "mount",
    "friendnet",
    "stores",
    "api",
    "publish",
    "backup",
    "upload_queue",
    "s3",
    "proto",
    "watch",
    "database",
    "durable",
];

/// Logs to stderr from now on; `GRIDBACKUP_LOG` overrides what.
pub fn to_stderr(options: LogOptions) {
    let filter = match (options.quiet, options.verbose) {
        (true, _) => "error".to_owned(),
        (_, 0) => OURS
            .iter()
            .fold("error".to_owned(), |all, ours| all + "," + ours + "=warn"),
        // fuser warns, without a name, of each mount that was unmounted before its session was dropped.
        (_, 1) => "info,libp2p=warn,fuser::session=error".to_owned(),
        (_, _) => "debug,libp2p=info".to_owned(),
    };
    let filter = EnvFilter::try_from_env("GRIDBACKUP_LOG").unwrap_or_else(|_| EnvFilter::new(filter));
    let _set_before = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(false)
        .event_format(Lines {
            json: options.json,
            dated: options.dated,
        })
        .with_writer(|| stderr::Lines)
        .try_init();
}

struct Lines {
    json: bool,
    dated: bool,
}

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut to: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut said = Said::default();
        event.record(&mut said);
        to.write_str(&self.line(event.metadata().level(), &said.text()))?;
        to.write_char('\n')
    }
}

impl Lines {
    fn line(&self, level: &Level, text: &str) -> String {
        let level = match *level {
            Level::ERROR => "error",
            Level::WARN => "warning",
            Level::INFO => "info",
            Level::DEBUG => "debug",
            Level::TRACE => "trace",
        };
        // To the second: nothing here happens faster that a reader could act on.
        let now = || jiff::Timestamp::from_second(jiff::Timestamp::now().as_second()).unwrap_or_default();
        if self.json {
            let object = serde_json::json!({"message_type": "log", "time": now(), "level": level, "text": text});
            return object.to_string();
        }
        match self.dated {
            true => format!("{} {level}: {}", now(), clean(text)),
            false if level == "error" => format!("gridbackup: {}", clean(text)),
            false => format!("gridbackup: {level}: {}", clean(text)),
        }
    }
}

/// A message and its fields.
#[derive(Default)]
struct Said {
    message: String,
    fields: Vec<String>,
}

impl Said {
    fn text(&self) -> String {
        match (self.message.is_empty(), self.fields.is_empty()) {
            (_, true) => self.message.clone(),
            (true, false) => self.fields.join(", "),
            (false, false) => format!("{} ({})", self.message, self.fields.join(", ")),
        }
    }
}

impl Visit for Said {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        match field.name() {
            "message" => self.message = format!("{value:?}"),
            name => self.fields.push(format!("{name}: {value:?}")),
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "message" => self.message = value.to_owned(),
            name => self.fields.push(format!("{name}: {value}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_one_line_without_colours() {
        let said = Said {
            message: "a peer did not\ntake a share".to_owned(),
            fields: vec!["peer: \x1b[31musb".to_owned()],
        };
        let lines = |json, dated| Lines { json, dated }.line(&Level::WARN, &said.text());
        assert_eq!(
            lines(false, false),
            r"gridbackup: warning: a peer did not\ntake a share (peer: \u{1b}[31musb)"
        );
        assert!(
            lines(false, true).contains("Z warning: a peer"),
            "{}",
            lines(false, true)
        );
        let json: serde_json::Value = serde_json::from_str(&lines(true, true)).unwrap();
        assert_eq!(
            (&json["message_type"], &json["level"]),
            (&"log".into(), &"warning".into())
        );
    }
}
