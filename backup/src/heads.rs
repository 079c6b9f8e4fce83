//! Looking at the heads that peers hold: what each has of the account, and how that compares with what the catalog knows.
//!
//! Everything that needs to know (recovery, the start of a run, `check`, `prune`) asks here.

use std::time::Duration;

use database::DbError;
use proto::head::{Head, HeadBody};
use proto::id::{DeviceId, HeadHash};
use proto::keys::{AccountKeys, power};
use proto::share_store::StoreError;
use rusqlite::{Connection, Transaction};
use upload_queue::peers::{Peer, PeerKey};

use crate::catalog::content::post;
use crate::catalog::heads;
use crate::catalog::heads::SeenHead;

/// A head that is what it says, with its body.
#[derive(Clone, Debug, PartialEq)]
pub struct OpenHead {
    /// As it was signed.
    pub head: Head,
    /// What it leads to.
    pub body: HeadBody,
    /// BLAKE3 of its encoding.
    pub hash: HeadHash,
}

impl OpenHead {
    /// Checks and opens a head; else what is wrong with it.
    pub fn open(encoded: &[u8], keys: &AccountKeys) -> Result<Self, String> {
        let head = Head::decode(encoded).map_err(|error| format!("Its head is not valid: {error}"))?;
        if head.account() != keys.account_id() {
            return Err("Its head belongs to another account".to_owned());
        }
        if head.cert.powers & power::PUT == 0 {
            return Err("Its head is signed by a device that may not write".to_owned());
        }
        // Who may only put knows of heads that they are there, and what number they have.
        let body = match &keys.read {
            None => HeadBody {
                root: None,
                snapshot: None,
                disks: None,
            },
            Some(read) => head
                .open(read)
                .map_err(|error| format!("Its head {} is not valid: {error}", head.seq))?,
        };
        let hash = HeadHash(head.hash());
        Ok(Self { head, body, hash })
    }

    /// When its newest snapshot was made, nanoseconds since 1970.
    pub fn made_ns(&self) -> Option<i64> {
        self.body.snapshot.as_ref().map(|snapshot| snapshot.time_ns)
    }
}

/// What one peer answered.
#[derive(Clone, Debug)]
pub struct Looked {
    /// The peer.
    pub peer: PeerKey,
    /// Its name for people.
    pub name: String,
    /// Its failure domain.
    pub domain: String,
    /// The heads that it holds, each opened, or what is wrong with it.
    pub heads: Result<Vec<Result<OpenHead, String>>, StoreError>,
}

impl Looked {
    /// The sound ones.
    pub fn sound(&self) -> impl Iterator<Item = &OpenHead> {
        self.heads.iter().flatten().filter_map(|head| head.as_ref().ok())
    }
}

/// Asks every peer at once for the newest head of each device; one that does not answer within `patience` is away.
pub async fn look(peers: &[Peer], keys: &AccountKeys, patience: Duration) -> Vec<Looked> {
    let account = keys.account_id();
    let asking = peers.iter().map(|peer| async move {
        let answer = tokio::time::timeout(patience, peer.store.heads(account)).await;
        let answer = answer.unwrap_or_else(|_late| {
            Err(StoreError::Unreachable {
                reason: "no answer in time".to_owned(),
            })
        });
        Looked {
            peer: peer.key.clone(),
            name: peer.name.clone(),
            domain: peer.domain.clone(),
            heads: answer.map(|heads| heads.iter().map(|head| OpenHead::open(head, keys)).collect()),
        }
    });
    futures::future::join_all(asking).await
}

/// Records what peers that answered hold. What the catalog took for held and is not there is to be put again.
pub fn note(tx: &Transaction<'_>, looked: &[Looked]) -> Result<(), DbError> {
    let current = crate::catalog::content::posted(tx)?.map(|posted| posted.hash);
    for answered in looked.iter().filter(|looked| looked.heads.is_ok()) {
        let seen: Vec<SeenHead> = answered
            .sound()
            .map(|open| SeenHead {
                peer: answered.peer.clone(),
                device: open.head.device(),
                hash: open.hash,
                seq: open.head.seq,
                made_ns: open.made_ns(),
            })
            .collect();
        heads::see(tx, &answered.peer, &seen)?;
        for open in answered.sound() {
            heads::name(tx, open.head.device(), &open.head.cert.name)?;
        }
        if let Some(current) = current {
            match seen.iter().any(|head| head.hash.0 == current) {
                true => post::add_holder(tx, &answered.peer, &current)?,
                false => post::remove_holder(tx, &answered.peer)?,
            }
        }
    }
    Ok(())
}

/// What is wrong with what a peer holds of this device's newest head; `None`: nothing, or there is none yet.
pub fn fault(conn: &Connection, looked: &Looked, own: DeviceId) -> Result<Option<String>, DbError> {
    let Ok(answers) = &looked.heads else {
        return Ok(None);
    };
    if let Some(Err(reason)) = answers.iter().find(|head| head.is_err()) {
        return Ok(Some(reason.clone()));
    }
    let Some((seq, hash)) = heads::newest_own(conn, own)? else {
        return Ok(None);
    };
    let held = looked.sound().find(|open| open.head.device() == own);
    Ok(match held {
        None => Some("It has no head of this machine".to_owned()),
        Some(held) if held.hash == hash => None,
        Some(held) if held.head.seq < seq => Some(format!(
            "Its head of this machine is number {}, the newest is {seq}",
            held.head.seq
        )),
        Some(held) => Some(format!(
            "Its head of this machine is number {}, which this home does not know",
            held.head.seq
        )),
    })
}
