//! At the end of a run: the CDN forgets what was changed, and the user's command hears of it. Who could not be told is told by the
//! next run.

use std::io::{BufWriter, ErrorKind, Write};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use s3::{Client, Distribution, INVALIDATION_PATHS_MAX};

use crate::invalidation::paths;
use crate::inventory::{Change, Inventory, InventoryError, Listener};
use crate::options::{Cloudfront, Hook, KeyFormat};

/// Somebody did not hear of the changes.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AnnounceError {
    #[error(transparent)]
    Inventory(#[from] InventoryError),
    #[error("{0}")]
    Cloudfront(#[from] s3::Error),
    #[error("none of its origins is the bucket `{0}`; --cloudfront ID:/PATH says what it puts before paths")]
    NoOrigin(String),
    #[error("it cannot be run: {0}")]
    Io(#[from] std::io::Error),
    #[error("it ended with {0}")]
    Hook(std::process::ExitStatus),
}

/// Tells CloudFront; says which paths.
pub(crate) async fn tell_cloudfront(
    inventory: &Arc<Inventory>,
    client: &Client,
    options: &Cloudfront,
) -> Result<Vec<String>, AnnounceError> {
    if inventory.pending_count(Listener::Cdn)? == 0 {
        return Ok(Vec::new());
    }
    let distribution = Distribution::new(&options.distribution, &s3::Options::default())?;
    let starts = match &options.origin_path {
        Some(path) => vec![path.clone()],
        None => {
            let bucket = &client.location().bucket;
            let is_ours = |domain: &str| domain == bucket || domain.starts_with(&format!("{bucket}.s3"));
            let origins = distribution.origins().await?.into_iter();
            let starts: Vec<_> = origins
                .filter(|origin| is_ours(&origin.domain))
                .map(|origin| origin.path)
                .collect();
            if starts.is_empty() {
                return Err(AnnounceError::NoOrigin(bucket.clone()));
            }
            starts
        }
    };
    let mut all = Vec::new();
    for start in starts {
        let (inventory, paths_max) = (inventory.clone(), options.paths_max.clamp(1, INVALIDATION_PATHS_MAX));
        let working = tokio::task::spawn_blocking(move || changed(&inventory, &start, paths_max));
        let found = working.await.map_err(std::io::Error::other)??;
        if !found.is_empty() {
            distribution.invalidate(&found, &reference(&found)).await?;
        }
        all.extend(found);
    }
    inventory.told(Listener::Cdn)?;
    Ok(all)
}

/// Paths to be forgotten, of keys that begin with what the origin puts before paths.
fn changed(inventory: &Inventory, start: &str, paths_max: usize) -> Result<Vec<String>, InventoryError> {
    let start = start.trim_matches('/');
    let start = if start.is_empty() {
        String::new()
    } else {
        format!("{start}/")
    };
    let keys = || {
        inventory.pending(Listener::Cdn).filter_map(|pending| match pending {
            Ok((key, _)) => key.strip_prefix(start.as_bytes()).map(|key| Ok(key.to_vec())),
            Err(error) => Some(Err(error)),
        })
    };
    paths(keys, paths_max)
}

/// Another for each invalidation: with one that was used before, CloudFront would do nothing.
fn reference(paths: &[String]) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let text = format!("{now:?} {} {}", std::process::id(), paths.join(" "));
    format!("gridbackup-{}", &blake3::hash(text.as_bytes()).to_hex()[..24])
}

/// Runs the user's command, if there is something to tell; says whether it ran. It is not stopped when this is dropped.
pub(crate) async fn run_hook(inventory: &Arc<Inventory>, client: &Client, hook: &Hook) -> Result<bool, AnnounceError> {
    if inventory.pending_count(Listener::Hook)? == 0 {
        return Ok(false);
    }
    let mut command = Command::new("sh");
    let location = client.location();
    command
        .args(["-c", &hook.command])
        .env("GRIDBACKUP_BUCKET", &location.bucket)
        .env("GRIDBACKUP_PREFIX", &location.prefix)
        .env("GRIDBACKUP_URL", client.url())
        .stdin(Stdio::piped())
        // Ours is for answers that programs read.
        .stdout(Stdio::from(std::io::stderr()));
    let (own, format) = (inventory.clone(), hook.format);
    let running = tokio::task::spawn_blocking(move || run(&own, command, format));
    running.await.map_err(std::io::Error::other)??;
    inventory.told(Listener::Hook)?;
    Ok(true)
}

fn run(inventory: &Inventory, mut command: Command, format: KeyFormat) -> Result<(), AnnounceError> {
    let mut child = command.spawn()?;
    let written = child
        .stdin
        .take()
        .map_or(Ok(()), |stdin| write_keys(inventory, stdin, format));
    let status = child.wait()?;
    match written {
        // Whoever does not want to know need not read.
        Err(AnnounceError::Io(error)) if error.kind() == ErrorKind::BrokenPipe => {}
        written => written?,
    }
    if status.success() {
        Ok(())
    } else {
        Err(AnnounceError::Hook(status))
    }
}

fn write_keys(inventory: &Inventory, into: impl Write, format: KeyFormat) -> Result<(), AnnounceError> {
    let mut into = BufWriter::new(into);
    for pending in inventory.pending(Listener::Hook) {
        let (key, change) = pending?;
        match format {
            KeyFormat::Lines => into.write_all(&key).and_then(|()| into.write_all(b"\n"))?,
            KeyFormat::Nul => into.write_all(&key).and_then(|()| into.write_all(b"\0"))?,
            KeyFormat::Json => {
                let change = match change {
                    Change::Added => "added",
                    Change::Updated => "updated",
                    Change::Deleted => "deleted",
                };
                writeln!(into, "{{\"change\":\"{change}\",\"key\":\"{}\"}}", json(&key))?;
            }
        }
    }
    Ok(into.flush()?)
}

/// The inside of a JSON string. Keys that were published are UTF-8.
fn json(key: &[u8]) -> String {
    let mut text = String::new();
    for char in String::from_utf8_lossy(key).chars() {
        match char {
            '"' | '\\' => text.extend(['\\', char]),
            '\0'..='\x1f' => text += &format!("\\u{:04x}", u32::from(char)),
            _ => text.push(char),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inventory::Audience;

    fn inventory(dir: &std::path::Path) -> Inventory {
        let mut inventory = Inventory::open(&dir.join("i.db"), "b").unwrap();
        inventory.audience = Audience { cdn: true, hook: true };
        inventory.doubt(b"www/a\"\n.html", true).unwrap();
        inventory.doubt(b"www/new", false).unwrap();
        inventory.doom(&[b"else/gone".to_vec()]).unwrap();
        inventory
    }

    #[test]
    fn keys_are_written_as_asked() {
        let dir = tempfile::tempdir().unwrap();
        let inventory = inventory(dir.path());
        let written = |format| {
            let mut bytes = Vec::new();
            write_keys(&inventory, &mut bytes, format).unwrap();
            String::from_utf8(bytes).unwrap()
        };
        assert_eq!(written(KeyFormat::Lines), "else/gone\nwww/a\"\n.html\nwww/new\n");
        assert_eq!(written(KeyFormat::Nul), "else/gone\0www/a\"\n.html\0www/new\0");
        assert_eq!(
            written(KeyFormat::Json).lines().collect::<Vec<_>>(),
            [
                r#"{"change":"deleted","key":"else/gone"}"#,
                r#"{"change":"updated","key":"www/a\"\u000a.html"}"#,
                r#"{"change":"added","key":"www/new"}"#,
            ]
        );
    }

    #[test]
    fn paths_are_seen_from_the_origin() {
        let dir = tempfile::tempdir().unwrap();
        let inventory = inventory(dir.path());
        assert_eq!(changed(&inventory, "/www", 9).unwrap(), ["/a%22%0A.html"]);
        assert_eq!(changed(&inventory, "", 9).unwrap(), ["/else/gone", "/www/a%22%0A.html"]);
    }

    #[test]
    fn a_command_that_fails_is_an_error_and_one_that_does_not_read_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let inventory = inventory(dir.path());
        let run = |text: &str| {
            let mut command = Command::new("sh");
            command.args(["-c", text]).stdin(Stdio::piped());
            run(&inventory, command, KeyFormat::Lines)
        };
        assert!(run("exit 0").is_ok() && run("exec <&-; exit 0").is_ok());
        assert_eq!(run("exit 7").unwrap_err().to_string(), "it ended with exit status: 7");
    }
}
