//! Who belongs: removing friends from the grid; the account's own devices, and what it says of itself by its words.

use std::time::Duration;

use jiff::Timestamp;
use proto::id::AccountId;
use proto::keys::power;
use proto::wire::word::AccountWord;

use crate::engine::{Engine, Mode};
use crate::failure::{Exit, Failure};
use crate::friendnet::members::RemovalError;
use crate::friendnet::roster::Roster;
use crate::friendnet::roster::deeds::{RemoveError, Removed};
use crate::message::{Changed, Device, Problem};
use crate::output::Sink;
use crate::request::Word;

/// How long a short command stays to tell friends who are there; the others hear of it from them. Chosen: a few dials.
const TELLING_TIME: Duration = Duration::from_secs(5);

impl Engine {
    /// The friend of this name, unless the config has a folder or bucket of that name. Two with the same name are told apart by more
    /// digits: the beginning of an account's id is a name, too.
    pub(super) fn member_named(&self, name: &str) -> Result<Option<AccountId>, Failure> {
        let config = self.config();
        if config.peers.get(name).is_some_and(|peer| peer.url.is_some()) {
            return Ok(None);
        }
        let roster = Roster::load(&self.0.home.paths.roster());
        let Some(roster) = roster else { return Ok(None) };
        let own = self.0.home.account.account_id();
        let is_id = |id: String| name.len() >= 8 && id.starts_with(name);
        let friends = roster
            .members()
            .filter(|member| member.account != own && (member.name == name || is_id(member.account.to_string())));
        let mut found: Vec<_> = friends.map(|member| member.account).collect();
        if found.is_empty() && !roster.devices_called(own, name).is_empty() {
            return Err(
                Failure::new(Exit::Usage, format!("`{name}` is a machine of your own, and no peer"))
                    .hint(format!("`gridbackup device revoke {name} --phrase-file FILE`")),
            );
        }
        if found.len() > 1 {
            let ids: Vec<String> = found
                .iter()
                .map(|account| account.to_string()[..16].to_owned())
                .collect();
            return Err(
                Failure::new(Exit::Usage, format!("{} are called `{name}`", found.len()))
                    .hint(format!("name one by the first digits of its id: {}", ids.join(", "))),
            );
        }
        Ok(found.pop())
    }

    pub(super) async fn remove_member(&self, name: &str, account: AccountId, sink: &Sink) -> Result<Exit, Failure> {
        let net = self.network().await?;
        let removing = tokio::task::spawn_blocking({
            let net = net.clone();
            move || net.remove_member(account)
        });
        let removed = removing
            .await
            .map_err(|error| Failure::context("The roster was not changed", &error))?;
        let removed = removed.map_err(|error| removal_failure(name, &error))?;
        self.refresh_peers();
        if removed != Removed::Already {
            self.leave_time_to_tell().await;
        }
        if let Removed::Voted { lacking } = removed {
            sink.send(Problem::of_peer(
                name,
                format!("It stays a member until {lacking} more who were admitted by the founder remove it, or the founder does"),
            ))
            .await?;
        }
        let action = match removed {
            Removed::Out => "removed",
            Removed::Already => "unchanged",
            Removed::Voted { .. } => "voted out",
        };
        sink.send(Changed {
            action: action.to_owned(),
            what: "peer".to_owned(),
            name: name.to_owned(),
        })
        .await?;
        Ok(Exit::Done)
    }

    /// The devices of this account, those that were revoked last.
    pub(super) async fn list_devices(&self, sink: &Sink) -> Result<Exit, Failure> {
        let (own, this) = (self.0.home.account.account_id(), self.device());
        let net = self.0.net.get();
        let Some(roster) = Roster::load(&self.0.home.paths.roster()) else {
            return Err(Failure::new(
                Exit::Failed,
                "This node has no grid yet, and knows no device of the account",
            ));
        };
        let revoked = roster.word(own).map(|word| word.revoked.clone()).unwrap_or_default();
        for device in roster.devices().filter(|device| device.cert.account == own) {
            let (id, secs) = (device.cert.device, device.cert.issued_secs);
            sink.send(Device {
                name: device.cert.name.clone(),
                id: id.to_string(),
                powers: powers(device.cert.powers),
                certified: i64::try_from(secs)
                    .ok()
                    .and_then(|secs| Timestamp::from_second(secs).ok()),
                is_this: id == this,
                is_online: id == this || net.is_some_and(|net| net.connected(id)),
                is_revoked: false,
            })
            .await?;
        }
        for id in revoked {
            sink.send(Device {
                name: String::new(),
                id: id.to_string(),
                powers: Vec::new(),
                certified: None,
                is_this: id == this,
                is_online: false,
                is_revoked: true,
            })
            .await?;
        }
        Ok(Exit::Done)
    }

