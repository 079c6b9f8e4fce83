//! What an owner asks of its steward, and what the steward writes down of it (docs/protocol/steward.md).
//!
//! An order names the pack by its manifest and says which share goes to which device. It holds no key: the steward builds
//! and spreads what it cannot read.

use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};

use crate::id::{AccountId, DeviceId};
use crate::manifest::{Manifest, ManifestError};
use crate::wire::receipt::{Receipt, ReceiptError};

/// Begins a record on disk, with its version.
const MAGIC: &[u8; 8] = b"gbpass\0\x01";
/// Bytes of the checksum at the end of a record: a damaged disk is to be found, not an attacker.
const CHECKSUM_BYTES: usize = 16;
/// Most bytes of a record or an order: 255 shares of 256 bytes of receipt and 36 of target, and the manifest.
pub const RECORD_BYTES_MAX: usize = 96 << 10;

/// Where a share is to go.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Encode, Decode)]
pub struct Target {
    /// Its number in the manifest.
    #[n(0)]
    pub index: u8,
    /// The device that is to keep it.
    #[n(1)]
    pub device: DeviceId,
}

/// An order: these shares of this pack. No targets: the order is void.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PassOrder {
    /// The pack's manifest, its signature checked.
    pub manifest: Manifest,
    /// At most one for each share, ascending by share.
    pub targets: Vec<Target>,
}

/// What a steward keeps of an order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PassRecord {
    /// The order as it was said last.
    pub order: PassOrder,
    /// What targets signed.
    pub receipts: Vec<Receipt>,
    /// When it was first given, seconds since 1970.
    pub since_secs: u64,
}

/// Bytes that are no order, or no record of one.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
pub enum PassError {
    /// Not the encoding, or out of limits.
    #[error("Not an order for a steward: {reason}")]
    Malformed {
        /// What is wrong.
        reason: String,
    },
    /// Its manifest is wrong.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// A receipt in it is wrong.
    #[error(transparent)]
    Receipt(#[from] ReceiptError),
}

#[derive(Encode, Decode)]
struct OrderBody {
    #[n(0)]
    manifest: ByteVec,
    #[n(1)]
    targets: Vec<Target>,
}

#[derive(Encode, Decode)]
struct RecordBody {
    #[n(0)]
    order: ByteVec,
    #[n(1)]
    receipts: Vec<ByteVec>,
    #[n(2)]
    since_secs: u64,
}

impl PassOrder {
    /// The bytes that travel.
    pub fn encode(&self) -> Vec<u8> {
        encoded(&OrderBody {
            manifest: self.manifest.encode().into(),
            targets: self.targets.clone(),
        })
    }

    /// Decodes and checks limits and the manifest's signature; not whose pack it is.
    pub fn decode(bytes: &[u8]) -> Result<Self, PassError> {
        let body: OrderBody = decoded(bytes)?;
        let manifest = Manifest::decode(&body.manifest)?;
        if !body.targets.is_sorted_by(|a, b| a.index < b.index) {
            return Err(malformed("Its targets are not in the order of their shares"));
        }
        if body.targets.last().is_some_and(|last| last.index >= manifest.shape.n) {
            return Err(malformed("It names a share that the pack does not have"));
        }
        Ok(Self {
            manifest,
            targets: body.targets,
        })
    }
}

impl PassRecord {
    /// The bytes of the file.
    pub fn encode(&self) -> Vec<u8> {
        let body = RecordBody {
            order: self.order.encode().into(),
            receipts: self.receipts.iter().map(|receipt| receipt.encode().into()).collect(),
            since_secs: self.since_secs,
        };
        let mut bytes = MAGIC.to_vec();
        bytes.extend(encoded(&body));
        bytes.extend_from_slice(&checksum(&bytes));
        bytes
    }

    /// Decodes and checks everything that was signed.
    pub fn decode(bytes: &[u8]) -> Result<Self, PassError> {
        let (signed, sum) = bytes
            .split_last_chunk::<CHECKSUM_BYTES>()
            .ok_or_else(|| malformed("It is too short"))?;
        if checksum(signed) != *sum {
            return Err(malformed("Its checksum is wrong"));
        }
        let body = signed
            .strip_prefix(MAGIC)
            .ok_or_else(|| malformed("It was written by another version"))?;
        let body: RecordBody = decoded(body)?;
        Ok(Self {
            order: PassOrder::decode(&body.order)?,
            receipts: body
                .receipts
                .iter()
                .map(|receipt| Receipt::decode(receipt))
                .collect::<Result<_, _>>()?,
            since_secs: body.since_secs,
        })
    }

    /// The targets that have not signed yet.
    pub fn open(&self) -> Vec<Target> {
        let open = |target: &&Target| !self.receipts.iter().any(|receipt| self.order.is_for(receipt, target));
        self.order.targets.iter().filter(open).copied().collect()
    }
}

impl PassOrder {
    /// Whether a receipt says that the target keeps its share.
    pub fn is_for(&self, receipt: &Receipt, target: &Target) -> bool {
        let body = &receipt.body;
        let (id, owner): (_, AccountId) = (self.manifest.shares[usize::from(target.index)], self.manifest.account);
        (body.share, body.owner, body.holder) == (id, owner, target.device)
            && body.stored_bytes as usize == self.manifest.shape.share.stored_bytes()
    }
}

/// Receipts as they travel in `Passing`.
pub fn write_receipts(receipts: &[Receipt]) -> Vec<u8> {
    let receipts: Vec<ByteVec> = receipts.iter().map(|receipt| receipt.encode().into()).collect();
    encoded(&receipts)
}

/// The receipts in the payload of `Passing`; those whose signature does not hold are left out.
pub fn read_receipts(bytes: &[u8]) -> Result<Vec<Receipt>, PassError> {
    let receipts: Vec<ByteVec> = decoded(bytes)?;
    Ok(receipts
        .iter()
        .filter_map(|receipt| Receipt::decode(receipt).ok())
        .collect())
}

fn encoded(body: &impl Encode<()>) -> Vec<u8> {
    minicbor::to_vec(body).expect("writing to memory does not fail")
}

fn decoded<T: for<'b> Decode<'b, ()>>(bytes: &[u8]) -> Result<T, PassError> {
    if bytes.len() > RECORD_BYTES_MAX {
        return Err(malformed("It is too long"));
    }
    minicbor::decode(bytes).map_err(|error| malformed(&error.to_string()))
}

fn checksum(bytes: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let hash = blake3::hash(bytes);
    *hash.as_bytes().first_chunk().expect("a hash is longer")
}

fn malformed(reason: &str) -> PassError {
    PassError::Malformed {
        reason: reason.to_owned(),
    }
}
