//! What a daemon does by the hour: ends trash that is old enough, and looks after the other members.

use std::collections::BTreeSet;
use std::time::Duration;

use api::message::AlarmKind;
use api::output::Sink;
use stores::removable::DirPeer;

use crate::Engine;

/// Time between two rounds. Chosen: days are what counts, and a round over an empty trash costs next to nothing.
const ROUND: Duration = Duration::from_secs(3_600);

/// Rounds between two looks at the trash and the locks of buckets, each of which costs requests.
const BUCKET_ROUNDS: u32 = 24;

impl Engine {
    /// Never returns.
    pub(super) async fn keep_for_ever(&self, sink: &Sink) {
        let (mut told, mut round) = (BTreeSet::new(), 0_u32);
        loop {
            self.expire().await;
            self.keep_peers(round, sink).await;
            round = round.wrapping_add(1);
            self.tell_alarms(&mut told, sink).await;
            tokio::time::sleep(ROUND).await;
        }
    }

    async fn expire(&self) {
        let Some(net) = self.0.net.get().cloned() else { return };
        let expired = tokio::task::spawn_blocking(move || net.expire()).await;
        if let Ok(expired) = expired.as_ref().map_err(|error| tracing::warn!("{error}"))
            && expired.shares + expired.returned > 0
        {
            tracing::info!(?expired, "trash of friends");
        }
    }

    /// Folder peers have no node of their own: the owner's ends their trash.
    pub(super) async fn expire_folders(&self) {
        let config = self.config();
        let mut shares = 0;
        for (_, path) in config.folder_peers() {
            let peer = DirPeer::new(path.to_owned(), self.signer(), None);
            let expiring = tokio::task::spawn_blocking(move || peer.store()?.expire()).await;
            match expiring {
                Ok(Ok(expired)) => shares += expired.shares,
                Ok(Err(error)) => tracing::debug!("The trash in {} was not looked through: {error}", path.display()),
                Err(stopped) => tracing::warn!("{stopped}"),
            }
        }
        if shares > 0 {
            // Their use is counted in memory: opened anew, they count again.
            self.refresh_peers();
        }
    }

    /// Buckets have no node, either: their trash, their locks, and the copies of the roster in them.
    pub(super) async fn look_after_buckets(&self, round: u32, sink: &Sink) {
        if round.is_multiple_of(BUCKET_ROUNDS) {
            self.keep_buckets().await;
            self.mend_rosters_in_background(sink).await;
        }
        self.tell_buckets().await;
        self.look_in_buckets().await;
    }

    async fn tell_alarms(&self, told: &mut BTreeSet<(String, AlarmKind)>, sink: &Sink) {
        let alarms = self.alarms().await;
        let now: BTreeSet<_> = alarms.iter().map(|alarm| (alarm.member.clone(), alarm.kind)).collect();
        for alarm in alarms {
            if told.contains(&(alarm.member.clone(), alarm.kind)) {
                continue;
            }
            tracing::warn!("{}", alarm.text);
            self.tell("alarm", alarm.text, sink).await;
        }
        *told = now;
    }
}
