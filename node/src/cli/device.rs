//! `device ls|revoke`: the machines of this account.

use std::path::PathBuf;

use proto::id::{AccountId, DeviceId};
use proto::keys::DeviceCert;
use proto::wire::word::{AccountWord, REVOKED_MAX};

use super::{device_add, words};
use crate::failure::{Exit, Failure};
use crate::friendnet::roster::names::ID_DIGITS_MIN;
use crate::friendnet::roster::{Roster, deeds};
use crate::home::{HomePaths, Identity};
use crate::request::{Request, Word};

/// Commands.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// List the machines of this account, and which of them count
    Ls,
    /// Make a home for one more machine of the account, whose words need not be typed there: copy the folder to it
    Add(device_add::Args),
    /// A machine was lost or stolen: nothing that it signs counts any more. Another machine takes the account over with
    /// `gridbackup recover`; run again after this, it takes in every state of the lost one that friends still have
    Revoke {
        /// Names, or beginnings of ids (8 digits or more); whole ids also of machines that the roster does not know any more
        #[arg(required_unless_present = "others", conflicts_with = "others")]
        names: Vec<String>,
        /// All machines of the account but this one
        #[arg(long)]
        others: bool,
        /// Whom the machine had let in and you do not know: out with it, and all who came by them
        #[arg(long, value_name = "NAME")]
        put_out: Vec<String>,
        /// Whom the machine had removed and may come back, by ids (8 digits or more), or `all`
        #[arg(long, value_name = "ID")]
        take_back: Vec<String>,
        /// File with the 24 words; `-` reads them from stdin
        #[arg(long, value_name = "FILE")]
        phrase_file: PathBuf,
    },
}

impl Command {
    /// As a request.
    pub fn request(self, paths: &HomePaths) -> Result<Request, Failure> {
        let (names, others, put_out, take_back, phrase_file) = match self {
            Self::Ls => return Ok(Request::DeviceList),
            Self::Add(_) => return Err(Failure::new(Exit::Usage, "`device add` is no request")),
            Self::Revoke {
                names,
                others,
                put_out,
                take_back,
                phrase_file,
            } => (names, others, put_out, take_back, phrase_file),
        };
        let own = Identity::cert(paths)?;
        let word = words::say(paths, &phrase_file, |roster, word| match others {
            true => revoke_others(roster, word, &own),
            false => names.iter().try_for_each(|name| revoke(roster, word, &own, name)),
        })?;
        Ok(Request::Say(Word {
            put_out,
            take_back,
            ..word
        }))
    }
}

fn revoke(roster: &Roster, word: &mut AccountWord, own: &DeviceCert, name: &str) -> Result<(), Failure> {
    let device = one(roster, word, own.account, name)?;
    if device == own.device {
        return Err(Failure::new(Exit::Usage, format!("`{name}` is this machine"))
            .hint("revoke it from another machine that has the account"));
    }
    match deeds::revoke(word, device) {
        true => Ok(()),
        false => Err(Failure::new(
            Exit::Failed,
            format!("{REVOKED_MAX} devices are revoked already, and no more can be one by one"),
        )
        .hint("recover the account on a blank machine, and there: `gridbackup device revoke --others`")),
    }
}

/// By the date of this device's certificate, those that no roster knows, too; by name those that are younger.
fn revoke_others(roster: &Roster, word: &mut AccountWord, own: &DeviceCert) -> Result<(), Failure> {
    word.since_secs = word.since_secs.max(own.issued_secs);
    let certs = roster.devices().map(|device| &device.cert);
    let younger = certs.filter(|cert| cert.account == own.account && cert.device != own.device && word.trusts(cert));
    let younger: Vec<DeviceId> = younger.map(|cert| cert.device).collect();
    younger
        .into_iter()
        .try_for_each(|device| revoke(roster, word, own, &device.to_string()))
}

/// The one device of the account that is called so.
fn one(roster: &Roster, word: &AccountWord, own: AccountId, name: &str) -> Result<DeviceId, Failure> {
    let hint = "`gridbackup device ls` shows names and ids";
    let is_named = |device: &&DeviceId| name.len() >= ID_DIGITS_MIN && device.to_string().starts_with(name);
    if let Some(revoked) = word.revoked.iter().find(is_named) {
        return Ok(*revoked);
    }
    match roster.devices_called(own, name)[..] {
        [device] => Ok(device),
        // A roster has room for a few devices of an account: one that it does not know any more is named by its whole id.
        [] => name.parse().map_err(|_| {
            Failure::new(Exit::Usage, format!("No machine of this account is called `{name}`")).hint(hint)
        }),
        ref many => Err(Failure::new(Exit::Usage, format!("{} machines are called `{name}`", many.len())).hint(hint)),
    }
}
