//! Newtypes for everything that is named by bytes or by a number.

use std::fmt;
use std::str::FromStr;

/// Text that is not the hexadecimal form of an id.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{text}` is not an id: {bytes} bytes in hexadecimal are expected")]
pub struct ParseIdError {
    text: String,
    bytes: usize,
}

macro_rules! byte_id {
    ($(#[$doc:meta])* $name:ident, $len:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, minicbor::Encode, minicbor::Decode)]
        #[cbor(transparent)]
        pub struct $name(#[cbor(with = "minicbor::bytes")] pub [u8; $len]);

        impl $name {
            /// Length in bytes.
            pub const LEN: usize = $len;

            /// The id in `bytes`, if they are exactly as many as an id has.
            pub fn from_slice(bytes: &[u8]) -> Option<Self> {
                bytes.try_into().ok().map(Self)
            }

            /// The first eight hexadecimal digits: for people, never for look-up.
            pub fn short(&self) -> String {
                self.to_string()[..8].to_owned()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&data_encoding::HEXLOWER.encode(&self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.short())
            }
        }

        impl AsRef<[u8]> for $name {
            fn as_ref(&self) -> &[u8] {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                data_encoding::HEXLOWER_PERMISSIVE
                    .decode(text.as_bytes())
                    .ok()
                    .and_then(|bytes| Self::from_slice(&bytes))
                    .ok_or_else(|| ParseIdError { text: text.to_owned(), bytes: $len })
            }
        }
    };
}

byte_id!(
    /// A person: the account's ed25519 public key.
    AccountId, 32
);
byte_id!(
    /// A grid: derived from its founder (docs/protocol/roster.md).
    GridId, 16
);
byte_id!(
    /// A machine of a person: its ed25519 public key, which is also its libp2p identity.
    DeviceId, 32
);
byte_id!(
    /// A pack: derived from its random key (docs/format/pack.md).
    PackId, 32
);
byte_id!(
    /// A share: the BLAKE3 hash of its data bytes.
    ShareId, 32
);
byte_id!(
    /// A chunk: 128 bits of keyed BLAKE3 over its plaintext.
    ChunkId, 16
);
byte_id!(
    /// A head: the BLAKE3 hash of its encoding.
    HeadHash, 32
);
byte_id!(
    /// A volume, the content of a virtual disk: 128 random bits.
    VolumeId, 16
);
byte_id!(
    /// A voter, the same for every machine that reaches it: a friend's device id, or random bytes that lie in a folder or a bucket
    /// (docs/format/promise.md §4).
    VoterId, 32
);
byte_id!(
    /// A snapshot: 128 bits, derived from device, sequence number and time.
    SnapshotId, 16
);

/// One state of one file's content. The backup log names it before its bytes are read; the read-cap index says later
/// where they are. Unique within a device: a counter that starts at a random point in each life of a catalog.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, minicbor::Encode, minicbor::Decode)]
#[cbor(transparent)]
pub struct VersionId(#[n(0)] pub u64);
