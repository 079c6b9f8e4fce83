//! Removing friends from the grid, and devices of one's own account.

use std::time::Duration;

use proto::id::{AccountId, DeviceId};

use crate::engine::{Engine, Mode};
use crate::failure::{Exit, Failure};
use crate::friendnet::members::RemovalError;
use crate::friendnet::roster::Roster;
use crate::friendnet::roster::standing::RemoveError;
use crate::message::Changed;
use crate::output::Sink;

/// How long a short command stays to tell friends who are there; the others hear of it from them. Chosen: a few dials.
const TELLING_TIME: Duration = Duration::from_secs(5);

/// Who is to be removed.
pub(super) enum Whom {
    /// A friend, with all devices.
    Friend(AccountId),
    /// A device of one's own.
    Device(DeviceId),
}

impl Engine {
    /// The friend, or else the own device, of this name, unless the config has a folder or bucket of that name. Two with the
    /// same name are told apart by more digits: the beginning of an account or device id is a name, too.
    pub(super) fn member_named(&self, name: &str) -> Result<Option<Whom>, Failure> {
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
        let devices = roster.devices().filter(|device| {
            let cert = &device.cert;
            cert.account == own && cert.device != self.device() && (cert.name == name || is_id(cert.device.to_string()))
        });
        let mut found: Vec<_> = friends.map(|member| Whom::Friend(member.account)).collect();
        if found.is_empty() {
            found.extend(devices.map(|device| Whom::Device(device.cert.device)));
        }
        if found.len() > 1 {
            return Err(
                Failure::new(Exit::Usage, format!("{} are called `{name}`", found.len()))
                    .hint("name one by the first digits of its id"),
            );
        }
        Ok(found.pop())
    }

    pub(super) async fn remove_member(&self, name: &str, whom: Whom, sink: &Sink) -> Result<Exit, Failure> {
        let net = self.network().await?;
        let what = match &whom {
            Whom::Friend(_) => "peer",
            Whom::Device(_) => "device",
        };
        let removing = tokio::task::spawn_blocking({
            let net = net.clone();
            move || match whom {
                Whom::Friend(account) => net.remove_member(account),
                Whom::Device(device) => net.remove_device(device),
            }
        });
        let removed = removing
            .await
            .map_err(|error| Failure::context("The roster was not changed", &error))?;
        let removed = removed.map_err(|error| removal_failure(name, &error))?;
        self.refresh_peers();
        if removed && matches!(self.0.mode, Mode::Command { .. }) {
            tokio::time::sleep(TELLING_TIME).await;
        }
        sink.send(Changed {
            action: if removed { "removed" } else { "unchanged" }.to_owned(),
            what: what.to_owned(),
            name: name.to_owned(),
        })
        .await?;
        Ok(Exit::Done)
    }
}

fn removal_failure(name: &str, error: &RemovalError) -> Failure {
    let failure = Failure::from_error(error);
    match error {
        RemovalError::Refused(RemoveError::NotFounder { .. }) => failure.hint(format!(
            "ask the founder; to keep nothing more for {name} meanwhile: `gridbackup peer set {name} --quota 0`"
        )),
        _ => failure,
    }
}
