//! Which disks there are: by the heads of this account, and by what this machine has written down.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use api::failure::{Exit, Failure, Kind};
use api::human::nearest;
use api::message::DiskState;
use backup::catalog::content;
use backup::heads::look;
use disk::DeviceError;
use disk::commit::opening::read_root;
use disk::commit::root::Root;
use disks::incoming::IncomingPacks;
use disks::record::{DiskRecord, VolumeBytes};
use proto::head::DiskHead;
use upload_queue::peers::Peer;
use upload_queue::spool::Spool;

use super::id;
use crate::{Engine, failures, kind};

/// How long a peer may take to say which heads it has.
const PATIENCE: Duration = Duration::from_secs(5);

/// What has waited for so long is told. Chosen: commits are made each minute, and a slow uplink takes some for one.
const AHEAD: Duration = Duration::from_secs(300);

/// A disk of this account.
#[derive(Clone, Debug)]
pub(in crate::disk) struct KnownDisk {
    pub volume: VolumeBytes,
    pub name: String,
    pub size: Option<u64>,
    /// Its newest commit.
    pub head: Option<DiskHead>,
    /// The machine whose head that is, if it is another.
    pub machine: Option<String>,
    /// What this machine has written down.
    pub record: Option<DiskRecord>,
    /// When its newest commit was made, in nanoseconds since 1970, where that is known.
    pub committed_ns: Option<i64>,
    /// What is wrong with it.
    pub problem: Option<String>,
}

impl KnownDisk {
    /// How it is as long as it is not open here.
    pub fn state(&self) -> DiskState {
        match &self.record {
            _ if self.machine.is_some() => DiskState::Elsewhere,
            _ if self.problem.is_some() => DiskState::Unreadable,
            Some(record) if record.is_ahead => DiskState::Ahead,
            _ => DiskState::Closed,
        }
    }
}

impl Engine {
    /// The newest commit of each disk, of those that this machine knows and what these peers say, and the name of the machine that posted it if it is another.
    pub(super) async fn disk_heads(
        &self,
        known: &[DiskHead],
        peers: &[Peer],
    ) -> BTreeMap<VolumeBytes, (DiskHead, Option<String>)> {
        let own = self.device();
        let mut newest: BTreeMap<VolumeBytes, (DiskHead, Option<String>)> = BTreeMap::new();
        let mut take = |head: DiskHead, machine: Option<String>| {
            let known = newest.get(&head.volume);
            if known.is_none_or(|(known, _)| known.number() < head.number()) {
                newest.insert(head.volume, (head, machine));
            }
        };
        known.iter().for_each(|head| take(head.clone(), None));
        for looked in look(peers, &self.0.home.account, PATIENCE).await {
            for open in looked.sound().filter(|open| open.head.device() != own) {
                let heads = open.body.disks.iter().flatten();
                heads.for_each(|head| take(head.clone(), Some(open.head.cert.name.clone())));
            }
        }
        newest
    }

    /// All disks of the account that this machine can learn of.
    pub(super) async fn known_disks(&self) -> Result<Vec<KnownDisk>, Failure> {
        self.connect().await?;
        let free: Vec<_> = self.0.peers.all().into_iter().filter(kind::is_free_to_ask).collect();
        let posted = self.0.db.read(content::posted)?;
        let own = posted.and_then(|posted| posted.body.disks).unwrap_or_default();
        let mut heads = self.disk_heads(&own, &free).await;
        let records = self.disk_records();
        let (written, unreadable) = records
            .all()
            .map_err(|error| Failure::context("What is known of disks here cannot be listed", &error))?;
        let mut disks = Vec::new();
        for record in written {
            let (head, machine) = heads.remove(&record.volume).unzip();
            let problem = head.is_none().then(|| "no head of this account names it".to_owned());
            let noted = head
                .as_ref()
                .and_then(|head: &DiskHead| record.committed_ns(head.commit));
            let (mut size, mut committed_ns) = (record.size, noted);
            // Of one that is open its own words are newer.
            if let (Some(head), None, false) = (&head, noted, self.0.disks.is_in_use(record.volume))
                && let Ok(root) = self.root_of(head).await?
            {
                (size, committed_ns) = (root.size, Some(root.time_ns));
            }
            disks.push(KnownDisk {
                volume: record.volume,
                name: record.name.clone(),
                size: Some(size),
                committed_ns,
                head,
                machine: machine.flatten(),
                record: Some(record),
                problem,
            });
        }
        for (volume, (head, machine)) in heads {
            let unread = unreadable
                .iter()
                .find(|unread| unread.folder == records.folder_of(volume))
                .map(|unread| unread.reason.clone());
            disks.push(self.unwritten(volume, head, machine, unread).await?);
        }
        Ok(disks)
    }

