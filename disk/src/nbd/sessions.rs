//! Who uses which export: several connections of one client do, a second client does not, unless nothing can be written.
//!
//! The rule that this file holds: no request of a connection that is gone changes anything after another connection has been let in.
//! A client that comes back says its unanswered writes again, and newer ones; an old one that is carried out after them would undo
//! what was acknowledged (ydb nbs #7070). So whoever enters waits until those that are gone have left.

use std::collections::HashMap;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::{fmt, io};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::nbd::exports::Export;

/// Who is at the other end, as far as it is known.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Client {
    /// The process that connected to the Unix socket.
    Process(i32),
    /// The machine that connected by TCP. All processes of one machine are one client: TCP does not tell them apart.
    Machine(IpAddr),
}

impl fmt::Display for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Process(pid) => write!(f, "process {pid}"),
            Self::Machine(address) => write!(f, "{address}"),
        }
    }
}

/// How many clients may write to one export.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Writers {
    /// One, with as many connections as it likes: any other file system would be destroyed.
    OneClient,
    /// Any number, for file systems that are made for it.
    AnyClients,
}

/// Why a client is not let in.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Refused {
    /// Another one is there.
    #[error("The disk is in use by {0}; two at once would destroy what is on it")]
    InUse(Client),
}

struct Place {
    number: u64,
    client: Client,
    cut: CancellationToken,
    line: Option<Arc<OwnedFd>>,
}

/// All that are let in, by the export's name.
pub struct Sessions {
    places: Mutex<HashMap<String, Vec<Place>>>,
    /// Counts those that left.
    left: watch::Sender<u64>,
    writers: Writers,
}

/// A client's place in an export; dropped when it has left, and nothing of it is under way.
pub struct Session {
    sessions: Arc<Sessions>,
    export: String,
    number: u64,
    cut: CancellationToken,
    line: Option<Arc<OwnedFd>>,
}

/// What lets one connection in.
pub struct Admission<'a> {
    /// Those that are in.
    pub sessions: &'a Arc<Sessions>,
    /// Who asks.
    pub client: Client,
    /// The connection, for telling whether it is gone.
    pub line: Option<Arc<OwnedFd>>,
    /// Whether the server stops.
    pub stop: &'a CancellationToken,
}

impl Sessions {
    /// Nobody.
    pub fn new(writers: Writers) -> Self {
        Self {
            places: Mutex::default(),
            left: watch::Sender::new(0),
            writers,
        }
    }

    fn places(&self) -> MutexGuard<'_, HashMap<String, Vec<Place>>> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends all connections to an export: what is not answered yet is not done.
    pub fn cut(&self, export: &str) {
        for place in self.places().get(export).into_iter().flatten() {
            place.cut.cancel();
        }
    }

    /// Ends all connections.
    pub fn cut_all(&self) {
        for place in self.places().values().flatten() {
            place.cut.cancel();
        }
    }
}

impl Admission<'_> {
    /// Whether nobody is let in any more.
    pub fn is_stopping(&self) -> bool {
        self.stop.is_cancelled()
    }

    /// Lets the client in, once those that are gone have left. May be dropped.
    pub async fn admit(&self, export: &Export) -> Result<Session, Refused> {
        let mut left = self.sessions.left.subscribe();
        loop {
            if let Some(session) = self.try_admit(export)? {
                return Ok(session);
            }
            // The sender lives as long as the sessions, which are borrowed.
            let _changed = left.changed().await;
        }
    }

    /// `None` while somebody is on the way out.
    fn try_admit(&self, export: &Export) -> Result<Option<Session>, Refused> {
        let mut all = self.sessions.places();
        let places = all.entry(export.name.clone()).or_default();
        if !export.device.is_read_only() {
            for place in places.iter().filter(|place| is_gone(place.line.as_ref())) {
                place.cut.cancel();
            }
            if places.iter().any(|place| place.cut.is_cancelled()) {
                return Ok(None);
            }
            let other = places.iter().find(|place| place.client != self.client);
            if let (Some(other), Writers::OneClient) = (other, self.sessions.writers) {
                return Err(Refused::InUse(other.client));
            }
        }
        let number = places.last().map_or(0, |last| last.number + 1);
        let cut = CancellationToken::new();
        places.push(Place {
            number,
            client: self.client,
            cut: cut.clone(),
            line: self.line.clone(),
        });
        Ok(Some(Session {
            sessions: self.sessions.clone(),
            export: export.name.clone(),
            number,
            cut,
            line: self.line.clone(),
        }))
    }
}

impl Session {
    /// Told when the connection has to end at once.
    pub fn cut(&self) -> &CancellationToken {
        &self.cut
    }

    /// Whether nobody is at the other end.
    pub fn is_gone(&self) -> bool {
        is_gone(self.line.as_ref())
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let mut all = self.sessions.places();
        if let Some(places) = all.get_mut(&self.export) {
            places.retain(|place| place.number != self.number);
            if places.is_empty() {
                all.remove(&self.export);
            }
        }
        drop(all);
        self.sessions.left.send_modify(|count| *count += 1);
    }
}

/// Asks the system, not the connection's task: that one may be busy with an old request, which is what this is about.
fn is_gone(line: Option<&Arc<OwnedFd>>) -> bool {
    let Some(line) = line else {
        return false;
    };
    #[cfg(target_os = "linux")]
    let asked = PollFlags::RDHUP;
    #[cfg(not(target_os = "linux"))]
    let asked = PollFlags::empty();
    let mut polled = [PollFd::new(line, asked)];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    let told = poll(&mut polled, Some(&now)).map_err(io::Error::from);
    let gone = PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL | asked;
    told.is_ok_and(|count| count > 0) && polled[0].revents().intersects(gone)
}
