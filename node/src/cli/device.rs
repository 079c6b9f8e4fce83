//! `device ls|revoke`: the machines of this account.

use std::path::PathBuf;

use proto::id::{AccountId, DeviceId};
use proto::wire::word::REVOKED_MAX;

use super::words;
use crate::failure::{Exit, Failure};
use crate::friendnet::roster::{Roster, deeds};
use crate::home::{HomePaths, Identity};
use crate::request::Request;

/// Commands.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// List the machines of this account, and which of them count
    Ls,
    /// A machine was lost or stolen: nothing that it signs counts any more. Another machine takes the account over with
    /// `gridbackup recover`; run again after this, it takes in every state of the lost one that friends still have
    Revoke {
        /// Names, or beginnings of ids (8 digits or more)
        #[arg(required = true)]
        names: Vec<String>,
        /// File with the 24 words; `-` reads them from stdin
        #[arg(long, value_name = "FILE")]
        phrase_file: PathBuf,
    },
}

impl Command {
    /// As a request.
    pub fn request(self, paths: &HomePaths) -> Result<Request, Failure> {
        let (names, phrase_file) = match self {
            Self::Ls => return Ok(Request::DeviceList),
            Self::Revoke { names, phrase_file } => (names, phrase_file),
        };
        let own = Identity::read(paths)?.cert;
        let word = words::say(paths, &phrase_file, |roster, word| {
            for name in &names {
                let device = one(roster, own.account, name)?;
                if device == own.device {
                    return Err(Failure::new(Exit::Usage, format!("`{name}` is this machine"))
                        .hint("revoke it from another machine that has the account"));
                }
                if !deeds::revoke(word, device) {
                    return Err(Failure::new(
                        Exit::Failed,
                        format!("{REVOKED_MAX} devices are revoked already, and no more can be"),
                    ));
                }
            }
            Ok(())
        })?;
        Ok(Request::Say(word))
    }
}

/// The one device of the account that is called so.
fn one(roster: &Roster, own: AccountId, name: &str) -> Result<DeviceId, Failure> {
    let hint = "`gridbackup device ls` shows names and ids";
    match roster.devices_called(own, name)[..] {
        [device] => Ok(device),
        [] => Err(Failure::new(Exit::Usage, format!("No machine of this account is called `{name}`")).hint(hint)),
        ref many => Err(Failure::new(Exit::Usage, format!("{} machines are called `{name}`", many.len())).hint(hint)),
    }
}
