//! Shows outputs: tables and sentences for people, a JSON object a line for scripts, content as it is.
//!
//! Answers go to stdout; progress, problems and failures to stderr. Writing to a reader that went away is an error that
//! the caller ends quietly on, never a panic.

use std::io::{self, BufWriter, IsTerminal, Write};

use jiff::Timestamp;
use jiff::tz::TimeZone;

mod disk;
mod history;
mod peer_removal;
mod progress;
mod qr;
mod status;
mod summary;
mod table;
mod text;
mod words;

use self::progress::Bar;
use self::table::Table;
pub use self::words::clean;
use api::failure::Failure;
use api::message::Message;
use api::output::Output;

use crate::stderr;

/// How to show.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RenderOptions {
    /// JSON lines.
    pub json: bool,
    /// Only what was asked for, and failures.
    pub quiet: bool,
    /// Causes, too.
    pub verbose: bool,
    /// No progress, whatever stderr is.
    pub no_progress: bool,
    /// A setting's value alone, without its key.
    pub bare_setting: bool,
    /// Of a status only the verdict and what to do next.
    pub brief: bool,
    /// Of a disk all that is known.
    pub long: bool,
}

/// How text is written: what it depends on besides the message.
#[derive(Clone, Debug)]
pub struct Style {
    /// With colours.
    pub color: bool,
    /// On a screen, where tickets are shown as QR codes, too.
    pub screen: bool,
    /// Now: ages are counted from it.
    pub now: Timestamp,
    /// The reader's time zone.
    pub zone: TimeZone,
    /// A setting's value alone.
    pub bare_setting: bool,
    /// Of a status only the verdict and what to do next.
    pub brief: bool,
    /// Of a disk all that is known.
    pub long: bool,
}

/// Shows outputs as they come.
pub struct Renderer<W: Write> {
    options: RenderOptions,
    style: Style,
    out: W,
    table: Table,
    bar: Option<Bar>,
}

impl Renderer<BufWriter<io::Stdout>> {
    /// On this process's stdout and stderr.
    pub fn stdout(options: RenderOptions) -> Self {
        let screen = io::stdout().is_terminal();
        let color = screen && wants_color();
        let bar = !options.json && !options.quiet && !options.no_progress && io::stderr().is_terminal();
        let style = Style {
            color,
            screen,
            now: Timestamp::now(),
            zone: TimeZone::system(),
            bare_setting: options.bare_setting,
            brief: options.brief,
            long: options.long,
        };
        Self::new(options, style, BufWriter::new(io::stdout()), bar.then(Bar::new))
    }
}

/// <https://no-color.org>: set and not empty means no.
fn wants_color() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
        && std::env::var_os("TERM").is_none_or(|value| value != "dumb")
}

impl<W: Write> Renderer<W> {
    fn new(options: RenderOptions, style: Style, out: W, bar: Option<Bar>) -> Self {
        Self {
            options,
            style,
            out,
            table: Table::default(),
            bar,
        }
    }

    /// Shows one output; it may be buffered until `flush`.
    pub fn show(&mut self, output: &Output) -> io::Result<()> {
        match output {
            Output::Bytes(bytes) => self.out.write_all(bytes),
            Output::Message(Message::Progress(progress)) => {
                if let Some(bar) = &mut self.bar {
                    bar.set(progress);
                }
                Ok(())
            }
            Output::Message(message) if self.options.json => {
                serde_json::to_writer(&mut self.out, message)?;
                self.out.write_all(b"\n")
            }
            Output::Message(Message::Problem(problem)) => {
                self.aside(&text::problem(problem));
                Ok(())
            }
            Output::Message(message) => self.show_text(message),
        }
    }

    fn show_text(&mut self, message: &Message) -> io::Result<()> {
        if self.options.quiet && text::is_chatter(message) {
            return Ok(());
        }
        if let Message::Removal(removal) = message
            && !removal.dry_run
            && !self.options.verbose
        {
            return Ok(());
        }
        if let Some(row) = text::row(message, &self.style) {
            return self.table.push(row, &mut self.out, self.style.color);
        }
        self.table.flush(&mut self.out, self.style.color)?;
        self.out.write_all(text::text(message, &self.style).as_bytes())
    }

    /// Writes out what is buffered.
    pub fn flush(&mut self) -> io::Result<()> {
        let Self {
            table, out, style, bar, ..
        } = self;
        let mut write = || {
            table.flush(out, style.color)?;
            out.flush()
        };
        match bar {
            Some(bar) => bar.suspend(write),
            None => write(),
        }
    }

    /// Writes out everything and takes the progress bar away.
    pub fn finish(&mut self) -> io::Result<()> {
        if let Some(bar) = self.bar.take() {
            bar.finish();
        }
        self.flush()
    }

    /// One line to stderr, above the progress bar.
    fn aside(&self, line: &str) {
        match &self.bar {
            Some(bar) => bar.above(line),
            None => stderr::line(line),
        }
    }
}

/// A failure as stderr gets it: one line, with the causes below it if asked for; or a JSON object.
pub fn failure(failure: &Failure, options: RenderOptions) -> String {
    if options.json {
        let message = Message::Error(failure.clone());
        return serde_json::to_string(&message).unwrap_or_else(|error| error.to_string());
    }
    let mut text = format!("gridbackup: {}", clean(&failure.to_string()));
    if options.verbose {
        for cause in &failure.causes {
            text.push_str(&format!("\n  because: {}", clean(cause)));
        }
    }
    text
}

#[cfg(test)]
mod tests;
