//! A machine of the account.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::named::named;

/// A machine of the account, as `device ls` shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// Its name for people.
    pub name: String,
    /// Its id, 64 hexadecimal digits.
    pub id: String,
    /// What it may do.
    pub powers: Vec<Power>,
    /// When the words certified it; unknown of a revoked one.
    pub certified: Option<Timestamp>,
    /// This machine itself.
    pub is_this: bool,
    /// There is a connection to it now, or it is this one.
    pub is_online: bool,
    /// Nothing that it signs counts.
    pub is_revoked: bool,
}

named! {
    /// What a device may do (`proto::keys::power`).
    pub enum Power {
        /// Put shares and heads.
        Put = "put",
        /// Fetch shares, audit and repair.
        Repair = "repair",
        /// Read.
        Read = "read",
        /// Give shares up and take them back.
        GiveUp = "give_up",
        /// Speak for the account in a grid.
        Admit = "admit",
    }
}
