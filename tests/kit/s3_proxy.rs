//! An HTTP proxy before an S3 server that does what bad lines and busy servers do: late, refused, cut off, slow, with another
//! clock; or that holds requests back until it is told. One request a connection, read whole: bodies of tests are small.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};

/// What goes wrong, and how often.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    /// Added to every request.
    pub latency: Duration,
    /// Requests of 1,000 that something happens to.
    pub per_mille: u64,
    /// The server's clock is so far ahead; requests signed by another are refused as Amazon does.
    pub skew_secs: i64,
    /// It is so much later there than when objects were put.
    pub later_secs: i64,
    /// By that clock it refuses, too, what comes after the time for which its query was signed: moto does not.
    pub checks_windows: bool,
    /// Requests whose first line contains this wait until it is taken away.
    pub hold: Option<String>,
    /// This header, in small letters, never reaches the server: it is one that does not know it. What signs it must not be checked.
    pub without: Option<&'static str>,
    /// Puts are refused so often, as Amazon does when two meet (409).
    pub conflicts: u64,
}

/// A request that reached the server, in the order of the answers.
#[derive(Clone, Debug)]
pub struct Passed {
    /// `PUT /site/key`, with its query.
    pub line: String,
    /// What the server answered.
    pub status: u16,
}

#[derive(Default)]
struct State {
    faults: Faults,
    seed: u64,
    /// Refusals still to come of a burst.
    burst: u64,
    came: Vec<String>,
    passed: Vec<Passed>,
    held: usize,
    faulty: u64,
}

/// The proxy. Its threads end with their connections.
#[derive(Clone)]
pub struct S3Proxy {
    /// `127.0.0.1:PORT`.
    pub at: String,
    to: String,
    state: Arc<(Mutex<State>, Condvar)>,
}

