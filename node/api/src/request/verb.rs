//! What one thing that can be asked is: a row of the table in `request.rs`, and what the table is turned into.

use super::field::Kind;

/// One thing that can be asked.
#[derive(Clone, Copy, Debug)]
pub struct Verb {
    /// Its name: the `request` tag of its `Request`, and what clients of the API look for.
    pub name: &'static str,
    /// HTTP method.
    pub method: &'static str,
    /// URI template.
    pub href: &'static str,
    /// Fields, in the template or in the JSON body.
    pub fields: &'static [(&'static str, Kind)],
    /// How it is answered.
    pub how: How,
}

/// How something that is asked is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct How {
    /// What it does.
    pub does: Does,
    /// What has to be usable for it.
    pub needs: Needs,
    /// The power of a device that it takes (`proto::keys::power`); 0: none but what every device has.
    pub power: u8,
}

/// What is done for an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Does {
    /// It says something, in a moment: what it says is what it is for, so it waits for its reader and ends with it.
    Shows,
    /// The same, for as long as it takes.
    Streams,
    /// It reads what was stored, and goes on to its end whether or not anybody reads what it says.
    Reads,
    /// It changes something, and goes on to its end.
    Works,
    /// It serves something that others change, for as long as somebody reads what it says, and then ends it in order.
    Serves,
}

/// What has to be usable for an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    /// The process that is asked, and nothing of its home.
    Process,
    /// config.toml alone: no catalog is opened and no port bound for it.
    Settings,
    /// Who belongs: the way out where a catalog cannot be recovered before friends are back.
    Roster,
    /// The catalog, too.
    Catalog,
}

impl How {
    /// Whether the answer needs nothing to be written: then a home on a full disk, or on one that may only be read, can give it.
    /// What is learned on the way (who answered, whose share was damaged) is noted if it can be.
    pub fn only_reads(self) -> bool {
        !matches!(self.does, Does::Works | Does::Serves)
    }

    /// It waits for its reader, and ends with it. Anything else goes on to its end, whether or not anybody reads what it says.
    pub fn is_answer(self) -> bool {
        matches!(self.does, Does::Shows | Does::Streams | Does::Serves)
    }

    /// It may take hours, in which others want to know how it stands.
    pub fn is_long(self) -> bool {
        self.does != Does::Shows
    }
}

/// Makes of the table: `Request`; an enum of the requests that need the same, so that who answers them answers all of them or
/// does not compile; and `VERBS`.
macro_rules! verbs {
    ($($(#[$group_meta:meta])* $needs:ident ($Group:ident) {
        $($(#[$meta:meta])* $name:literal $Variant:ident $(($Asked:ident))?: $method:ident $href:literal, $does:ident $($power:ident)?;)+
    })+) => {
        /// A request.
        #[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
        #[serde(tag = "request", deny_unknown_fields)]
        pub enum Request {
            $($($(#[$meta])* #[serde(rename = $name)] $Variant $(($Asked))?,)+)+
        }

        $($(#[$group_meta])*
        #[derive(Clone, Debug, PartialEq)]
        pub enum $Group {
            $($(#[$meta])* $Variant $(($Asked))?,)+
        })+

        /// A request, by what it needs.
        #[derive(Clone, Debug, PartialEq)]
        pub enum Needing {
            $($(#[$group_meta])* $needs($Group),)+
        }

        impl Request {
            /// By what it needs.
            pub fn sorted(self) -> Needing {
                match self {
                    $($(Self::$Variant $(($crate::request::verb::held_by!(asked $Asked)))? =>
                        Needing::$needs($Group::$Variant $(($crate::request::verb::held_by!(asked $Asked)))?),)+)+
                }
            }

            /// Its row.
            pub fn verb(&self) -> &'static Verb {
                let name = match self {
                    $($(Self::$Variant { .. } => $name,)+)+
                };
                VERBS.iter().find(|verb| verb.name == name).expect("requests and rows are made of one table")
            }

            /// One of each, with a value in each field.
            #[cfg(test)]
            pub(crate) fn of_each_kind() -> Vec<Self> {
                vec![$($(Self::$Variant $(($Asked::filled()))?,)+)+]
            }
        }

        /// Everything that can be asked.
        pub const VERBS: &[Verb] = &[$($(Verb {
            name: $name,
            method: stringify!($method),
            href: $href,
            fields: $crate::request::verb::or_else!([$($Asked::FIELDS)?] &[]),
            how: How {
                does: Does::$does,
                needs: Needs::$needs,
                power: $crate::request::verb::or_else!([$(power::$power)?] 0),
            },
        },)+)+];
    };
}
pub(crate) use verbs;

/// The name of what a variant holds; `$Asked` is there to be repeated with it.
macro_rules! held_by {
    ($asked:ident $Asked:ident) => {
        $asked
    };
}
pub(crate) use held_by;

/// What is in brackets, or the other if there is nothing.
macro_rules! or_else {
    ([] $other:expr) => {
        $other
    };
    ([$given:expr] $other:expr) => {
        $given
    };
}
pub(crate) use or_else;
