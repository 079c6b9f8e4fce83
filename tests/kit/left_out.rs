//! What a test cannot do on this machine: named, never green in silence. `./check` counts it at its end.

use std::io::Write;

/// Names what this test leaves out, and why: on stderr, past the harness, which shows nothing of tests that pass; and in the file that
/// `$GRIDBACKUP_LEFT_OUT` names, as a line.
pub fn say(why: &str) {
    let thread = std::thread::current();
    let line = format!("{}: {why}\n", thread.name().unwrap_or("a test"));
    let _nobody_reads = write!(std::io::stderr(), "LEFT OUT {line}");
    if let Some(path) = std::env::var_os("GRIDBACKUP_LEFT_OUT") {
        let file = std::fs::File::options().append(true).create(true).open(path);
        let written = file.and_then(|mut file| file.write_all(line.as_bytes()));
        if let Err(error) = written {
            // A test that works as another user may not reach the file; the line above has been said.
            let _nobody_reads = write!(std::io::stderr(), "NOT COUNTED, {error}: {line}");
        }
    }
}

/// Ends a test that cannot run here, if there is a reason why it cannot.
#[macro_export]
macro_rules! needs {
    ($missing:expr) => {
        if let Some(why) = $missing {
            $crate::left_out::say(&why);
            return Ok(());
        }
    };
}