enum Fate {
    Pass,
    Refuse(&'static str),
    CutBefore,
    CutAfter,
    Slow,
}

/// What Amazon tolerates.
const SKEW_SECS_MAX: i64 = 15 * 60;

impl S3Proxy {
    /// Before the server at `to`. The seed is printed.
    pub fn start(to: &str) -> Result<Self> {
        let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok());
        let seed = seed.unwrap_or(SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos() as u64);
        eprintln!("proxy: SEED={seed}");
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        let proxy = Self {
            at: listener.local_addr()?.to_string(),
            to: to.to_owned(),
            state: Arc::default(),
        };
        proxy.lock().seed = seed | 1;
        let own = proxy.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let own = own.clone();
                std::thread::spawn(move || {
                    if let Err(error) = own.serve(client) {
                        eprintln!("proxy: {error:#}");
                    }
                });
            }
        });
        Ok(proxy)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on.
    pub fn set(&self, faults: Faults) {
        self.lock().faults = faults;
        self.state.1.notify_all();
    }

    /// First lines of all requests that came here.
    pub fn came(&self) -> Vec<String> {
        self.lock().came.clone()
    }

    /// Requests that the server answered.
    pub fn passed(&self) -> Vec<Passed> {
        self.lock().passed.clone()
    }

    /// Requests that are held back now.
    pub fn held(&self) -> usize {
        self.lock().held
    }

    /// How many had something happen to them.
    pub fn faulty(&self) -> u64 {
        self.lock().faulty
    }

    fn serve(&self, mut client: TcpStream) -> Result<()> {
        client.set_nodelay(true)?;
        let Some((head, body)) = read_request(&mut client)? else {
            return Ok(());
        };
        let line = head.lines().next().unwrap_or_default().replace(" HTTP/1.1", "");
        let (faults, fate) = self.fate(&line);
        std::thread::sleep(faults.latency);
        let ahead_secs = faults.skew_secs + faults.later_secs;
        let refusal = refused_clock(&head, ahead_secs);
        let refusal = refusal.or_else(|| refused_window(&line, ahead_secs).filter(|_| faults.checks_windows));
        if let Some(refusal) = refusal {
            return Ok(client.write_all(refusal.as_bytes())?);
        }
        match fate {
            Fate::CutBefore => return Ok(()),
            Fate::Refuse(answer) => return Ok(client.write_all(answer.as_bytes())?),
            Fate::Pass | Fate::CutAfter | Fate::Slow => {}
        }
        let mut server = TcpStream::connect(&self.to)?;
        let head = head.replacen("\r\n", "\r\nConnection: close\r\n", 1);
        let head = without(head, faults.without);
        server.write_all(head.as_bytes())?;
        server.write_all(&body)?;
        let mut answer = Vec::new();
        server.read_to_end(&mut answer)?;
        let status = std::str::from_utf8(answer.get(9..12).unwrap_or_default())?.parse()?;
        self.lock().passed.push(Passed { line, status });
        let answer = with_clock(answer, &faults)?;
        // Whoever is not there any more does not hear it.
        let _gone = match fate {
            Fate::CutAfter => Ok(()),
            Fate::Slow => answer.chunks(answer.len() / 4 + 1).try_for_each(|piece| {
                std::thread::sleep(Duration::from_millis(50));
                client.write_all(piece)
            }),
            _ => client.write_all(&answer),
        };
        Ok(())
    }

    fn fate(&self, line: &str) -> (Faults, Fate) {
        let mut state = self.lock();
        state.came.push(line.to_owned());
        while state
            .faults
            .hold
            .as_ref()
            .is_some_and(|hold| line.contains(hold.as_str()))
        {
            state.held += 1;
            state = self.state.1.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.held -= 1;
        }
        // xorshift64 (Marsaglia 2003).
        let mut random = || {
            let seed = &mut state.seed;
            *seed ^= *seed << 13;
            *seed ^= *seed >> 7;
            *seed ^= *seed << 17;
            *seed
        };
        let (dice, kind) = (random() % 1000, random() % 6);
        let faults = state.faults.clone();
        if line.starts_with("PUT ") && faults.conflicts > 0 {
            state.faults.conflicts -= 1;
            state.faulty += 1;
            return (faults, Fate::Refuse(CONFLICT));
        }
        if faults.per_mille > 0 && state.burst > 0 {
            state.burst -= 1;
            state.faulty += 1;
            return (faults, Fate::Refuse(SLOW_DOWN));
        }
        if dice >= faults.per_mille {
            return (faults, Fate::Pass);
        }
        state.faulty += 1;
        let fate = match kind {
            0 => {
                state.burst = 3;
                Fate::Refuse(SLOW_DOWN)
            }
            1 => Fate::Refuse(INTERNAL),
            2 => Fate::CutBefore,
            3 | 4 => Fate::CutAfter,
            _ => Fate::Slow,
        };
        (faults, fate)
    }
}

const SLOW_DOWN: &str = "HTTP/1.1 503 Slow Down\r\nRetry-After: 1\r\nContent-Length: 40\r\nConnection: close\r\n\r\n\
                         <Error><Code>SlowDown</Code></Error>    ";
const CONFLICT: &str = "HTTP/1.1 409 Conflict\r\nContent-Length: 54\r\nConnection: close\r\n\r\n\
                        <Error><Code>ConditionalRequestConflict</Code></Error>";
const INTERNAL: &str = "HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";

/// A request; none: the connection was closed without one.
fn read_request(client: &mut TcpStream) -> Result<Option<(String, Vec<u8>)>> {
    let mut bytes = Vec::new();
    let mut buffer = vec![0; 64 << 10];
    let end = loop {
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            break end + 4;
        }
        let read = client.read(&mut buffer).unwrap_or(0);
        if read == 0 {
            return Ok(None);
        }
        bytes.extend_from_slice(&buffer[..read]);
    };
    let head = String::from_utf8(bytes[..end].to_vec())?;
    let mut body = bytes.split_off(end);
    let length: usize = match header(&head, "content-length") {
        Some(length) => length.parse()?,
        None => 0,
    };
    while body.len() < length {
        let read = client.read(&mut buffer).unwrap_or(0);
        if read == 0 {
            // Killed while it sent: the server never hears of it.
            return Ok(None);
        }
        body.extend_from_slice(&buffer[..read]);
    }
    Ok(Some((head, body)))
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().find_map(|line| {
        let (found, value) = line.split_once(':')?;
        found.eq_ignore_ascii_case(name).then_some(value.trim())
    })
}

