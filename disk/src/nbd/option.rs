//! Options of the handshake, read from their bytes (proto.md, "Option types"). Says what was asked, and nothing of the answer.

use crate::nbd::wire::{Fields, STRING_BYTES_MAX, opt};

/// Longest payload that is read: an export's name, and [`QUERIES_MAX`] queries of the length that strings should have at most.
pub const OPTION_BYTES_MAX: usize = 32 << 10;
/// Most queries for metadata contexts; there is one context.
pub const QUERIES_MAX: u32 = 100;
/// Most kinds of information that are asked for at once; four are defined.
const INFO_REQUESTS_MAX: usize = 64;

/// What a client asks for before it chooses an export.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Ask {
    /// `NBD_OPT_EXPORT_NAME`: this export, or the end.
    ExportName(String),
    /// `NBD_OPT_ABORT`.
    Abort,
    /// `NBD_OPT_LIST`.
    List,
    /// `NBD_OPT_INFO`.
    Info(About),
    /// `NBD_OPT_GO`.
    Go(About),
    /// `NBD_OPT_STRUCTURED_REPLY`.
    StructuredReply,
    /// `NBD_OPT_LIST_META_CONTEXT`.
    ListMetaContext(Contexts),
    /// `NBD_OPT_SET_META_CONTEXT`.
    SetMetaContext(Contexts),
}

/// An export, and what is asked about it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct About {
    /// Its name.
    pub name: String,
    /// `NBD_INFO` types.
    pub infos: Vec<u16>,
}

/// An export, and which metadata contexts are asked for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Contexts {
    /// Its name.
    pub name: String,
    /// Queries; those that are not UTF-8 are of an unknown namespace.
    pub queries: Vec<Vec<u8>>,
}

/// Why an option cannot be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Unreadable {
    /// Another server knows it, or none.
    #[error("This option is not known here")]
    Unsupported,
    /// Its bytes make no sense.
    #[error("This option is not well-formed")]
    Invalid,
    /// It is too long.
    #[error("This option is too long")]
    TooBig,
}

impl Ask {
    /// Reads the payload of an option of this type.
    pub fn read(option: u32, payload: &[u8]) -> Result<Self, Unreadable> {
        let without_payload = |ask| {
            if payload.is_empty() {
                Ok(ask)
            } else {
                Err(Unreadable::Invalid)
            }
        };
        match option {
            opt::EXPORT_NAME => Ok(Self::ExportName(name(payload)?)),
            // "A server SHOULD ignore any data sent by the client".
            opt::ABORT => Ok(Self::Abort),
            opt::LIST => without_payload(Self::List),
            opt::INFO => Ok(Self::Info(about(payload)?)),
            opt::GO => Ok(Self::Go(about(payload)?)),
            opt::STRUCTURED_REPLY => without_payload(Self::StructuredReply),
            opt::LIST_META_CONTEXT => Ok(Self::ListMetaContext(contexts(payload)?)),
            opt::SET_META_CONTEXT => Ok(Self::SetMetaContext(contexts(payload)?)),
            // NBD_OPT_STARTTLS among them: see `negotiation`.
            _ => Err(Unreadable::Unsupported),
        }
    }
}

/// A name, which is a string ("Conventions").
fn name(bytes: &[u8]) -> Result<String, Unreadable> {
    if bytes.len() > STRING_BYTES_MAX {
        return Err(Unreadable::TooBig);
    }
    let text = std::str::from_utf8(bytes).map_err(|_| Unreadable::Invalid)?;
    if text.contains('\0') {
        return Err(Unreadable::Invalid);
    }
    Ok(text.to_owned())
}

/// A length of 32 bits, and so many bytes.
fn counted<'a>(fields: &mut Fields<'a>) -> Option<&'a [u8]> {
    let length = fields.u32()?;
    fields.bytes(usize::try_from(length).ok()?)
}

fn about(payload: &[u8]) -> Result<About, Unreadable> {
    let mut fields = Fields(payload);
    let name = name(counted(&mut fields).ok_or(Unreadable::Invalid)?)?;
    let count = usize::from(fields.u16().ok_or(Unreadable::Invalid)?);
    if fields.0.len() != count * 2 {
        return Err(Unreadable::Invalid);
    }
    if count > INFO_REQUESTS_MAX {
        return Err(Unreadable::TooBig);
    }
    let infos = std::iter::from_fn(|| fields.u16()).collect();
    Ok(About { name, infos })
}

