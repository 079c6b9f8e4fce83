//! What `gridbackup publish` costs with very many keys and nothing changed:
//! `cargo run --release --example keys DIR FILES [FILES-IN-A-FOLDER [ARGUMENTS OF PUBLISH...]]`.
//!
//! Makes a tree of FILES files of one byte in DIR (a folder in memory, so that no disk is measured), fills an inventory as if they had
//! been sent, answers listings with exactly these objects, and runs the program (`$GRIDBACKUP`, or the one built beside this).

use std::error::Error;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use publish::Options;
use s3::{Client, Location};

/// MD5 of "x".
const ETAG: &str = "9dd4e461268c8034f5c8564e155c67a6";
/// Objects in a batch of a listing.
const BATCH_KEYS: u64 = 1000;

/// Keys in the order of their bytes.
#[derive(Clone, Copy)]
struct Tree {
    files: u64,
    in_a_folder: u64,
}

impl Tree {
    fn key(self, number: u64) -> String {
        format!(
            "d{:07}/file{:08}.bin",
            number / self.in_a_folder,
            number % self.in_a_folder
        )
    }

    fn make(self, dir: &Path) -> std::io::Result<()> {
        for number in 0..self.files {
            let path = dir.join(self.key(number));
            if number % self.in_a_folder == 0 {
                std::fs::create_dir_all(path.parent().unwrap_or(dir))?;
            }
            std::fs::write(path, "x")?;
        }
        Ok(())
    }

    /// The batch of the listing that begins with a number.
    fn batch(self, start: u64) -> String {
        let end = (start + BATCH_KEYS).min(self.files);
        let mut xml = String::from("<?xml version=\"1.0\"?>\n<ListBucketResult>");
        for number in start..end {
            let key = self.key(number);
            xml += &format!("<Contents><Key>{key}</Key><ETag>&quot;{ETAG}&quot;</ETag><Size>1</Size></Contents>");
        }
        if end < self.files {
            xml += &format!("<IsTruncated>true</IsTruncated><NextContinuationToken>{end}</NextContinuationToken>");
        }
        xml + "</ListBucketResult>"
    }

    fn answer(self, stream: TcpStream) -> std::io::Result<()> {
        let (mut lines, mut stream) = (BufReader::new(stream.try_clone()?).lines(), stream);
        while let Some(request) = lines.next().transpose()? {
            for line in lines.by_ref() {
                if line?.is_empty() {
                    break;
                }
            }
            let token = request
                .split(['&', '?', ' '])
                .find_map(|part| part.strip_prefix("continuation-token="));
            let batch = self.batch(token.and_then(|token| token.parse().ok()).unwrap_or(0));
            write!(
                stream,
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{batch}",
                batch.len()
            )?;
        }
        Ok(())
    }
}

fn program() -> Result<PathBuf, Box<dyn Error>> {
    if let Some(path) = std::env::var_os("GRIDBACKUP") {
        return Ok(path.into());
    }
    let here = std::env::current_exe()?;
    let beside = here
        .parent()
        .and_then(Path::parent)
        .ok_or("an example lies in a folder")?;
    Ok(beside.join("gridbackup"))
}

/// The most memory that a process had resident so far, in MiB; none: it has ended.
fn peak_mib(pid: u32) -> Option<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: f64 = line.trim().trim_end_matches(" kB").parse().ok()?;
    Some(kib / 1024.0)
}

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [dir, files, rest @ ..] = args.as_slice() else {
        return Err("DIR FILES [FILES-IN-A-FOLDER [ARGUMENTS...]]".into());
    };
    let in_a_folder = rest.first().map_or(Ok(1000), |text| text.parse())?;
    let tree = Tree {
        files: files.parse()?,
        in_a_folder,
    };
    let (site, inventory) = (Path::new(dir).join("site"), Path::new(dir).join("inventory.db"));
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    let url = format!("s3://site?endpoint=http://{}", listener.local_addr()?);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || tree.answer(stream));
        }
    });
    let clock = Instant::now();
    if !site.exists() {
        tree.make(&site)?;
    }
    println!("tree made in {:.1} s", clock.elapsed().as_secs_f64());
    let _old = std::fs::remove_file(&inventory);
    let client = Client::new(Location::parse(&url)?, &s3::Options::default())?;
    let rows = publish::adopt(&Options::new(site.clone(), inventory.clone()), &client)?;
    println!(
        "{rows} rows, inventory of {} MB",
        std::fs::metadata(&inventory)?.len() / 1_000_000
    );
    for extra in [&[][..], &["--verify"][..]] {
        let clock = Instant::now();
        let mut command = Command::new(program()?);
        command
            .arg("publish")
            .arg(&site)
            .arg(&url)
            .arg("--index")
            .arg(&inventory)
            .arg("--json");
        command
            .args(extra)
            .args(rest.iter().skip(1))
            .env("GRIDBACKUP_HOME", dir);
        command
            .env("AWS_ACCESS_KEY_ID", "key")
            .env("AWS_SECRET_ACCESS_KEY", "secret");
        let mut child = command.stdout(Stdio::piped()).spawn()?;
        let mut peak = 0.0;
        while child.try_wait()?.is_none() {
            peak = peak_mib(child.id()).unwrap_or(peak);
            std::thread::sleep(Duration::from_millis(5));
        }
        let secs = clock.elapsed().as_secs_f64();
        let said = std::io::read_to_string(child.stdout.take().ok_or("its output is piped")?)?;
        let last = said.lines().last().unwrap_or_default();
        println!("{extra:?}: {secs:.2} s, peak {peak:.1} MiB: {last}");
    }
    Ok(())
}
