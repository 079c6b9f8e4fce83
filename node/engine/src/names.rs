//! Names of peers that nobody has: said as such, with the one that was probably meant.

use api::failure::{Exit, Failure, Kind};
use api::human::nearest;
use friendnet::roster::Roster;

use crate::Engine;

impl Engine {
    /// No peer is called so.
    pub(super) fn unknown_peer(&self, name: &str) -> Failure {
        let mut known: Vec<String> = self.config().peers.into_keys().collect();
        if let Some(roster) = Roster::load(&self.0.home.paths.roster()) {
            let own = self.0.home.account.account_id();
            known.extend(
                roster
                    .members()
                    .filter(|member| member.account != own)
                    .map(|member| roster.name_of(member.account)),
            );
            let devices = roster.devices().filter(|device| device.cert.account == own);
            known.extend(
                devices
                    .filter(|device| device.cert.device != self.device())
                    .map(|device| device.cert.name.clone()),
            );
        }
        let meant = nearest(name, known.iter().map(String::as_str));
        let meant = meant.map_or(String::new(), |meant| format!("is `{meant}` meant? "));
        Failure::new(Exit::Failed, format!("There is no peer `{name}`"))
            .kind(Kind::NotFound)
            .hint(format!("{meant}`gridbackup peer ls` lists the peers"))
    }
}
