//! Who belongs: removing friends from the grid; the account's own devices, and what it says of itself by its words.

use std::sync::Arc;

use api::failure::{Exit, Failure};
use api::message::{Changed, Deed, Device, Power, Problem, Thing};
use api::output::Sink;
use api::request::Word;
use friendnet::handle::NetHandle;
use friendnet::members::RemovalError;
use friendnet::roster::deeds::{RemoveError, Removed, SaidAgain};
use friendnet::roster::{Device as FriendDevice, Roster};
use jiff::Timestamp;
use proto::id::{AccountId, DeviceId};
use proto::keys::power;
use proto::wire::word::AccountWord;

use crate::Engine;

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
        let mut found = roster.accounts_called(name);
        found.retain(|account| *account != own);
        if found.is_empty() && !roster.devices_called(own, name).is_empty() {
            return Err(
                Failure::new(Exit::Usage, format!("`{name}` is a machine of your own, and no peer"))
                    .hint(format!("`gridbackup device revoke {name} --phrase-file FILE`")),
            );
        }
        if found.len() > 1 {
            let names = names(&roster, found.iter());
            return Err(
                Failure::new(Exit::Usage, format!("{} are called `{name}`", found.len()))
                    .hint(format!("name one of them: {names}")),
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
            self.tell_all(&net, &net.roster(), sink).await?;
        }
        if let Removed::Voted { lacking } = removed {
            sink.send(Problem::of_peer(
                name,
                format!("It stays a member until {lacking} more who were admitted by the founder remove it, or the founder does"),
            ))
            .await?;
        }
        let action = match removed {
            Removed::Out => Deed::Removed,
            Removed::Already => Deed::Unchanged,
            Removed::Voted { .. } => Deed::VotedOut,
        };
        sink.send(Changed::new(action, Thing::Peer, name)).await?;
        Ok(Exit::Done)
    }

    /// The devices of this account, those that were revoked last.
    pub(super) async fn list_devices(&self, sink: &Sink) -> Result<Exit, Failure> {
        let (own, this) = (self.0.home.account.account_id(), self.device());
        let net = self.0.net.get();
        let roster = Roster::load(&self.0.home.paths.roster());
        let devices = roster.iter().flat_map(Roster::devices).map(|device| &device.cert);
        let mut certs: Vec<_> = devices.filter(|cert| cert.account == own).collect();
        let is_trusted = roster
            .as_ref()
            .is_none_or(|roster| roster.is_in_force(&self.0.home.cert));
        // Before there is a grid no roster knows it.
        if is_trusted && certs.iter().all(|cert| cert.device != this) {
            certs.push(&self.0.home.cert);
        }
        for cert in certs {
            let (id, secs) = (cert.device, cert.issued_secs);
            sink.send(Device {
                name: cert.name.clone(),
                id: id.to_string(),
                powers: powers(cert.powers),
                certified: i64::try_from(secs)
                    .ok()
                    .and_then(|secs| Timestamp::from_second(secs).ok()),
                is_this: id == this,
                is_online: id == this || net.is_some_and(|net| net.connected(id)),
                is_revoked: false,
            })
            .await?;
        }
        let word = roster.as_ref().and_then(|roster| roster.word(own));
        let mut revoked = word.map(|word| word.revoked.clone()).unwrap_or_default();
        if !is_trusted && !revoked.contains(&this) {
            revoked.push(this);
        }
        for id in revoked {
            sink.send(Device {
                name: id.short(),
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
        let (before, own) = (self.hear_first(&net, word).await?, self.0.home.account.account_id());
        let (said, again) = self.heard(word).await?;
        self.refresh_peers();
        // Before it has a grid of its own: from then on it tells the old one nothing.
        self.tell_all(&net, &before, sink).await?;
        let old = before.word(own).map(|word| word.revoked.clone()).unwrap_or_default();
        for device in said.revoked.iter().filter(|device| !old.contains(device)) {
            let name = before.device(*device).map(|device| device.cert.name.clone());
            sink.send(Changed::new(
                Deed::Revoked,
                Thing::Device,
                name.unwrap_or_else(|| device.short()),
            ))
            .await?;
        }
        if said.since_secs > before.word(own).map_or(0, |word| word.since_secs) {
            sink.send(Changed::new(
                Deed::Revoked,
                Thing::Device,
                "all that are older than this one",
            ))
            .await?;
        }
        if said.revokes_more_than(before.word(own)) {
            let text = "`gridbackup recover` now takes in whatever friends still have of its backups, from the oldest on; \
                        settings that came with its newest may be a thief's: look at `gridbackup config get`";
            sink.send(Problem::new(text)).await?;
        }
        for text in of_the_revoked(&before, &net.roster(), &said, &again) {
            sink.send(Problem::new(text)).await?;
        }
        if said.left.contains(&before.grid()) {
            let founding = net.clone();
            let founded = tokio::task::spawn_blocking(move || founding.found_anew()).await;
            let founded = founded.map_err(|error| Failure::context("No grid was founded", &error))?;
            founded.map_err(|error| Failure::from_error(&error))?;
            self.refresh_peers();
            sink.send(Changed::new(Deed::Left, Thing::Grid, before.grid().to_string()))
                .await?;
        }
        Ok(Exit::Done)
    }

    /// Hears from friends what is not known here, whom another machine has let in or revoked, and refuses a word that was said without it.
    async fn hear_first(&self, net: &NetHandle, word: &Word) -> Result<Arc<Roster>, Failure> {
        let (known, own) = (net.roster(), self.0.home.account.account_id());
        let deaf = net.tell(&known).await;
        let (now, said) = (net.roster(), word.decoded());
        let revokes = said.as_ref().is_some_and(|said| said.revokes_more_than(now.word(own)));
        let is_heard = |device: &FriendDevice| device.cert.account != own && !deaf.contains(&device.cert.account);
        if revokes && !word.unheard && !known.devices().any(is_heard) {
            return Err(Failure::new(
                Exit::Failed,
                "No friend of the grid answers: whom that machine has let in lately is not known here, and nobody would hear of it",
            )
            .hint(
                "try again when one is up; a blank machine first finds the grid with `gridbackup recover --via`; with `--unheard` it is \
                 said here, and friends hear of it when they meet this machine",
            ));
        }
        // What it had said for the account would be void, and nobody stood by.
        let is_unknown = |device: &DeviceId| now.device(*device).is_none() && !is_revoked(&now, own, device);
        if now.is_alone(own) && said.iter().flat_map(|said| &said.revoked).any(is_unknown) {
            return Err(Failure::new(
                Exit::Failed,
                "This home knows neither that machine nor anybody who may know it",
            )
            .hint("`gridbackup recover --via ADDRESS` finds the grid that the account is in"));
        }
        let is_new = now.word(own) != known.word(own) && now.word(own) != said.as_ref();
        let is_missed = said.is_some_and(|said| {
            let carriers = now.carriers();
            let mut admitted = now
                .admitted_by_revoked(own, &said)
                .into_iter()
                .filter(|account| carriers.contains(account));
            admitted.any(|account| !said.stands_by(account) && !word.put_out.contains(&account.to_string()))
        });
        if is_new || is_missed { Err(newer()) } else { Ok(now) }
    }

    /// Takes in what this account says of itself; removals by revoked devices are said again, but for those taken back.
    pub(super) async fn heard(&self, word: &Word) -> Result<(AccountWord, SaidAgain), Failure> {
        let own = self.0.home.account.account_id();
        let decoded = word.decoded().filter(|word| word.account == own);
        let Some(said) = decoded else {
            return Err(Failure::new(
                Exit::WrongPhrase,
                "That was not said by the words of this account",
            ));
        };
        let taken_back = word.take_back.iter().filter_map(|id| id.parse().ok()).collect();
        let (net, word) = (self.network().await?, said.clone());
        let saying = tokio::task::spawn_blocking(move || net.say(word, &taken_back)).await;
        let again = saying
            .map_err(|error| Failure::context("The roster was not changed", &error))?
            .map_err(|error| Failure::from_error(&error))?;
        again.map(|again| (said, again)).ok_or_else(newer)
    }

    /// Tells all members of `roster` what changed, and says who could not be told.
    async fn tell_all(&self, net: &NetHandle, roster: &Roster, sink: &Sink) -> Result<(), Failure> {
        let own = self.0.home.account.account_id();
        let mut deaf = net.tell(roster).await;
        deaf.remove(&own);
        let friends = roster.members().filter(|member| member.account != own).count();
        let names = names(roster, deaf.iter());
        match deaf.len() {
            0 => Ok(()),
            all if all == friends => {
                let text = format!("Nobody has heard of it yet ({names}): until then it holds nowhere but here");
                Ok(sink.send(Problem::new(text)).await?)
            }
            _ => {
                let text = format!("Not reached yet: {names}. They hear of it when they meet anybody who has heard");
                Ok(sink.send(Problem::new(text)).await?)
            }
        }
    }
}

fn is_revoked(roster: &Roster, account: AccountId, device: &DeviceId) -> bool {
    roster.word(account).is_some_and(|word| word.revoked.contains(device))
}

fn newer() -> Failure {
    Failure::new(Exit::Failed, "The account has said something newer meanwhile").hint("run the command again")
}

fn names<'a>(roster: &Roster, accounts: impl Iterator<Item = &'a AccountId>) -> String {
    let names: Vec<String> = accounts.map(|account| roster.name_of(*account)).collect();
    names.join(", ")
}

/// What became of what devices that are revoked had said in the account's name: a thief may have said it.
fn of_the_revoked(before: &Roster, after: &Roster, said: &AccountWord, again: &SaidAgain) -> Vec<String> {
    let newly = before.admitted_by_revoked(said.account, said);
    let old = before.word(said.account);
    let was_said = |account: &AccountId| old.is_some_and(|word| word.stands_by(*account));
    let admitted: Vec<AccountId> = newly.into_iter().filter(|account| !was_said(account)).collect();
    let (staying, _) = admitted
        .into_iter()
        .partition(|account| after.member(*account).is_some());
    let out: Vec<AccountId> = before
        .members()
        .map(|member| member.account)
        .filter(|account| after.member(*account).is_none() && *account != said.account)
        .collect();
    let kinds: [(&Vec<AccountId>, &str); 5] = [
        (&out, "Out of the grid with it: {}"),
        (
            &again.taken_back,
            "It had removed: {}. That stands no more: `gridbackup invite` brings them back",
        ),
        (
            &staying,
            "It had let in: {}. They stay: `gridbackup peer rm NAME` removes whom you do not know",
        ),
        (
            &again.removed,
            "It had removed: {}. They stay out: `gridbackup invite` brings back whom you miss",
        ),
        (
            &again.votes_dropped,
            "It had voted against: {}. The vote counts no more: `gridbackup peer rm NAME` casts it again",
        ),
    ];
    let said = kinds.into_iter().filter(|(accounts, _)| !accounts.is_empty());
    said.map(|(accounts, text)| text.replace("{}", &names(before, accounts.iter())))
        .collect()
}

fn powers(bits: u8) -> Vec<Power> {
    let known = [
        (power::PUT, Power::Put),
        (power::REPAIR, Power::Repair),
        (power::READ, Power::Read),
        (power::GIVE_UP, Power::GiveUp),
        (power::ADMIT, Power::Admit),
    ];
    let held = known.into_iter().filter(|(bit, _)| bits & bit != 0);
    held.map(|(_, power)| power).collect()
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