fn without(head: String, name: Option<&str>) -> String {
    let Some(name) = name else { return head };
    let is_it = |line: &&str| {
        line.split_once(':')
            .is_some_and(|(found, _)| found.eq_ignore_ascii_case(name))
    };
    let lines: Vec<&str> = head.split("\r\n").filter(|line| !is_it(line)).collect();
    lines.join("\r\n")
}

fn now(skew_secs: i64) -> jiff::Timestamp {
    jiff::Timestamp::now() + jiff::SignedDuration::from_secs(skew_secs)
}

fn http_date(time: jiff::Timestamp) -> Result<String> {
    Ok(jiff::fmt::rfc2822::DateTimePrinter::new().timestamp_to_rfc9110_string(&time)?)
}

fn refused_clock(head: &str, skew_secs: i64) -> Option<String> {
    let signed = amazon_time(header(head, "x-amz-date")?)?;
    let apart = now(skew_secs).duration_since(signed).as_secs().abs();
    (apart > SKEW_SECS_MAX).then(|| refusal("RequestTimeTooSkewed", skew_secs))
}

fn refused_window(line: &str, ahead_secs: i64) -> Option<String> {
    let value = |name: &str| {
        let (_, rest) = line.split_once(name)?;
        rest.split('&').next()
    };
    let begin = amazon_time(value("X-Amz-Date=")?)?;
    let secs: i64 = value("X-Amz-Expires=")?.parse().ok()?;
    let age_secs = now(ahead_secs).duration_since(begin).as_secs();
    let is_admitted = (-SKEW_SECS_MAX..=secs).contains(&age_secs);
    (!is_admitted).then(|| refusal("AccessDenied", ahead_secs))
}

fn amazon_time(text: &str) -> Option<jiff::Timestamp> {
    let time = jiff::fmt::strtime::parse("%Y%m%dT%H%M%SZ", text).ok()?;
    let zoned = time.to_datetime().ok()?.to_zoned(jiff::tz::TimeZone::UTC).ok()?;
    Some(zoned.timestamp())
}

fn refusal(code: &str, skew_secs: i64) -> String {
    let date = http_date(now(skew_secs)).unwrap_or_default();
    let body = format!("<Error><Code>{code}</Code></Error>");
    let length = body.len();
    format!("HTTP/1.1 403 Forbidden\r\nDate: {date}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}")
}

/// The times of an answer, by the other clock.
fn with_clock(answer: Vec<u8>, faults: &Faults) -> Result<Vec<u8>> {
    if faults.skew_secs == 0 && faults.later_secs == 0 {
        return Ok(answer);
    }
    let end = answer
        .windows(4)
        .position(|four| four == b"\r\n\r\n")
        .context("an answer has a head")?;
    let head = std::str::from_utf8(&answer[..end])?;
    let mut lines = Vec::new();
    for line in head.split("\r\n") {
        let (name, value) = line.split_once(':').unwrap_or((line, ""));
        let ahead = match name.to_ascii_lowercase().as_str() {
            "date" => faults.skew_secs + faults.later_secs,
            "last-modified" => faults.skew_secs,
            _ => {
                lines.push(line.to_owned());
                continue;
            }
        };
        let time = jiff::fmt::rfc2822::parse(value.trim())?.timestamp();
        lines.push(format!(
            "{name}: {}",
            http_date(time + jiff::SignedDuration::from_secs(ahead))?
        ));
    }
    ensure!(!lines.is_empty(), "an answer has lines");
    Ok([lines.join("\r\n").as_bytes(), &answer[end..]].concat())
}
