//! Peers that are peers no more: what they hold counts for nothing from that moment on, however they went (a command, a
//! line taken out of config.toml, the founder's word, a smaller bucket).
//!
//! A peer that is only away stays one. What cannot be told, because a roster or a bucket cannot be read now, is left as it is.

use std::collections::HashSet;
use std::sync::Arc;

use api::failure::{Exit, Failure};
use api::message::{PeerRemoval, Problem};
use api::output::Sink;
use api::request::RemoveHow;
use backup::catalog::content::lost::{Lost, LostFiles};
use backup::catalog::disks;
use backup::catalog::disks::VolumeBytes;
use backup::prepare::lost::is_here;
use database::DbError;
use friendnet::roster::Roster;
use proto::id::AccountId;
use upload_queue::packs;
use upload_queue::peers::PeerKey;
use upload_queue::peers::place::Place;

use crate::config::Config;
use crate::policy::tolerate;
use crate::{Engine, failures, kind};

/// Files that would be lost are named up to so many.
const NAMED_MAX: usize = 10;

impl Engine {
    /// Forgets what holders have that neither config nor roster names.
    pub(super) fn give_up_removed(&self, config: &Config) {
        if self.config_fault().is_some() {
            return; // who is a peer now, only the config that cannot be used says
        }
        let named: Vec<_> = kind::kinds().map(|kind| (kind, self.keys_of(kind, config))).collect();
        let is_gone = |key: &PeerKey| {
            let Some(place) = key.place() else { return false };
            let of_kind = named.iter().find(|(kind, _)| *kind == kind::of(&place));
            let keys = of_kind.and_then(|(_, keys)| keys.as_ref());
            keys.is_some_and(|keys| !keys.contains(key))
        };
        let forget = || {
            if !self.0.db.read(packs::holders)?.iter().any(is_gone) {
                return Ok(Vec::new());
            }
            self.0.db.write::<_, DbError>(|tx| packs::forget_holders(tx, is_gone))
        };
        match forget() {
            Ok(forgotten) if forgotten.is_empty() => {}
            Ok(forgotten) => {
                for (key, shares) in forgotten {
                    let key = key.0;
                    tracing::warn!("{key} is a peer no longer: its {shares} shares count no more and are built anew");
                }
                self.0.repair_now.notify_one();
            }
            Err(error) => tracing::warn!("What a peer holds that is none any more is still counted: {error}"),
        }
    }

    /// The devices of friends whose account fits; `None` if there is no roster that could tell.
    pub(super) fn keys_of_devices(&self, fits: &dyn Fn(AccountId) -> bool) -> Option<HashSet<PeerKey>> {
        // A network without its roster knows nobody: that says nothing of anybody.
        let roster = Roster::load(&self.0.home.paths.roster())?;
        let roster = self.0.net.get().map_or_else(|| Arc::new(roster), |net| net.roster());
        let friends = self.friends(&roster).into_iter();
        let of_account = friends.filter(|friend| fits(friend.account));
        Some(of_account.map(|friend| Place::Friend(friend.device).key()).collect())
    }

    /// Says what it costs to remove a peer; whether it is to be removed. Fails if content would be lost with it and nobody
    /// said that this is meant.
    pub(super) async fn may_remove(
        &self,
        name: &str,
        friend: Option<AccountId>,
        how: RemoveHow,
        sink: &Sink,
    ) -> Result<bool, Failure> {
        let config = self.config();
        let keys = match friend {
            Some(account) => self.keys_of_devices(&|of| of == account).unwrap_or_default(),
            None => self.keys_of_entry(name, &config),
        };
        let voting = keys.clone();
        let (db, share_tolerate) = (self.0.db.clone(), tolerate(&config));
        let counting = move || db.read(|conn| cost(conn, &keys, share_tolerate));
        let (mut removal, lost, disks) = tokio::task::spawn_blocking(counting)
            .await
            .map_err(failures::worker)??;
        let is_removed = |key: &PeerKey| voting.contains(key);
        self.may_lose_voters(name, &is_removed, how != RemoveHow::Carefully, sink)
            .await?;
        removal.name = name.to_owned();
        removal.disks_lost = self.disk_names(disks);
        let (shares, disks_lost) = (removal.shares, removal.disks_lost.clone());
        if shares > 0 || how == RemoveHow::DryRun {
            sink.send(removal).await?;
        }
        for file in &lost.named {
            let error = format!("It would be lost with {name}: it is not here any more as it was");
            sink.send(Problem::of_path(file.path.as_slice(), error)).await?;
        }
        if !disks_lost.is_empty() && how == RemoveHow::Carefully {
            let error = format!(
                "With `{name}` blocks of the disk {} would be lost: nobody else has enough of them",
                disks_lost.join(", ")
            );
            return Err(Failure::new(Exit::Failed, error).hint(format!(
                "bring other peers back and `gridbackup repair` first, or `gridbackup peer rm {name} --force`"
            )));
        }
        if lost.files > 0 && how == RemoveHow::Carefully {
            let error = format!(
                "With `{name}` the content of {} files would be lost: nobody else has enough of it, and they are not here as they were",
                lost.files
            );
            return Err(Failure::new(Exit::Failed, error).hint(format!(
                "bring other peers back and `gridbackup repair` first, or `gridbackup peer rm {name} --force`"
            )));
        }
        Ok(how != RemoveHow::DryRun)
    }
}

/// What it costs to be without these peers, and the files and disks of which something would be lost.
fn cost(
    conn: &rusqlite::Connection,
    keys: &HashSet<PeerKey>,
    tolerate: u8,
) -> Result<(PeerRemoval, LostFiles, Vec<VolumeBytes>), DbError> {
    let mut removal = PeerRemoval::default();
    let lost_packs: HashSet<_> = packs::lost_without(conn, keys)?.into_iter().collect();
    for row in packs::rows(conn)? {
        let Some(pack) = packs::get(conn, row)? else { continue };
        let theirs = pack
            .holders
            .iter()
            .flatten()
            .filter(|holder| keys.contains(holder))
            .count();
        if theirs == 0 {
            continue;
        }
        let stored_bytes = pack.manifest.shape.share.stored_bytes() as u64;
        removal.shares += theirs as u64;
        removal.bytes += theirs as u64 * stored_bytes;
        let again = match lost_packs.contains(&row) {
            true => usize::from(pack.manifest.shape.n),
            false => theirs,
        };
        removal.bytes_again += again as u64 * stored_bytes;
        let left = pack.held() - theirs;
        removal.packs_unsafe += u64::from(left < usize::from(pack.manifest.shape.k) + usize::from(tolerate));
    }
    let mut lost = LostFiles::default();
    Lost::of(conn, &lost_packs)?.for_each_file::<DbError>(conn, &mut |file| {
        match is_here(&file) {
            true => removal.files_again += 1,
            false => lost.count(file, NAMED_MAX),
        }
        Ok(())
    })?;
    removal.files_lost = lost.files;
    let disks = disks::volumes_of(conn, &lost_packs)?.into_keys().collect();
    Ok((removal, lost, disks))
}
