//! Options that are one of a closed set of names: those that requests have for it.

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};

/// Reads one of `members` by its name; help says `about` of each.
pub fn choice<T>(
    members: &'static [T],
    name: fn(T) -> &'static str,
    about: fn(T) -> &'static str,
) -> impl TypedValueParser<Value = T>
where
    T: Copy + Send + Sync + 'static,
{
    let known = members
        .iter()
        .map(|member| PossibleValue::new(name(*member)).help(about(*member)));
    PossibleValuesParser::new(known).map(move |typed| {
        let named = members.iter().find(|member| name(**member) == typed);
        *named.expect("what is no member was refused")
    })
}
