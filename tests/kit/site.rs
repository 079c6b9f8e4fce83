//! A folder that is published to a bucket, by one publisher or several.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::ops::Deref;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use rustix::process::{Pid, Signal, kill_process};
use s3::{Client, Condition, Headers, ListOptions, Stored};

use crate::home::{Home, Said, path_str};
use crate::s3::{Kind, Server, location};
use crate::s3_proxy::{Faults, Passed, S3Proxy};

/// What all keys of a site begin with, and `/`.
pub const PREFIX: &str = "www";
/// The lock's key.
pub const LOCK: &[u8] = b"www/.gridbackup-lock";
/// Two of three are assets, one is a page.
pub const FILES: usize = 90;
/// Longest wait for something that happens in a second.
const PATIENCE: Duration = Duration::from_secs(60);

/// Somebody with a tree and an inventory of his own.
#[derive(Clone, Debug)]
pub struct Publisher {
    /// Where the inventory is.
    pub home: Home,
    /// The tree.
    pub root: PathBuf,
    /// `HOST:PORT` of the server, or of a proxy before it.
    pub at: String,
    /// Options of every run.
    pub options: &'static [&'static str],
}

/// A server, its first publisher, and a folder for everything.
pub struct Site {
    /// Its bucket is empty at first.
    pub server: Server,
    /// For looking at the bucket.
    pub client: Client,
    /// Who publishes, straight to the server.
    pub publisher: Publisher,
    /// Goes with the site.
    pub dir: tempfile::TempDir,
}

impl Deref for Site {
    type Target = Publisher;

    fn deref(&self) -> &Publisher {
        &self.publisher
    }
}

impl Publisher {
    /// The same one, who reaches the server there.
    pub fn through(&self, at: &str) -> Self {
        Self {
            at: at.to_owned(),
            ..self.clone()
        }
    }

