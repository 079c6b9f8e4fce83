//! `device ls|revoke`: the machines of this account.

use std::collections::BTreeSet;
use std::path::PathBuf;

use api::failure::{Exit, Failure};
use api::request::{Request, Word};
use engine::home::{HomePaths, Identity};
use friendnet::roster::names::ID_DIGITS_MIN;
use friendnet::roster::{Roster, deeds};
use proto::id::{AccountId, DeviceId};
use proto::keys::DeviceCert;
use proto::wire::word::{AccountWord, REVOKED_MAX};

use super::{device_add, words};

#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// List the machines of this account, and which of them count
    Ls,
    /// Make a home for one more machine of the account, whose words need not be typed there: copy the folder to it
    Add(device_add::Args),
    /// A machine was lost or stolen: nothing that it signs counts any more. Another machine takes the account over with
    /// `gridbackup recover`; run again after this, it takes in every state of the lost one that friends still have
    Revoke(Revoke),
}

/// Arguments of `device revoke`.
#[derive(Debug, clap::Args)]
pub struct Revoke {
    /// Names, or beginnings of ids (8 digits or more); whole ids also of machines that the roster does not know any more
    #[arg(required_unless_present = "others", conflicts_with = "others")]
    names: Vec<String>,
    /// All machines of the account but this one
    #[arg(long)]
    others: bool,
    /// Whom the machine had let in and you do not know, or `all`: out with it, and all who came by them
    #[arg(long, value_name = "NAME")]
    put_out: Vec<String>,
    /// Of those whom the machine had let in, only these stay
    #[arg(long, value_name = "NAME", conflicts_with = "put_out")]
    keep: Vec<String>,
    /// Whom the machine had removed and may come back, by ids (8 digits or more), or `all`
    #[arg(long, value_name = "ID")]
    take_back: Vec<String>,
    /// Though no friend answers: they hear of it when they meet this machine
    #[arg(long)]
    unheard: bool,
    /// File with the 24 words; `-` reads them from stdin
    #[arg(long, value_name = "FILE")]
    phrase_file: PathBuf,
}

/// What of a revoked machine's deeds does not stand.
#[derive(Default)]
struct Disowned {
    admitted: BTreeSet<AccountId>,
    removed: BTreeSet<AccountId>,
}

/// Everybody, instead of names.
const ALL: &str = "all";

impl Revoke {
    /// Says in `word` by whom it stands, and returns the others.
    fn disowned(&self, roster: &Roster, word: &mut AccountWord) -> Result<Disowned, Failure> {
        let admitted = roster.admitted_by_revoked(word.account, word);
        let mut out = named(roster, &admitted, &self.put_out, "let in")?;
        if !self.keep.is_empty() {
            let kept = named(roster, &admitted, &self.keep, "let in")?;
            // One who is no member any more stays as the way of those who came by him.
            let is_member = |account: &&AccountId| roster.member(**account).is_some();
            out = admitted.difference(&kept).filter(is_member).copied().collect();
        }
        let by_revoked = roster.removed_by_revoked(word.account, word);
        let mut removed: BTreeSet<AccountId> = roster.removals_by(word.account).into_iter().map(|(id, _)| id).collect();
        removed = match self.take_back.iter().any(|id| id == ALL) {
            // Said again by this machine, when it was revoked before.
            true if by_revoked.is_empty() => removed,
            true => by_revoked,
            false => named(roster, &removed, &self.take_back, "removed")?,
        };
        // Whose removal is taken back comes in by a ticket, as others do.
        out.extend(admitted.intersection(&removed));
        roster.stand_by(word, &out);
        Ok(Disowned { admitted: out, removed })
    }
}

/// Those of `accounts` that are called so: by name, by the beginning of their id, or all.
fn named(
    roster: &Roster,
    accounts: &BTreeSet<AccountId>,
    names: &[String],
    deed: &str,
) -> Result<BTreeSet<AccountId>, Failure> {
    let mut found = BTreeSet::new();
    for name in names {
        let called = roster.accounts_called(name);
        let is_id =
            |account: &AccountId| name.len() >= ID_DIGITS_MIN && account.to_string().starts_with(&name.to_lowercase());
        let is_meant = |account: &&AccountId| called.contains(account) || is_id(account);
        match accounts.iter().filter(is_meant).collect::<Vec<_>>()[..] {
            _ if name == ALL => found.extend(accounts),
            [account] => found.extend([*account]),
            _ => {
                let known: Vec<String> = accounts.iter().map(|account| roster.name_of(*account)).collect();
                let hint = match known.is_empty() {
                    true => "it had none".to_owned(),
                    false => format!("those are {}", known.join(", ")),
                };
                let text = format!("`{name}` is nobody whom that machine had {deed}");
                return Err(Failure::new(Exit::Usage, text).hint(hint));
            }
        }
    }
    Ok(found)
}

impl Command {
    pub fn request(self, paths: &HomePaths) -> Result<Request, Failure> {
        let revoke = match self {
            Self::Ls => return Ok(Request::DeviceList),
            Self::Add(_) => return Err(Failure::new(Exit::Usage, "`device add` is no request")),
            Self::Revoke(revoke) => revoke,
        };
        let (own, mut disowned) = (Identity::cert(paths)?, Disowned::default());
        let word = words::say(paths, &revoke.phrase_file, |roster, word| {
            match revoke.others {
                true => revoke_others(roster, word, &own)?,
                false => revoke
                    .names
                    .iter()
                    .try_for_each(|name| self::revoke(roster, word, &own, name))?,
            }
            disowned = revoke.disowned(roster, word)?;
            Ok(())
        })?;
        let ids = |accounts: BTreeSet<AccountId>| accounts.iter().map(AccountId::to_string).collect();
        Ok(Request::Say(Word {
            put_out: ids(disowned.admitted),
            take_back: ids(disowned.removed),
            unheard: revoke.unheard,
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
