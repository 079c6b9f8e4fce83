//! The `Range` header (RFC 9110 §14): one range of bytes. Several at once may be answered with everything, and are.

use std::ops::Range;

/// What of a file is meant.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Ranged {
    /// All of it.
    Whole,
    /// These bytes.
    Part(Range<u64>),
    /// Nothing that there is.
    Outside,
}

/// What a header asks for of a file of `len` bytes. One that makes no sense is as if it were not there.
pub(super) fn parse(header: Option<&str>, len: u64) -> Ranged {
    let Some((first, last)) = header
        .and_then(|header| header.trim().strip_prefix("bytes="))
        .and_then(|range| range.trim().split_once('-'))
    else {
        return Ranged::Whole;
    };
    let part = match (first.parse::<u64>(), last.parse::<u64>()) {
        (Ok(first), Ok(last)) if first > last => return Ranged::Whole,
        (Ok(first), Ok(last)) => first..last.saturating_add(1).min(len),
        (Ok(first), Err(_)) if last.is_empty() => first..len,
        (Err(_), Ok(count)) if first.is_empty() => len.saturating_sub(count)..len,
        _ => return Ranged::Whole,
    };
    match part.start < part.end {
        true => Ranged::Part(part),
        false => Ranged::Outside,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_as_the_rfc_has_them() {
        for (header, expected) in [
            (None, Ranged::Whole),
            (Some("bytes=0-0"), Ranged::Part(0..1)),
            (Some("bytes=10-"), Ranged::Part(10..100)),
            (Some("bytes=90-200"), Ranged::Part(90..100)),
            (Some("bytes=-5"), Ranged::Part(95..100)),
            (Some("bytes=-500"), Ranged::Part(0..100)),
            (Some("bytes=100-"), Ranged::Outside),
            (Some("bytes=-0"), Ranged::Outside),
            (Some("bytes=5-4"), Ranged::Whole),
            (Some("bytes=0-1,5-6"), Ranged::Whole),
            (Some("lines=1-2"), Ranged::Whole),
            (Some("bytes=-"), Ranged::Whole),
        ] {
            assert_eq!(parse(header, 100), expected, "{header:?}");
        }
        assert_eq!(parse(Some("bytes=0-"), 0), Ranged::Outside);
    }
}
