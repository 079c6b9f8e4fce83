//! The claim of a disk, driven: what `disk::claim` asks is asked of real peers, again and again, and what they answer is brought to it
//! (docs/decisions/0064-one-writer.md).

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use backup::heads::OpenHead;
use backup::writer::Writer;
use backup::writer::disks::DiskPost;
use bytes::Bytes;
use disk::claim::writer::{Answer, Ask, Asked, Commit, Event, Rules, Service, Writer as Claim};
use proto::epoch::Epoch;
use proto::head::{DiskHead, RootRef};
use proto::id::{VolumeId, VoterId};
use proto::keys::power;
use proto::promise::Promise;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use upload_queue::peers::Peer;

use crate::record::VolumeBytes;
use crate::voters::{self, Electorate};

/// How long one question may take. Chosen: a third of the term.
const ASK_PATIENCE: Duration = Duration::from_secs(20);
/// Between two rounds of questions to a voter that has nothing to answer, or did not answer.
const PAUSE: Duration = Duration::from_millis(500);

/// What became of the claim so far.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    /// The volume's state as the takeover found it, which it goes on with when it is told to (`Voting::adopt`); outer none: not found yet.
    pub found: Option<Option<Commit<RootRef>>>,
    /// The newest commit that can never be lost.
    pub accepted: Option<Commit<RootRef>>,
    /// Another writer's epoch, by which this one is ended.
    pub fenced: Option<Epoch>,
}

/// Why a claim does not go on.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ClaimError {
    /// Another writer took over.
    #[error("another machine has taken this disk over")]
    Fenced {
        /// Its epoch.
        by: Epoch,
    },
    /// Too few answer.
    #[error("fewer than a majority of the disk's voters ({voters}) answered within {} s", waited.as_secs())]
    NoMajority {
        /// How many there are.
        voters: usize,
        /// How long it was waited for.
        waited: Duration,
    },
    /// It cannot take a commit now.
    #[error("the disk's voters have not taken the commit before")]
    Busy,
    /// It was ended.
    #[error("the disk was closed")]
    Ended,
}

/// The claim of a volume; clones share it. The tasks that ask end with the token that they were started with.
#[derive(Clone)]
pub struct Voting(Arc<Inner>);

struct Inner {
    claim: Mutex<Claim<RootRef>>,
    /// The root that the claim was last given to be committed.
    offered: Mutex<Option<RootRef>>,
    progress: watch::Sender<Progress>,
    /// Something may be to be asked at once.
    turned: watch::Sender<u64>,
    electorate: Electorate,
    /// All of them, by their numbers in the claim.
    voters: Vec<VoterId>,
    volume: VolumeBytes,
    writer: Writer,
    /// One head is signed at a time.
    posting: tokio::sync::Mutex<()>,
}

