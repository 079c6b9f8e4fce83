//! One home of gridbackup and the real program working in it.

use std::ffi::OsStr;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::LazyLock;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::s3::KEYS;

/// The program under test: `$GRIDBACKUP`, or the one that cargo built beside this test. Where only root can reach it (a checkout
/// below `/root`), a copy of it that every user can: some tests work as another one.
pub fn program() -> PathBuf {
    static REACHED: LazyLock<PathBuf> = LazyLock::new(|| {
        let built = built();
        match reachable(&built) {
            true => built,
            false => copied(&built).expect("a copy of the program in the folder for temporary files"),
        }
    });
    REACHED.clone()
}

fn reachable(program: &Path) -> bool {
    let opens = |dir: &Path| std::fs::metadata(dir).is_ok_and(|meta| meta.permissions().mode() & 0o001 != 0);
    !crate::fixture::is_root_user() || program.ancestors().skip(1).all(opens)
}

/// One copy for all runs of these tests with this build.
fn copied(program: &Path) -> std::io::Result<PathBuf> {
    let meta = std::fs::metadata(program)?;
    let name = format!("gridbackup-tests-{}-{}", meta.ino(), meta.mtime());
    let (copy, new) = (
        std::env::temp_dir().join(&name),
        std::env::temp_dir().join(format!("{name}.{}", std::process::id())),
    );
    if !copy.exists() {
        std::fs::copy(program, &new)?;
        std::fs::rename(&new, &copy)?;
    }
    Ok(copy)
}

fn built() -> PathBuf {
    if let Some(path) = std::env::var_os("GRIDBACKUP") {
        return path.into();
    }
    let test = std::env::current_exe().expect("a running test has a path");
    let built = test.parent().and_then(Path::parent).map(|dir| dir.join("gridbackup"));
    built
        .filter(|path| path.exists())
        .expect("run `cargo test --workspace`, which builds gridbackup, or set GRIDBACKUP")
}

/// What a finished command said.
#[derive(Debug)]
pub struct Said {
    /// Exit code; `None` if a signal ended it.
    pub code: Option<i32>,
    /// Standard output, line by line as JSON.
    pub lines: Vec<Value>,
    /// Standard error.
    pub stderr: String,
}

impl Said {
    /// The last line of standard output.
    pub fn last(&self) -> &Value {
        self.lines.last().unwrap_or(&Value::Null)
    }
    /// A number in the last line.
    pub fn number(&self, key: &str) -> u64 {
        self.last()[key]
            .as_u64()
            .unwrap_or_else(|| panic!("no number `{key}` in {}", self.last()))
    }
    /// A text in the last line.
    pub fn text(&self, key: &str) -> &str {
        self.last()[key]
            .as_str()
            .unwrap_or_else(|| panic!("no text `{key}` in {}", self.last()))
    }
}

/// A home.
#[derive(Clone, Debug)]
pub struct Home {
    /// Its folder.
    pub dir: PathBuf,
    /// The network namespace that its processes run in; none: the test's own.
    pub space: Option<String>,
    /// A command that runs its processes, the program's path and arguments behind it; none if empty.
    pub prefix: Vec<String>,
    /// Variables that its processes have besides the test's own.
    pub env: Vec<(String, String)>,
}

impl Home {
    /// A home in `dir`, not initialised yet.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            space: None,
            prefix: Vec::new(),
            env: Vec::new(),
        }
    }

    /// The same home, its processes in a network namespace.
    pub fn within(self, space: String) -> Self {
        Self {
            space: Some(space),
            ..self
        }
    }

    /// A home in `dir` with an account; mDNS is off, so that tests do not find each other. The phrase lies in
    /// `<dir>.words`.
    pub fn init(dir: impl Into<PathBuf>, name: &str, tolerate: u8) -> Result<Self> {
        let home = Self::new(dir);
        let words = home.words();
        home.ok([
            "init",
            "--name",
            name,
            "--tolerate",
            &tolerate.to_string(),
            "--phrase-out",
            path_str(&words)?,
        ])?;
        home.ok(["config", "set", "mdns", "false"])?;
        home.ok(["config", "set", "upnp", "false"])?;
        Ok(home)
    }

    /// Where `init` wrote the phrase.
    pub fn words(&self) -> PathBuf {
        self.dir.with_extension("words")
    }

    /// The program, told to work in this home and to speak JSON; it has the keys of the kit's S3 servers.
    pub fn command<I: IntoIterator<Item = S>, S: AsRef<OsStr>>(&self, args: I) -> Command {
        let mut command = match &self.space {
            None => match self.prefix.split_first() {
                None => Command::new(program()),
                Some((first, rest)) => {
                    let mut command = Command::new(first);
                    command.args(rest).arg(program());
                    command
                }
            },
            Some(space) => {
                let mut command = Command::new("ip");
                command.args(["netns", "exec", space]).arg(program());
                command
            }
        };
        command
            .envs(self.env.iter().cloned())
            .env("GRIDBACKUP_HOME", &self.dir)
            .env("AWS_ACCESS_KEY_ID", KEYS.0)
            .env("AWS_SECRET_ACCESS_KEY", KEYS.1)
            .args(args)
            .arg("--json")
            .stdin(Stdio::null());
        command
    }

    /// Runs a command to its end.
    pub fn say<I: IntoIterator<Item = S>, S: AsRef<OsStr>>(&self, args: I) -> Result<Said> {
        said(self.command(args).output().context("start gridbackup")?)
    }

    /// Runs a command that must exit with 0.
    pub fn ok<I: IntoIterator<Item = S>, S: AsRef<OsStr>>(&self, args: I) -> Result<Said> {
        self.exits(0, args)
    }

    /// Runs a command that must exit with `code`.
    pub fn exits<I: IntoIterator<Item = S>, S: AsRef<OsStr>>(&self, code: i32, args: I) -> Result<Said> {
        let args: Vec<_> = args.into_iter().map(|arg| arg.as_ref().to_owned()).collect();
        let said = self.say(&args)?;
        if said.code != Some(code) {
            bail!(
                "gridbackup {args:?} exited with {:?} instead of {code}: {} {}",
                said.code,
                said.last(),
                said.stderr
            );
        }
        Ok(said)
    }
}

/// Parses what a finished process left behind.
pub fn said(output: Output) -> Result<Said> {
    let lines = output
        .stdout
        .split(|&byte| byte == b'\n')
        .filter(|line| !line.is_empty());
    Ok(Said {
        code: output.status.code(),
        lines: lines
            .map(|line| serde_json::from_slice(line).unwrap_or(Value::Null))
            .collect(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

/// A path as text, for arguments.
pub fn path_str(path: &Path) -> Result<&str> {
    path.to_str().context("test folders have UTF-8 names")
}
