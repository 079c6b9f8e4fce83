//! Alarms: what the nodes of friends notice about a member, also when its own machine is dead and cannot say it.

use api::clock;
use api::failure::{Exit, Failure};
use api::human::Period;
use api::message::{Alarm, AlarmKind, Changed, Deed, Thing};
use api::output::Sink;
use proto::id::AccountId;

use crate::{Engine, failures};

const DAY_SECS: u64 = 86_400;
/// From when on a silent member's shares are everyone's business. Chosen: a season; a broken machine was replaced by then.
const NOTICE_DAYS: u64 = 90;
/// From when on the holder may give the space to somebody else. Chosen: half a year; nothing is deleted by itself even then.
const DECISION_DAYS: u64 = 180;

/// What is known of a member.
#[derive(Clone, Debug)]
struct Life {
    name: String,
    heard_secs: u64,
    /// None: it has no backup here.
    head_secs: Option<u64>,
}

impl Engine {
    /// What is wrong with other members, as far as this node can tell.
    pub(super) async fn alarms(&self) -> Vec<Alarm> {
        let Some(net) = self.0.net.get().cloned() else {
            return Vec::new();
        };
        let own = self.0.home.account.account_id();
        let after = self.config().alarm_after;
        let looking = move || {
            let roster = net.roster();
            let members = roster.members().filter(|member| member.account != own);
            let lives = members.map(|member| {
                let account: AccountId = member.account;
                let (heard_secs, head_secs) = net.signs_of_life(account);
                Life {
                    name: roster.name_of(account),
                    heard_secs,
                    head_secs,
                }
            });
            let now_secs = clock::now_secs();
            lives.filter_map(|life| alarm(&life, after, now_secs)).collect()
        };
        tokio::task::spawn_blocking(looking).await.unwrap_or_default()
    }
}

impl Engine {
    /// Frees the space of a member that has been silent for half a year: a decision that no node takes by itself.
    pub(super) async fn evict(&self, name: &str, sink: &Sink) -> Result<Exit, Failure> {
        let net = self.network().await?;
        let Some(account) = self.member_named(name)? else {
            return Err(self.unknown_peer(name));
        };
        let evicting = tokio::task::spawn_blocking(move || {
            let (heard_secs, _) = net.signs_of_life(account);
            let days = clock::now_secs().saturating_sub(heard_secs) / DAY_SECS;
            (days, (days >= DECISION_DAYS).then(|| net.evict(account)))
        });
        let (days, evicted) = evicting.await.map_err(failures::worker)?;
        let Some(evicted) = evicted else {
            let error =
                format!("{name} was heard from {days} days ago: what it stored is kept for {DECISION_DAYS} days");
            return Err(Failure::new(Exit::Failed, error)
                .hint("`gridbackup peer set NAME --quota SIZE` limits what it may add"));
        };
        let bytes = evicted.map_err(|error| Failure::from_error(&error))?;
        tracing::warn!(name, bytes, "what a silent member stored was removed");
        sink.send(Changed::new(Deed::Removed, Thing::SharesOf, name)).await?;
        Ok(Exit::Done)
    }
}

fn alarm(life: &Life, after: Period, now_secs: u64) -> Option<Alarm> {
    let age = |since: u64| now_secs.saturating_sub(since);
    let name = &life.name;
    let (silent_secs, head_secs) = (age(life.heard_secs), life.head_secs.map(age));
    let days = silent_secs / DAY_SECS;
    let (kind, days, text) = if days >= DECISION_DAYS {
        let text = format!(
            "{name} has not been heard from for {days} days: keep its shares, or free their space with \
             `gridbackup peer evict`; nothing goes by itself"
        );
        (AlarmKind::Abandoned, days, text)
    } else if days >= NOTICE_DAYS {
        let left = DECISION_DAYS - days;
        let text = format!(
            "{name} has not been heard from for {days} days: ask it; in {left} days each holder may decide about its shares"
        );
        (AlarmKind::LongSilent, days, text)
    } else if silent_secs >= after.0.as_secs() {
        (
            AlarmKind::Silent,
            days,
            format!("{name} has not been heard from for {days} days"),
        )
    } else {
        let secs = head_secs.filter(|secs| *secs >= after.0.as_secs())?;
        let days = secs / DAY_SECS;
        let text = format!("{name} has made no new backup for {days} days");
        (AlarmKind::NoBackup, days, text)
    };
    Some(Alarm {
        member: life.name.clone(),
        kind,
        days,
        text,
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const NOW: u64 = 1_800_000_000;

    fn kind(heard_days: u64, head_days: Option<u64>) -> Option<&'static str> {
        let life = Life {
            name: "Bob".into(),
            heard_secs: NOW - heard_days * DAY_SECS,
            head_secs: head_days.map(|days| NOW - days * DAY_SECS),
        };
        alarm(&life, Period(Duration::from_secs(3 * DAY_SECS)), NOW).map(|alarm| alarm.kind.name())
    }

    #[test]
    fn silence_and_missing_backups_are_told_in_time() {
        for (heard, head, expected) in [
            (0, None, None),
            (2, Some(2), None),
            (0, Some(3), Some("no_backup")),
            (3, Some(3), Some("silent")),
            (89, None, Some("silent")),
            (90, None, Some("long_silent")),
            (180, Some(180), Some("abandoned")),
        ] {
            assert_eq!(kind(heard, head), expected, "{heard} {head:?}");
        }
    }
}
