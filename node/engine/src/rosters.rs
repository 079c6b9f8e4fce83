//! Copies of the grid's roster in buckets: left there, looked for, put again.
//!
//! A recovered machine finds its friends by them, and members whose addresses have changed find each other. Between friends
//! rosters are compared at every greeting; nobody but this looks after those in buckets.

use api::failure::Failure;
use api::message::Problem;
use api::output::Sink;
use friendnet::roster::Roster;
use futures::future::join_all;
use proto::wire::roster::RosterRecords;
use stores::bucket::{Bucket, RosterCopy};

use crate::Engine;

/// What a look at the copies came to.
#[derive(Clone, Debug, Default)]
pub(super) struct RostersFound {
    /// Buckets in which this device left the roster, and that answered.
    pub expected: u64,
    /// Those of them that still have it, with everybody in it.
    pub found: u64,
    /// What is wrong, by peer.
    pub faults: Vec<(String, String)>,
}

impl Engine {
    /// Leaves the roster in every bucket where this device has not left this one yet. What fails is tried again the next time.
    pub(super) async fn tell_buckets(&self) {
        let Some(roster) = self.roster_to_tell() else { return };
        let digest = digest(&roster);
        let buckets = self.buckets().into_iter();
        let untold = buckets.filter(|(_, bucket, _)| self.told(bucket).is_none_or(|told| told != digest));
        let telling = untold.map(|(name, bucket, _)| self.leave_roster(name, bucket, &roster));
        join_all(telling).await;
    }

    fn roster_to_tell(&self) -> Option<Roster> {
        let roster = self.0.net.get()?.roster();
        (!roster.records().devices.is_empty()).then(|| Roster::clone(&roster))
    }

    /// Digest of what was left in a bucket last.
    fn told(&self, bucket: &Bucket) -> Option<String> {
        std::fs::read_to_string(self.0.home.paths.told_roster(&bucket.url())).ok()
    }

    async fn leave_roster(&self, name: String, bucket: Bucket, roster: &Roster) {
        let left = bucket.tell(self.device(), &roster.records()).await;
        let noted = left.map_err(|error| error.to_string()).and_then(|()| {
            let note = self.0.home.paths.told_roster(&bucket.url());
            let noted = durable::replace_note(&note, &[digest(roster).as_bytes()]);
            noted.map_err(|error| error.to_string())
        });
        if let Err(error) = noted {
            tracing::warn!("The roster was not left in {name}: {error}");
        }
    }

    /// Looks whether what this device left in buckets is still there. A bucket that does not answer is no fault of the copy.
    pub(super) async fn check_rosters(&self) -> RostersFound {
        let mut found = RostersFound::default();
        let Some(roster) = self.roster_to_tell() else {
            return found;
        };
        for (name, bucket, _) in self.buckets() {
            if self.told(&bucket).is_none() {
                continue;
            }
            let copies = match bucket.told(self.device(), roster.grid()).await {
                Ok(copies) => copies,
                Err(error) => {
                    tracing::debug!("The roster in {name} cannot be looked at: {error}");
                    continue;
                }
            };
            let fault = copies.iter().find_map(|copy| fault(copy, &roster));
            found.expected += 1;
            found.found += u64::from(fault.is_none());
            found.faults.extend(fault.map(|fault| (name, fault.to_owned())));
        }
        found
    }

    /// Names what is wrong with the copies.
    pub(super) async fn say_rosters(&self, found: &RostersFound, sink: &Sink) -> Result<(), Failure> {
        for (peer, error) in &found.faults {
            let error = format!("{error}; `gridbackup repair` puts it there again");
            sink.send(Problem::of_peer(peer, error)).await?;
        }
        Ok(())
    }

    /// Puts the roster again where it is missing, damaged or old.
    pub(super) async fn mend_rosters(&self) -> RostersFound {
        let found = self.check_rosters().await;
        if found.faults.is_empty() {
            return found;
        }
        let is_at_fault = |name: &String| found.faults.iter().any(|(faulty, _)| faulty == name);
        for (name, bucket, _) in self.buckets().into_iter().filter(|(name, ..)| is_at_fault(name)) {
            // What another machine of the account left there is not to be lost.
            if let Ok(Some(known)) = bucket.own_roster().await {
                self.learn(vec![known]).await;
            }
            if let Some(roster) = self.roster_to_tell() {
                self.leave_roster(name, bucket, &roster).await;
            }
        }
        self.check_rosters().await
    }

    /// The same by the daemon, which tells of it.
    pub(super) async fn mend_rosters_in_background(&self, sink: &Sink) {
        let before = self.check_rosters().await;
        if before.faults.is_empty() {
            return;
        }
        let after = self.mend_rosters().await;
        let text = format!(
            "The grid's roster was missing, old or damaged in {} buckets, and is in {} now",
            before.faults.len(),
            after.faults.len()
        );
        self.tell("roster", text, sink).await;
    }

    /// Looks in the buckets for where friends are who are not connected.
    pub(super) async fn look_in_buckets(&self) {
        let Some(net) = self.0.net.get() else { return };
        let roster = net.roster();
        if self.friends(&roster).iter().all(|friend| net.connected(friend.device)) {
            return;
        }
        for (name, bucket, _) in self.buckets() {
            match bucket.meet(roster.grid()).await {
                Ok(found) => self.learn(found).await,
                Err(error) => tracing::warn!("Nobody was looked for in {name}: {error}"),
            }
        }
    }

    /// Takes in what others knew of the grid.
    pub(super) async fn learn(&self, found: Vec<RosterRecords>) {
        let Some(net) = self.0.net.get() else { return };
        for records in found {
            if let Err(error) = net.learn(records).await {
                tracing::debug!("A roster in a bucket is of no use: {error}");
            }
        }
    }
}

fn digest(roster: &Roster) -> String {
    data_encoding::HEXLOWER.encode(&roster.digest())
}

/// What is wrong with a copy. That a friend has moved since is not: the next round tells it.
fn fault(copy: &RosterCopy, own: &Roster) -> Option<&'static str> {
    match copy {
        RosterCopy::Missing => {
            Some("The grid's roster, by which a recovered machine finds its friends, is missing there")
        }
        RosterCopy::Damaged => {
            Some("The grid's roster, by which a recovered machine finds its friends, is damaged there")
        }
        RosterCopy::There(copy) => lacks(&Roster::from_records(copy), own)
            .then_some("The grid's roster there is old, and does not know everybody"),
    }
}

/// Whether somebody is in one roster, or was removed from it, and the other does not know that.
fn lacks(copy: &Roster, own: &Roster) -> bool {
    let removals = copy.records().removals;
    own.grid() != copy.grid()
        || own.members().any(|member| copy.member(member.account).is_none())
        || own.devices().any(|device| copy.device(device.cert.device).is_none())
        || own.records().removals.iter().any(|removal| !removals.contains(removal))
}