fn contexts(payload: &[u8]) -> Result<Contexts, Unreadable> {
    let mut fields = Fields(payload);
    let name = name(counted(&mut fields).ok_or(Unreadable::Invalid)?)?;
    let count = fields.u32().ok_or(Unreadable::Invalid)?;
    if count > QUERIES_MAX {
        return Err(Unreadable::TooBig);
    }
    let queries: Option<Vec<Vec<u8>>> = (0..count).map(|_| counted(&mut fields).map(<[u8]>::to_vec)).collect();
    let queries = queries.filter(|_| fields.0.is_empty()).ok_or(Unreadable::Invalid)?;
    Ok(Contexts { name, queries })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn with_length(bytes: &[u8]) -> Vec<u8> {
        [&(bytes.len() as u32).to_be_bytes(), bytes].concat()
    }

    fn asked(name: &[u8], infos: &[u16]) -> Vec<u8> {
        let infos = infos.iter().flat_map(|info| info.to_be_bytes());
        [
            with_length(name),
            (infos.clone().count() as u16 / 2).to_be_bytes().to_vec(),
            infos.collect(),
        ]
        .concat()
    }

    fn queried(name: &[u8], queries: &[&[u8]]) -> Vec<u8> {
        let mut bytes = with_length(name);
        bytes.extend((queries.len() as u32).to_be_bytes());
        bytes.extend(queries.iter().flat_map(|query| with_length(query)));
        bytes
    }

    #[test]
    fn options_are_read() {
        assert_eq!(Ask::read(1, b"photos"), Ok(Ask::ExportName("photos".into())));
        assert_eq!(Ask::read(2, b"whatever"), Ok(Ask::Abort));
        assert_eq!(Ask::read(3, b""), Ok(Ask::List));
        assert_eq!(Ask::read(8, b""), Ok(Ask::StructuredReply));
        let about = About {
            name: "photos".into(),
            infos: vec![3, 1],
        };
        assert_eq!(Ask::read(6, &asked(b"photos", &[3, 1])), Ok(Ask::Info(about.clone())));
        assert_eq!(Ask::read(7, &asked(b"photos", &[3, 1])), Ok(Ask::Go(about)));
        let contexts = Contexts {
            name: String::new(),
            queries: vec![b"base:".to_vec(), b"\xff:x".to_vec()],
        };
        let bytes = queried(b"", &[b"base:", b"\xff:x"]);
        assert_eq!(Ask::read(9, &bytes), Ok(Ask::ListMetaContext(contexts.clone())));
        assert_eq!(Ask::read(10, &bytes), Ok(Ask::SetMetaContext(contexts)));
    }

    #[test]
    fn options_that_are_not_known_are_said_to_be_so() {
        for option in [0, 4, 5, 11, 12, u32::MAX] {
            assert_eq!(Ask::read(option, b"x"), Err(Unreadable::Unsupported));
        }
    }

    #[test]
    fn lengths_that_lie_are_refused() {
        let invalid = Err(Unreadable::Invalid);
        for option in [6, 7] {
            let whole = asked(b"photos", &[3]);
            for cut in 0..whole.len() {
                assert_eq!(Ask::read(option, &whole[..cut]), invalid, "cut at {cut}");
            }
            assert_eq!(Ask::read(option, &[whole, vec![0]].concat()), invalid);
            assert_eq!(Ask::read(option, &[0xff; 20]), invalid);
        }
        for option in [9, 10] {
            let whole = queried(b"photos", &[b"base:allocation", b""]);
            for cut in 0..whole.len() {
                assert_eq!(Ask::read(option, &whole[..cut]), invalid, "cut at {cut}");
            }
            assert_eq!(Ask::read(option, &[whole, vec![0]].concat()), invalid);
        }
        assert_eq!(Ask::read(3, b"x"), invalid);
        assert_eq!(Ask::read(8, b"x"), invalid);
    }

    #[test]
    fn names_are_strings_of_a_bounded_length() {
        assert_eq!(Ask::read(1, &[b'a'; 4096]), Ok(Ask::ExportName("a".repeat(4096))));
        assert_eq!(Ask::read(1, &[b'a'; 4097]), Err(Unreadable::TooBig));
        assert_eq!(Ask::read(1, b"a\0b"), Err(Unreadable::Invalid));
        assert_eq!(Ask::read(1, b"\xff"), Err(Unreadable::Invalid));
    }

    #[test]
    fn as_many_queries_as_can_be_said_are_not_made_room_for() {
        let mut bytes = with_length(b"");
        bytes.extend(u32::MAX.to_be_bytes());
        assert_eq!(Ask::read(10, &bytes), Err(Unreadable::TooBig));
        assert_eq!(Ask::read(7, &asked(b"", &[0; 65])), Err(Unreadable::TooBig));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(option in 0u32..13, payload in prop::collection::vec(any::<u8>(), 0..200)) {
            let _any_answer = Ask::read(option, &payload);
        }
    }
}
