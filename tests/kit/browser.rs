//! Headless Chromium, as Debian's package `chromium` installs it.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

/// Names that it goes by; `$GRIDBACKUP_BROWSER` names another.
const NAMES: [&str; 4] = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];

/// Why no page can be looked at here; `None`: one can.
pub fn missing() -> Option<String> {
    let why = || "there is no browser: install Debian's package chromium, or name one in GRIDBACKUP_BROWSER".to_owned();
    browser().is_none().then(why)
}

fn browser() -> Option<String> {
    let is_there = |name: &&str| {
        let version = Command::new(name)
            .arg("--version")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        version.is_ok_and(|status| status.success())
    };
    let named = std::env::var("GRIDBACKUP_BROWSER").ok();
    named.or_else(|| NAMES.into_iter().find(is_there).map(str::to_owned))
}

/// The document of a page when its scripts have come to rest, as HTML; `dir` is for what the browser keeps.
pub fn rendered(url: &str, dir: &Path) -> Result<String> {
    let browser = browser().context("no browser")?;
    let output = Command::new(&browser)
        .args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--no-first-run",
        ])
        .args([
            "--disable-background-networking",
            "--disable-component-update",
            "--no-proxy-server",
        ])
        .arg(format!("--user-data-dir={}", dir.join("browser").display()))
        .args(["--virtual-time-budget=30000", "--dump-dom", url])
        .stdin(Stdio::null())
        .output()?;
    let (html, said) = (
        String::from_utf8(output.stdout)?,
        String::from_utf8_lossy(&output.stderr),
    );
    ensure!(
        output.status.success() && html.contains("<html"),
        "{browser}: {} {said}",
        output.status
    );
    Ok(html)
}

/// The text of the element with this identifier, which has no elements inside.
pub fn text_of(html: &str, id: &str) -> Result<String> {
    let (_, rest) = html
        .split_once(&format!("id=\"{id}\""))
        .with_context(|| format!("no {id} in {html}"))?;
    let (_, rest) = rest.split_once('>').context("a tag ends")?;
    let (text, _) = rest.split_once("</").context("an element ends")?;
    Ok(text
        .replace("&lt;", "<")
        .replace("&gt;", ">")
        .replace("&nbsp;", "\u{a0}")
        .replace("&amp;", "&"))
}