    /// Tells everybody what this account says of itself; after leaving, founds a grid of its own.
    pub(super) async fn say(&self, word: &Word, sink: &Sink) -> Result<Exit, Failure> {
        let net = self.network().await?;
        let (before, own) = (net.roster(), self.0.home.account.account_id());
        let said = self.heard(word).await?;
        self.refresh_peers();
        // Once it has a grid of its own, a daemon tells the old one nothing any more either.
        match said.left.contains(&before.grid()) {
            true => tokio::time::sleep(TELLING_TIME).await,
            false => self.leave_time_to_tell().await,
        }
        let changed = |action: &str, what: &str, name: String| Changed {
            action: action.to_owned(),
            what: what.to_owned(),
            name,
        };
        let old = before.word(own).map(|word| word.revoked.clone()).unwrap_or_default();
        for device in said.revoked.iter().filter(|device| !old.contains(device)) {
            let name = before.device(*device).map(|device| device.cert.name.clone());
            sink.send(changed("revoked", "device", name.unwrap_or_else(|| device.short())))
                .await?;
        }
        if said.left.contains(&before.grid()) {
            let founding = net.clone();
            let founded = tokio::task::spawn_blocking(move || founding.found_anew()).await;
            let founded = founded.map_err(|error| Failure::context("No grid was founded", &error))?;
            founded.map_err(|error| Failure::from_error(&error))?;
            self.refresh_peers();
            sink.send(changed("left", "grid", before.grid().to_string())).await?;
        }
        Ok(Exit::Done)
    }

    /// Takes in what this account says of itself.
    pub(super) async fn heard(&self, word: &Word) -> Result<AccountWord, Failure> {
        let own = self.0.home.account.account_id();
        let decoded = word.decoded().filter(|word| word.account == own);
        let Some(said) = decoded else {
            return Err(Failure::new(
                Exit::WrongPhrase,
                "That was not said by the words of this account",
            ));
        };
        let (net, word) = (self.network().await?, said.clone());
        let saying = tokio::task::spawn_blocking(move || net.say(word)).await;
        let is_news = saying
            .map_err(|error| Failure::context("The roster was not changed", &error))?
            .map_err(|error| Failure::from_error(&error))?;
        match is_news {
            true => Ok(said),
            false => Err(
                Failure::new(Exit::Failed, "The account has said something newer meanwhile")
                    .hint("run the command again"),
            ),
        }
    }

    /// Leaves a short command the time to tell others what changed; a daemon does it by itself.
    async fn leave_time_to_tell(&self) {
        if matches!(self.0.mode, Mode::Command { .. }) {
            tokio::time::sleep(TELLING_TIME).await;
        }
    }
}

fn powers(bits: u8) -> Vec<String> {
    let names = [
        (power::PUT, "put"),
        (power::REPAIR, "repair"),
        (power::READ, "read"),
        (power::GIVE_UP, "give_up"),
        (power::ADMIT, "admit"),
    ];
    let held = names.into_iter().filter(|(bit, _)| bits & bit != 0);
    held.map(|(_, name)| name.to_owned()).collect()
}

fn removal_failure(name: &str, error: &RemovalError) -> Failure {
    let failure = Failure::from_error(error);
    match error {
        RemovalError::Refused(RemoveError::NoVote { .. }) => failure.hint(format!(
            "ask one of them; to keep nothing more for {name} meanwhile: `gridbackup peer set {name} --quota 0`"
        )),
        _ => failure,
    }
}