    /// A disk of which nothing is written down here: its root says what it is.
    async fn unwritten(
        &self,
        volume: VolumeBytes,
        head: DiskHead,
        machine: Option<String>,
        unread: Option<String>,
    ) -> Result<KnownDisk, Failure> {
        let (name, size, committed_ns, problem) = match self.root_of(&head).await? {
            Ok(root) => (root.name, Some(root.size), Some(root.time_ns), unread),
            Err(error) => (id(volume), None, None, Some(error.to_string())),
        };
        Ok(KnownDisk {
            volume,
            name,
            size,
            head: Some(head),
            machine,
            record: None,
            committed_ns,
            problem,
        })
    }

    async fn root_of(&self, head: &DiskHead) -> Result<Result<Root, DeviceError>, Failure> {
        let (packs, at) = (self.disk_packs().await?, head.root.clone());
        let reading = tokio::task::spawn_blocking(move || read_root(&at, &*packs));
        reading.await.map_err(failures::worker)
    }

    /// Names of the disks to which something was written that is on this machine alone: closed so, or for longer than a commit takes.
    pub(crate) fn disks_ahead(&self) -> Vec<String> {
        let (mut ahead, in_use) = self.0.disks.behind(AHEAD);
        let (records, unreadable) = self.disk_records().all().unwrap_or_default();
        let closed = records
            .into_iter()
            .filter(|record| record.is_ahead && !in_use.contains(&record.volume));
        ahead.extend(closed.map(|record| record.name));
        // What is in their journals nobody knows.
        ahead.extend(unreadable.iter().map(|lost| lost.folder.to_string_lossy().into_owned()));
        ahead
    }

    /// The disk of this name, or whose id begins so.
    pub(super) async fn find_disk(&self, name: &str) -> Result<KnownDisk, Failure> {
        let mut disks = self.known_disks().await?;
        let named = |known: &KnownDisk| known.name == name;
        let is_meant = |known: &KnownDisk| match disks.iter().any(named) {
            true => named(known),
            false => name.len() >= 4 && id(known.volume).starts_with(name),
        };
        let found: Vec<usize> = (0..disks.len()).filter(|at| is_meant(&disks[*at])).collect();
        match found[..] {
            [at] => Ok(disks.swap_remove(at)),
            [] => {
                let names: Vec<String> = disks.iter().map(|known| known.name.clone()).collect();
                let error = Failure::new(Exit::Failed, format!("There is no disk `{name}`")).kind(Kind::NotFound);
                Err(match nearest(name, names.iter().map(String::as_str)) {
                    Some(near) => error.hint(format!("is it `{near}`? `gridbackup disk ls` lists them")),
                    None => error.hint("`gridbackup disk ls` lists them, `gridbackup disk create` makes one"),
                })
            }
            _ => Err(Failure::new(Exit::Usage, format!("Several disks are called `{name}`"))
                .hint("name one by the first digits of its id, as `gridbackup disk ls` shows it")),
        }
    }

    /// Packs of disks, from peers and from the spool.
    pub(super) async fn disk_packs(&self) -> Result<Arc<IncomingPacks>, Failure> {
        let mut reader = self.reader().await?;
        // One that cannot be opened holds nothing that could be read.
        reader.spool = Spool::open(&self.0.home.paths.spool()).ok();
        Ok(Arc::new(IncomingPacks::new(reader)))
    }
}
