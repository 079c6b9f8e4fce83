//! How long a holder keeps a share after its owner gave it up: a promise that is signed with the pack (docs/format/manifest.md §2).
//!
//! Leaves out who counts the days, and from when: each holder has a clock of its own.

use std::fmt;

/// Whole days that a share stays in a holder's trash: 0 to 30.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct KeepDays(u8);

impl KeepDays {
    /// The most, and what holds where a manifest says nothing. Chosen: longer than a holiday, and than it takes to notice a theft.
    pub const MOST: Self = Self(30);

    /// So many days; `None` if they are more than [`KeepDays::MOST`].
    pub const fn new(days: u8) -> Option<Self> {
        match days <= Self::MOST.0 {
            true => Some(Self(days)),
            false => None,
        }
    }

    /// Their number.
    pub const fn days(self) -> u32 {
        self.0 as u32
    }

    /// As a manifest says it: nothing for the most, so that what has it is encoded as it was before there were others.
    pub(crate) fn field(self) -> Option<u8> {
        (self < Self::MOST).then_some(self.0)
    }

    /// What a manifest's field says; `None` if no manifest says so.
    pub(crate) fn from_field(field: Option<u8>) -> Option<Self> {
        match field {
            None => Some(Self::MOST),
            Some(days) => Self::new(days).filter(|keep| *keep < Self::MOST),
        }
    }
}

impl Default for KeepDays {
    fn default() -> Self {
        Self::MOST
    }
}

impl fmt::Display for KeepDays {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}