/// Time by a clock that counts sleep, and that nobody sets.
pub fn now() -> Duration {
    #[cfg(target_os = "linux")]
    let clock = rustix::time::ClockId::Boottime;
    // Elsewhere the usual clock goes on while the machine sleeps.
    #[cfg(not(target_os = "linux"))]
    let clock = rustix::time::ClockId::Monotonic;
    let now = rustix::time::clock_gettime(clock);
    Duration::new(now.tv_sec.unsigned_abs(), u32::try_from(now.tv_nsec).unwrap_or(0))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Voting {
    /// Goes on with a claim that was just begun, by these voters (`rules`). Within a runtime.
    pub fn start(
        claim: Claim<RootRef>,
        electorate: Electorate,
        volume: VolumeBytes,
        writer: Writer,
        end: &CancellationToken,
    ) -> Self {
        let voting = Self(Arc::new(Inner {
            claim: Mutex::new(claim),
            offered: Mutex::default(),
            progress: watch::Sender::default(),
            turned: watch::Sender::default(),
            voters: electorate.all(),
            electorate,
            volume,
            writer,
            posting: tokio::sync::Mutex::default(),
        }));
        for number in 0..voting.0.voters.len() {
            let (voting, end) = (voting.clone(), end.clone());
            tokio::spawn(async move {
                tokio::select! {
                    () = end.cancelled() => {}
                    never = voting.ask_for_ever(number) => match never {},
                }
            });
        }
        voting
    }

    /// Whether writes may be acknowledged at this moment.
    pub fn service(&self) -> Service {
        lock(&self.0.claim).service(now())
    }

    /// The epoch that is held, as far as this machine has heard.
    pub fn epoch(&self) -> Option<Epoch> {
        lock(&self.0.claim).epoch()
    }

    /// Who is asked.
    pub fn electorate(&self) -> &Electorate {
        &self.0.electorate
    }

    /// Goes on with what was found, whose root names nobody but who was asked; or with what is known to be newer.
    pub fn adopt(&self, newer: Option<Commit<RootRef>>) {
        let mut claim = lock(&self.0.claim);
        let _unless_ended = match newer {
            Some(newer) => claim.adopt_instead(Some(newer)),
            None => claim.adopt(),
        };
        drop(claim);
        self.0.turned.send_modify(|turn| *turn += 1);
    }

    /// What became of it so far.
    pub fn progress(&self) -> Progress {
        self.0.progress.borrow().clone()
    }

    /// Waits until another writer has taken over. May be dropped.
    pub async fn fenced(&self) -> Epoch {
        let mut progress = self.0.progress.subscribe();
        loop {
            if let Some(by) = progress.borrow_and_update().fenced {
                return by;
            }
            if progress.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Waits until the takeover has found the volume's state, which may not be shown yet. May be dropped.
    pub async fn found(&self, patience: Duration) -> Result<Option<Commit<RootRef>>, ClaimError> {
        self.wait(patience, |progress| progress.found.clone()).await
    }

    /// Waits until the volume may be served: what was found is this writer's own, and nobody else acknowledges. May be dropped.
    pub async fn open(&self, patience: Duration) -> Result<(), ClaimError> {
        let opening = async {
            while self.service() == Service::NotYet {
                if self.progress().fenced.is_some() {
                    break;
                }
                tokio::time::sleep(PAUSE).await;
            }
        };
        let is_late = tokio::time::timeout(patience, opening).await.is_err();
        match (self.progress().fenced, is_late) {
            (Some(by), _) => Err(ClaimError::Fenced { by }),
            (None, true) => Err(self.no_majority(patience)),
            (None, false) => Ok(()),
        }
    }

    /// Has a commit accepted, whose packs and head survive the loss of friends already. If it fails, the same is to be offered again.
    pub async fn commit(&self, root: &RootRef, number: u64, patience: Duration) -> Result<(), ClaimError> {
        {
            let mut offered = lock(&self.0.offered);
            if offered.as_ref() != Some(root) {
                if let Some(by) = self.progress().fenced {
                    return Err(ClaimError::Fenced { by });
                }
                if !lock(&self.0.claim).commit_numbered(root.clone(), Some(number)) {
                    return Err(ClaimError::Busy);
                }
                *offered = Some(root.clone());
            }
        }
        self.0.turned.send_modify(|turn| *turn += 1);
        let is_it = |progress: &Progress| {
            let accepted = progress.accepted.as_ref().filter(|commit| commit.root == *root);
            accepted.map(|_| ())
        };
        self.wait(patience, is_it).await
    }

    async fn wait<T>(&self, patience: Duration, is_there: impl Fn(&Progress) -> Option<T>) -> Result<T, ClaimError> {
        let mut progress = self.0.progress.subscribe();
        let waiting = async {
            loop {
                {
                    let now = progress.borrow_and_update();
                    if let Some(there) = is_there(&now) {
                        return Ok(there);
                    }
                    if let Some(by) = now.fenced {
                        return Err(ClaimError::Fenced { by });
                    }
                }
                progress.changed().await.map_err(|_| ClaimError::Ended)?;
            }
        };
        let waited = tokio::time::timeout(patience, waiting).await;
        waited.unwrap_or_else(|_late| Err(self.no_majority(patience)))
    }

    fn no_majority(&self, waited: Duration) -> ClaimError {
        ClaimError::NoMajority {
            voters: self.0.voters.len(),
            waited,
        }
    }

    /// Asks one voter whatever is to be asked, for as long as this is polled.
    async fn ask_for_ever(&self, number: usize) -> std::convert::Infallible {
        let mut turned = self.0.turned.subscribe();
        let voter = u8::try_from(number).expect("a volume has five voters at most");
        let mut peer = None;
        loop {
            turned.mark_unchanged();
            let asks = lock(&self.0.claim).asks(voter, now());
            let mut is_answered = false;
            for asked in asks {
                if peer.is_none() {
                    peer = voters::find(&self.0.writer.peers.all(), self.0.voters[number]).await;
                }
                let Some(peer) = &peer else { break };
                let answering = tokio::time::timeout(ASK_PATIENCE, self.ask(peer, &asked.ask));
                if let Ok(Some(answer)) = answering.await {
                    is_answered = true;
                    self.answered(voter, &asked, answer);
                }
            }
            if !is_answered {
                // It may be another store by now: a friend who was away, a folder that was mounted elsewhere.
                peer = None;
                let _either = tokio::time::timeout(PAUSE, turned.changed()).await;
            }
        }
    }

    fn answered(&self, voter: u8, asked: &Asked<RootRef>, answer: Answer<RootRef>) {
        let event = lock(&self.0.claim).answered(voter, asked.tag, answer, now());
        if let Some(event) = event {
            self.0.progress.send_modify(|progress| match event {
                Event::Found { state, .. } => progress.found = Some(state),
                Event::Accepted(commit) => progress.accepted = Some(commit),
                Event::Fenced { by } => progress.fenced = Some(by),
            });
        }
        // An answer that completed a majority is something to be asked of all others.
        self.0.turned.send_modify(|turn| *turn += 1);
    }

    /// One question; none is no answer, and asked again.
    async fn ask(&self, peer: &Peer, ask: &Ask<RootRef>) -> Option<Answer<RootRef>> {
        let inner = &self.0;
        let account = inner.writer.keys.account_id();
        let volume = VolumeId(inner.volume);
        match ask {
            Ask::ReadPromise => {
                let promise = peer.store.promise(account, volume).await.ok()?;
                Some(Answer::Promise(match promise {
                    None => None,
                    Some(promise) => Some(self.read(&promise)?),
                }))
            }
            Ask::Claim(epoch) => {
                let (device, cert) = (&inner.writer.device, &inner.writer.cert);
                let claim = Promise::sign(device, cert, volume, epoch.counter).ok()?;
                let answer = peer.store.claim(claim.encode().into()).await;
                if let Err(error) = &answer {
                    tracing::debug!("{} does not promise a disk to this machine: {error}", peer.name);
                }
                Some(Answer::Promise(Some(self.read(&answer.ok()?)?)))
            }
            Ask::ReadHeads => {
                let heads = peer.store.heads(account).await.ok()?;
                Some(Answer::Heads(self.commits(&heads)))
            }
            Ask::PutHead(commit) => {
                let Some(head) = self.head_for(commit, peer).await? else {
                    return Some(Answer::Took);
                };
                let put = peer.store.put_head(head).await;
                if let Err(error) = &put {
                    tracing::debug!("{} does not take the head of a disk: {error}", peer.name);
                }
                put.ok().map(|()| Answer::Took)
            }
        }
    }

    fn read(&self, promise: &[u8]) -> Option<Epoch> {
        voters::epoch_of(promise, self.0.writer.keys.account_id(), self.0.volume)
    }

    /// What heads of machines that may put and read say of the volume. Each machine says its own epochs alone.
    fn commits(&self, heads: &[Bytes]) -> Vec<Commit<RootRef>> {
        let keys = &self.0.writer.keys;
        let opened = heads.iter().filter_map(|head| OpenHead::open(head, keys).ok());
        let may_write = opened.filter(|open| open.head.cert.powers & power::READ != 0);
        let commits = may_write.filter_map(|open| {
            let said = open.body.disk(self.0.volume)?;
            Some(Commit {
                epoch: Epoch {
                    counter: said.epoch,
                    device: open.head.device(),
                },
                number: said.commit,
                root: said.root.clone(),
            })
        });
        commits.collect()
    }

    /// The newest head of this machine, which says this commit, for a voter that does not have it; signed if it was not yet. Outer none: not now.
    async fn head_for(&self, commit: &Commit<RootRef>, voter: &Peer) -> Option<Option<Bytes>> {
        let _one_at_a_time = self.0.posting.lock().await;
        let (inner, newest, key) = (self.0.clone(), disk_head(self.0.volume, commit), voter.key.clone());
        let posting = tokio::task::spawn_blocking(move || {
            if inner.writer.disk(inner.volume)?.as_ref() == Some(&newest)
                && let Ok(head) = inner.writer.head_for(&key)
            {
                return Ok(head);
            }
            // Also one that was signed: whoever did that may have ended before it was where it has to be, and nobody else puts it there.
            let post = DiskPost {
                volume: inner.volume,
                newest: Some(newest),
                packs: &[],
            };
            inner.writer.post_disk(&post, &|_| {})?;
            inner.writer.head_for(&key)
        });
        match posting.await {
            Ok(Ok(head)) => Some(head),
            Ok(Err(error)) => {
                tracing::info!("{} is not given the head of a disk now: {error}", voter.name);
                None
            }
            Err(_ended) => None,
        }
    }
}

/// A commit as a head says it.
pub fn disk_head(volume: VolumeBytes, commit: &Commit<RootRef>) -> DiskHead {
    DiskHead {
        volume,
        epoch: commit.epoch.counter,
        commit: commit.number,
        root: commit.root.clone(),
    }
}

/// By what every writer goes.
pub fn rules(writer: &Writer, electorate: &Electorate, handover: disk::claim::writer::Handover) -> Option<Rules> {
    Some(Rules {
        device: writer.cert.device,
        quorum: electorate.quorum()?,
        times: disk::claim::times::Times::USUAL,
        handover,
        offline: disk::claim::writer::Offline::Stop,
    })
}
