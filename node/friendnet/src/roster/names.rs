//! What members and devices are called: names are chosen by their bearers, and identify nobody.

use api::human::is_unseen;
use proto::id::{AccountId, DeviceId};
use proto::keys::DeviceCert;
use unicode_security::confusable_detection::skeleton;

use super::Roster;

/// Digits of an id that name what it is of.
pub const ID_DIGITS_MIN: usize = 8;

impl Roster {
    /// What a member is called here. Names are chosen by members themselves: of several with the same name each is shown with the
    /// first digits of its id, and so is one that looks like an id or like a name shown so: nobody is taken for another.
    pub fn name_of(&self, account: AccountId) -> String {
        let short = || account.to_string()[..ID_DIGITS_MIN].to_owned();
        let Some(name) = self.member(account).map(|member| &member.name) else {
            return short();
        };
        let shown = visible(name);
        let is_plain = shown == *name && !shown.is_empty() && !shown.contains('~') && !is_id(&shown);
        match self.members().filter(|member| looks_like(&member.name, name)).count() {
            1 if is_plain => shown,
            _ => format!("{shown}~{}", short()),
        }
    }

    /// The members that somebody may mean by a text: whoever `name_of` shows so; by the beginning of an id, alone or after a name and
    /// `~`; or else all of that name.
    pub fn accounts_called(&self, text: &str) -> Vec<AccountId> {
        let accounts = || self.members().map(|member| member.account);
        let shown: Vec<AccountId> = accounts().filter(|account| self.name_of(*account) == text).collect();
        if shown.len() == 1 {
            return shown;
        }
        let (name, digits) = text.rsplit_once('~').unwrap_or(("", text));
        let is_name = |account: &AccountId| {
            let is_called = |called: &String| called == name || visible(called) == name;
            name.is_empty() || self.member(*account).is_some_and(|member| is_called(&member.name))
        };
        let by_id =
            accounts().filter(|account| digits.len() >= ID_DIGITS_MIN && account.to_string().starts_with(digits));
        let by_id: Vec<AccountId> = by_id.filter(is_name).collect();
        if !by_id.is_empty() {
            return by_id;
        }
        let of_name = self.members().filter(|member| member.name == text);
        of_name.map(|member| member.account).collect()
    }

    /// Devices of an account that are called so: by name, or by the beginning of their id.
    pub fn devices_called(&self, account: AccountId, name: &str) -> Vec<DeviceId> {
        let of_account = self
            .devices()
            .map(|device| &device.cert)
            .filter(|cert| cert.account == account);
        let is_id = |cert: &DeviceCert| name.len() >= ID_DIGITS_MIN && cert.device.to_string().starts_with(name);
        let called = of_account.filter(|cert| cert.name == name || is_id(cert));
        called.map(|cert| cert.device).collect()
    }
}

/// Whether a text could be the beginning of an id.
fn is_id(text: &str) -> bool {
    text.len() >= ID_DIGITS_MIN && text.chars().all(|digit| digit.is_ascii_hexdigit())
}

/// Whether people would take two names for one: by the confusable characters of Unicode (UTS 39 §4), whatever the case and the spaces.
fn looks_like(a: &str, b: &str) -> bool {
    let bare = |name: &str| -> String {
        let lower = visible(name).to_lowercase();
        skeleton(&lower)
            .filter(|c| !c.is_whitespace())
            .flat_map(char::to_lowercase)
            .collect()
    };
    bare(a) == bare(b)
}

/// A name as it can be told from what stands beside it: without characters that nobody sees, and with single spaces.
fn visible(name: &str) -> String {
    let seen: String = name.chars().filter(|c| !is_unseen(*c)).collect();
    seen.split_whitespace().collect::<Vec<_>>().join(" ")
}
