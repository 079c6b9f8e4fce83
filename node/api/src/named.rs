//! Closed sets whose members scripts read: each has one name, in JSON, on the command line and for people.

/// Makes an enum of such names.
macro_rules! named {
    ($($(#[$meta:meta])* pub enum $Set:ident {
        $($(#[$member_meta:meta])* $Member:ident = $name:literal,)+
    })+) => {
        $(#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
        $(#[$meta])*
        pub enum $Set {
            $($(#[$member_meta])* #[serde(rename = $name)] $Member,)+
        }

        impl $Set {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$Member),+];

            /// The same word as in JSON.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$Member => $name,)+
                }
            }
        }

        impl std::fmt::Display for $Set {
            fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.pad(self.name())
            }
        }

        impl std::str::FromStr for $Set {
            type Err = $crate::named::NoName;

            fn from_str(typed: &str) -> Result<Self, Self::Err> {
                let named = Self::ALL.iter().find(|member| member.name() == typed);
                named.copied().ok_or($crate::named::NoName)
            }
        })+
    };
}
pub(crate) use named;

/// No member of the set is called so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("It is none of the names there are")]
pub struct NoName;

#[cfg(test)]
mod tests {
    use crate::message::EntryKind;

    #[test]
    fn a_member_has_one_name_in_json_and_in_text() {
        for kind in EntryKind::ALL {
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.name());
            assert_eq!(kind.to_string().parse(), Ok(*kind));
        }
    }
}
