//! What all metadata records have in common: deterministic CBOR and limits that writer and reader share.
//!
//! What each kind of record looks like is in `log_record`, `cap_index` and `root`; how they are packed in `section`.

use crate::section_kind::SectionKind;

/// Longest path in a record, in bytes: Linux stops at 4,096 per call, but deeper trees exist.
pub const PATH_BYTES_MAX: usize = 64 << 10;
/// Longest name of a directory entry, in bytes: what Linux allows (`NAME_MAX` in linux/limits.h).
pub const NAME_BYTES_MAX: usize = 255;

/// A metadata record.
///
/// Some records set the context of those after them (a directory, of its entries). Each section carries its context
/// itself, so that sections can be read alone: the writer repeats it, the reader insists on it.
pub trait Record: minicbor::Encode<()> + for<'b> minicbor::Decode<'b, ()> {
    /// The kind of section that it lives in.
    const KIND: SectionKind;

    /// Whether all limits hold; else which does not.
    fn check(&self) -> Result<(), String>;

    /// How many levels of context must have been set before it in the same section.
    fn depth(&self) -> usize {
        0
    }

    /// Whether it sets level `depth()` of the context, and clears the deeper ones.
    fn is_context(&self) -> bool {
        false
    }
}

/// The deterministic encoding of a record.
pub fn to_cbor<T: minicbor::Encode<()>>(record: &T) -> Vec<u8> {
    minicbor::to_vec(record)
        .expect("encoding into memory cannot fail and the derived encoders have no errors of their own")
}

/// Decodes the first record of `bytes`; returns it and how many bytes it takes.
///
/// Only the bytes that `to_cbor` makes are accepted. That is how unknown fields are found, which minicbor skips.
pub fn first_from_cbor<T>(bytes: &[u8]) -> Result<(T, usize), String>
where
    T: minicbor::Encode<()> + for<'b> minicbor::Decode<'b, ()>,
{
    let mut decoder = minicbor::Decoder::new(bytes);
    let record: T = decoder.decode().map_err(|error| error.to_string())?;
    let len = decoder.position();
    if to_cbor(&record) != bytes[..len] {
        return Err("unknown fields, or not the shortest form".to_owned());
    }
    Ok((record, len))
}

/// Checks a name in a directory: one component, any bytes but `/` and NUL.
pub fn check_name(name: &[u8]) -> Result<(), String> {
    if name.is_empty() || name.len() > NAME_BYTES_MAX {
        return Err(format!(
            "a name of {} bytes, 1 to {NAME_BYTES_MAX} are allowed",
            name.len()
        ));
    }
    // "." and ".." would let a restore write outside of its target.
    if matches!(name, b"." | b"..") || name.iter().any(|&byte| matches!(byte, b'/' | 0)) {
        return Err(format!("`{}` is not a name", name.escape_ascii()));
    }
    Ok(())
}

/// Checks an absolute path: `/`, or names each after a `/`.
pub fn check_path(path: &[u8]) -> Result<(), String> {
    if path.len() > PATH_BYTES_MAX {
        return Err(format!("a path of {} bytes, {PATH_BYTES_MAX} are allowed", path.len()));
    }
    match path {
        b"/" => Ok(()),
        [b'/', names @ ..] => names.split(|&byte| byte == b'/').try_for_each(check_name),
        _ => Err(format!("`{}` is not an absolute path", path.escape_ascii())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_lead_out_of_a_directory_are_refused() {
        for name in [&b""[..], b".", b"..", b"a/b", b"a\0", &[b'x'; 256]] {
            assert!(check_name(name).is_err(), "{}", name.escape_ascii());
        }
        for name in [&b"a"[..], b"...", b"\xff\xfe", &[b'x'; 255]] {
            assert_eq!(check_name(name), Ok(()));
        }
    }

    #[test]
    fn paths_are_absolute_and_without_empty_or_dotted_names() {
        for path in [&b""[..], b"a", b"/a/", b"//", b"/a//b", b"/a/../b"] {
            assert!(check_path(path).is_err(), "{}", path.escape_ascii());
        }
        for path in [&b"/"[..], b"/a", b"/home/ann/\xc3\xa4"] {
            assert_eq!(check_path(path), Ok(()));
        }
    }

    #[test]
    fn encodings_that_are_not_the_shortest_are_refused() {
        assert_eq!(first_from_cbor::<u64>(&[0x05, 0xff]), Ok((5, 1)));
        assert!(first_from_cbor::<u64>(&[0x18, 0x05]).is_err());
    }
}