    fn words<'a>(&'a self, verb: &'a str, location: &'a str, args: &[&'a str]) -> Result<Vec<&'a str>> {
        let words = ["publish", verb, path_str(&self.root)?, location];
        let words = words.into_iter().filter(|word| !word.is_empty());
        Ok(words
            .chain(self.options.iter().copied())
            .chain(args.iter().copied())
            .collect())
    }

    /// `publish`, or `publish VERB`; not started yet.
    pub fn command(&self, verb: &str, args: &[&str]) -> Result<Command> {
        Ok(self.home.command(self.words(verb, &location(PREFIX, &self.at), args)?))
    }

    /// Publishes, or another `verb`; must exit with `code`.
    pub fn run(&self, verb: &str, code: i32, args: &[&str]) -> Result<Said> {
        self.home
            .exits(code, self.words(verb, &location(PREFIX, &self.at), args)?)
    }

    /// Publishes; must exit with `code`.
    pub fn publish(&self, code: i32, args: &[&str]) -> Result<Said> {
        self.run("", code, args)
    }

    /// Begins to publish, or another `verb`.
    pub fn begin(&self, verb: &str, args: &[&str]) -> Result<Child> {
        let mut command = self.command(verb, args)?;
        Ok(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?)
    }

    /// Publishes through `proxy` until a request that contains `hold` is on its way, and is killed there. The request stays.
    pub fn killed_at(&self, proxy: &S3Proxy, hold: &str, args: &[&str]) -> Result<()> {
        proxy.set(Faults {
            hold: Some(hold.to_owned()),
            ..Faults::default()
        });
        let mut child = self.begin("", args)?;
        wait_until("the request", || Ok(proxy.held() >= 1))?;
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    /// `publish restore`; not started yet.
    pub fn restoring(&self, target: &Path, args: &[&str]) -> Result<Command> {
        let location = location(PREFIX, &self.at);
        let words = ["publish", "restore", location.as_str(), path_str(target)?];
        Ok(self.home.command(words.iter().chain(args)))
    }

    /// Restores; must exit with `code`.
    pub fn restore(&self, target: &Path, code: i32, args: &[&str]) -> Result<Said> {
        let location = location(PREFIX, &self.at);
        let words = ["publish", "restore", location.as_str(), path_str(target)?];
        self.home.exits(code, words.iter().chain(args))
    }

    /// Writes a file of the tree.
    pub fn touch(&self, name: &str, text: &str) -> Result<()> {
        Ok(std::fs::write(self.root.join(name), text)?)
    }
}

impl Site {
    /// With so many files in seven folders.
    pub fn start(kind: Kind, files: usize) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let server = Server::start(kind, dir.path())?;
        let root = dir.path().join("site");
        std::fs::create_dir(&root)?;
        for number in 0..files {
            write(&root, name(number).as_bytes(), number)?;
        }
        let publisher = Publisher {
            home: Home::new(dir.path().join("home")),
            root,
            at: server.at.clone(),
            options: &[],
        };
        Ok(Self {
            client: server.client()?,
            server,
            publisher,
            dir,
        })
    }

    /// Another publisher, with the same tree as the first and an inventory of his own.
    pub fn another(&self, name: &str, at: &str) -> Result<Publisher> {
        let root = self.dir.path().join(name);
        for (name, bytes) in files(&self.root)? {
            let path = root.join(OsStr::from_bytes(&name));
            std::fs::create_dir_all(path.parent().context("a file lies in a folder")?)?;
            std::fs::write(path, bytes)?;
        }
        Ok(Publisher {
            home: Home::new(self.dir.path().join(format!("home-{name}"))),
            root,
            at: at.to_owned(),
            options: self.options,
        })
    }

    /// A file of routes; gives its name.
    pub fn routes(&self, text: &str) -> Result<String> {
        let routes = self.dir.path().join("routes.toml");
        std::fs::write(&routes, text)?;
        Ok(path_str(&routes)?.to_owned())
    }

    /// Puts an object as somebody else would.
    pub async fn put(&self, key: &str, text: &'static str) -> Result<Stored> {
        let (body, headers) = (Bytes::from(text), Headers::default());
        Ok(self
            .client
            .put(key.as_bytes(), body, &headers, &Condition::Always)
            .await?)
    }

    /// Contents of all objects by name.
    pub async fn objects(&self) -> Result<BTreeMap<Vec<u8>, Bytes>> {
        let mut options = ListOptions {
            prefix: b"www/".to_vec(),
            ..ListOptions::default()
        };
        let mut objects = BTreeMap::new();
        loop {
            let batch = self.client.list(&options).await?;
            for object in batch.objects.into_iter().filter(|object| object.key != LOCK) {
                let got = self.client.get(&object.key, None, 64 << 20).await?;
                objects.insert(object.key[b"www/".len()..].to_vec(), got.bytes);
            }
            match batch.next {
                Some(token) => options.token = Some(token),
                None => return Ok(objects),
            }
        }
    }

    /// The bucket has exactly the files of the first publisher.
    pub async fn assert_same(&self) -> Result<()> {
        self.assert_is(&self.root).await
    }

    /// The bucket has exactly the files of `root`.
    pub async fn assert_is(&self, root: &Path) -> Result<()> {
        let (objects, files) = (self.objects().await?, files(root)?);
        let differ: Vec<_> = files
            .iter()
            .filter(|(name, bytes)| objects.get(*name) != Some(bytes))
            .collect();
        ensure!(
            differ.is_empty() && objects.len() == files.len(),
            "{} objects, differing: {differ:?}",
            objects.len()
        );
        Ok(())
    }
}

/// Name of a site's file.
pub fn name(number: usize) -> String {
    format!("d{}/file {number}.{}", number % 7, ["css", "html", "bin"][number % 3])
}

/// Contents of all files by name.
pub fn files(root: &Path) -> Result<BTreeMap<Vec<u8>, Bytes>> {
    let mut files = BTreeMap::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(root)?.as_os_str().as_bytes().to_vec();
                files.insert(name, std::fs::read(path)?.into());
            }
        }
    }
    Ok(files)
}

/// Writes a file whose contents follow from `number`.
pub fn write(root: &Path, name: &[u8], number: usize) -> Result<()> {
    let path = root.join(OsStr::from_bytes(name));
    std::fs::create_dir_all(path.parent().context("a file lies in a folder")?)?;
    Ok(std::fs::write(path, format!("{number} ").repeat(number + 1))?)
}

/// Waits for something that happens in a second.
pub fn wait_until(what: &str, mut is_so: impl FnMut() -> Result<bool>) -> Result<()> {
    let started = Instant::now();
    while !is_so()? {
        ensure!(started.elapsed() < PATIENCE, "{what} does not come");
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// Lets the request go that is held back; gives it with what the server said.
pub fn let_go(proxy: &S3Proxy) -> Result<Passed> {
    let before = proxy.passed().len();
    proxy.set(Faults::default());
    wait_until("the answer to what was held back", || Ok(proxy.passed().len() > before))?;
    let passed = proxy.passed().split_off(before);
    ensure!(passed.len() == 1, "{passed:?}");
    passed.into_iter().next().context("one passed")
}

/// Sends a signal.
pub fn signal(child: &Child, signal: Signal) -> Result<()> {
    let pid = Pid::from_raw(child.id().try_into()?).context("a child has a number")?;
    Ok(kill_process(pid, signal)?)
}
