//! Keys are bytes; on the wire they are percent-encoded (RFC 3986 §2.1), and so they are in signatures.

use std::fmt::Write;

/// Percent-encodes all but unreserved characters; `/` is kept in paths, encoded in values of a query.
pub(crate) fn encode_with(bytes: &[u8], keep_slash: bool) -> String {
    let mut text = String::with_capacity(bytes.len() + bytes.len() / 4);
    for &byte in bytes {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => text.push(byte.into()),
            b'/' if keep_slash => text.push('/'),
            _ => write!(text, "%{byte:02X}").expect("writing to a String does not fail"),
        }
    }
    text
}

/// A key as it stands in a URL: UTF-8 or not, every byte survives [`decode`].
pub fn encode(key: &[u8]) -> String {
    encode_with(key, true)
}

/// The bytes behind a percent-encoded key. What is not an escape stays as it is.
pub fn decode(text: &str) -> Vec<u8> {
    let hex = |byte: u8| char::from(byte).to_digit(16);
    let bytes = text.as_bytes();
    let mut key = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let pair = bytes
            .get(at + 1)
            .copied()
            .and_then(hex)
            .zip(bytes.get(at + 2).copied().and_then(hex));
        match (byte, pair) {
            (b'%', Some((high, low))) => {
                key.push((high * 16 + low) as u8);
                at += 3;
            }
            _ => {
                key.push(byte);
                at += 1;
            }
        }
    }
    key
}

/// As listings encode keys (`encoding-type=url`): a space is `+` there, as in forms.
pub(crate) fn decode_listed(text: &str) -> Vec<u8> {
    decode(&text.replace('+', " "))
}

/// A key for people: as it is when it can be printed on one line, else percent-encoded.
pub fn shown(key: &[u8]) -> String {
    match std::str::from_utf8(key) {
        Ok(text) if !text.chars().any(char::is_control) => text.to_owned(),
        _ => encode(key),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reserved_characters_are_escaped_and_slashes_kept() {
        assert_eq!(encode("a b/ü+?&=#%~".as_bytes()), "a%20b/%C3%BC%2B%3F%26%3D%23%25~");
        assert_eq!(encode_with(b"a/b", false), "a%2Fb");
        assert_eq!(decode_listed("a+b%2Bc%2fd"), b"a b+c/d");
        assert_eq!(decode("100%"), b"100%");
    }

    #[test]
    fn what_cannot_be_printed_is_shown_encoded() {
        assert_eq!(shown("Grüße.html".as_bytes()), "Grüße.html");
        assert_eq!(shown(b"caf\xe9"), "caf%E9");
        assert_eq!(shown(b"two\nlines"), "two%0Alines");
    }

    proptest! {
        #[test]
        fn every_key_survives_its_encoding(key in prop::collection::vec(any::<u8>(), 0..64)) {
            prop_assert_eq!(decode(&encode(&key)), key.clone());
            prop_assert_eq!(decode_listed(&encode_with(&key, false)), key);
        }
    }
}
