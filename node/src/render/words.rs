//! The words that texts are made of: names cleaned of what moves a cursor, counts, times, colours.

use api::human::{Period, is_unseen};
use jiff::Timestamp;

use super::Style;

/// Hexadecimal digits of an id that people see: enough to name one snapshot of a lifetime.
const ID_DIGITS: usize = 12;

/// Foreground colours by their numbers in ECMA-48, §8.3.117 (SGR).
pub const RED: u8 = 31;
pub const GREEN: u8 = 32;
pub const YELLOW: u8 = 33;

/// Text without characters that move a terminal's cursor or change its colours.
pub fn clean(text: &str) -> String {
    text.chars()
        .flat_map(|c| {
            if c.is_control() || is_unseen(c) {
                c.escape_default().collect()
            } else {
                vec![c]
            }
        })
        .collect()
}

/// `rwxr-xr-x`, with `s` and `t` as `ls` has them.
pub fn permissions(mode: u32) -> String {
    let special = [(0o4000, 's', 'S'), (0o2000, 's', 'S'), (0o1000, 't', 'T')];
    let mut text = String::with_capacity(9);
    for (group, (bit, with_execute, without)) in special.into_iter().enumerate() {
        let bits = mode >> (6 - 3 * group);
        text.push(if bits & 4 != 0 { 'r' } else { '-' });
        text.push(if bits & 2 != 0 { 'w' } else { '-' });
        text.push(match (mode & bit != 0, bits & 1 != 0) {
            (true, true) => with_execute,
            (true, false) => without,
            (false, true) => 'x',
            (false, false) => '-',
        });
    }
    text
}

pub fn setting_value(value: &serde_json::Value) -> String {
    match value {
        serde_json::Value::String(text) => text.clone(),
        serde_json::Value::Null => String::new(),
        other => other.to_string(),
    }
}

pub fn paint(text: &str, color: u8, style: &Style) -> String {
    if style.color {
        format!("\x1b[1;{color}m{text}\x1b[0m")
    } else {
        text.to_owned()
    }
}

/// The beginning of an id.
pub fn short(id: &str) -> String {
    clean(&id.chars().take(ID_DIGITS).collect::<String>())
}

pub fn capital(word: &str) -> String {
    let mut chars = word.chars();
    chars
        .next()
        .map(|first| first.to_uppercase().chain(chars).collect())
        .unwrap_or_default()
}

/// `1 file`, `2 files`.
pub fn count(number: u64, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

/// A time taken.
pub fn seconds(seconds: f64) -> String {
    if seconds < 100.0 {
        format!("{seconds:.1} s")
    } else {
        Period(std::time::Duration::from_secs(seconds as u64)).to_string()
    }
}

pub fn time(at: Timestamp, style: &Style) -> String {
    at.to_zoned(style.zone.clone()).strftime("%Y-%m-%d %H:%M").to_string()
}

pub fn age(at: Timestamp, style: &Style) -> String {
    let secs = style.now.as_second().saturating_sub(at.as_second());
    match u64::try_from(secs) {
        Ok(secs) if secs >= 60 => format!("{} ago", Period(std::time::Duration::from_secs(secs))),
        _ => "just now".to_owned(),
    }
}
