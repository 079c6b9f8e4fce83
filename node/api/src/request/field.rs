//! What the fields of requests hold, read from their types: so that what `GET /` says of a request is what its type takes.
//!
//! `asked!` stands around the types of requests; a type that a field may have implements `Held`.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::message::{EntryKind, PathName};

/// What a field holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Text.
    Text,
    /// Any number of texts.
    Texts,
    /// A path: in a query percent-encoded bytes, in a body text or `{"path", "path_bytes"}`.
    Path,
    /// Any number of paths.
    Paths,
    /// A whole number.
    Integer,
    /// `true` or `false`.
    Boolean,
}

impl Kind {
    /// Any number of these.
    const fn list(self) -> Self {
        match self {
            Self::Text | Self::Texts => Self::Texts,
            Self::Path | Self::Paths => Self::Paths,
            Self::Integer | Self::Boolean => panic!("the API has no lists of numbers"),
        }
    }

    /// Whether there may be several.
    pub fn is_list(self) -> bool {
        matches!(self, Self::Texts | Self::Paths)
    }
}

/// What a field of a request may hold.
pub(crate) trait Held: Sized {
    /// As `GET /` has it.
    const KIND: Kind;

    /// Values that are hard on URIs, and not what is assumed where none is given.
    #[cfg(test)]
    fn samples() -> Vec<Self>;
}

/// Implements `Held`: the type, its kind, its samples.
macro_rules! held {
    ($($type:ty: $kind:ident = [$($sample:expr),+];)+) => {
        $(impl $crate::request::field::Held for $type {
            const KIND: $crate::request::field::Kind = $crate::request::field::Kind::$kind;

            #[cfg(test)]
            fn samples() -> Vec<Self> {
                vec![$($sample),+]
            }
        })+
    };
}
pub(crate) use held;

held! {
    String: Text = ["2026-11-21 08:00 ä/{x}&y=?".into(), "+ %".into()];
    bool: Boolean = [true];
    u16: Integer = [u16::MAX];
    u32: Integer = [u32::MAX];
    u64: Integer = [1 << 40];
    Timestamp: Text = [Timestamp::UNIX_EPOCH];
    PathName: Path = [PathName(b"/x/\xff\n".to_vec()), PathName("/home/ä b/{x}&y=?".as_bytes().to_vec())];
    EntryKind: Text = [EntryKind::CharDevice];
}

impl<T: Held> Held for Option<T> {
    const KIND: Kind = T::KIND;

    #[cfg(test)]
    fn samples() -> Vec<Self> {
        T::samples().into_iter().map(Some).collect()
    }
}

impl<T: Held> Held for Vec<T> {
    const KIND: Kind = T::KIND.list();

    #[cfg(test)]
    fn samples() -> Vec<Self> {
        vec![T::samples()]
    }
}

/// The types of requests: with the names and kinds of their fields, and with a value in each field for tests.
macro_rules! asked {
    ($($(#[$meta:meta])* pub struct $Asked:ident {
        $($(#[$field_meta:meta])* pub $field:ident: $type:ty,)+
    })+) => {
        $(#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        $(#[$meta])*
        pub struct $Asked {
            $($(#[$field_meta])* pub $field: $type,)+
        }

        impl $Asked {
            /// The names of its fields, and what they hold.
            pub(crate) const FIELDS: &'static [(&'static str, $crate::request::field::Kind)] =
                &[$((stringify!($field), <$type as $crate::request::field::Held>::KIND),)+];

            /// A value in each field.
            #[cfg(test)]
            pub(crate) fn filled() -> Self {
                Self {
                    $($field: <$type as $crate::request::field::Held>::samples().remove(0),)+
                }
            }
        })+
    };
}
pub(crate) use asked;
