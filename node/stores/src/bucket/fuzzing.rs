//! What reads the objects that others may put into a bucket: for the targets in `fuzz`, and nobody else.

use proto::id::{AccountId, GridId, ShareId, VoterId};
use proto::wire::roster::RosterRecords;

use super::{keys, marker, meeting, promises, trash};

/// The ids that a note gives up, if it is `account`'s with this number.
pub fn note(bytes: &[u8], account: AccountId, number: u64) -> Option<Vec<ShareId>> {
    trash::parse(bytes, None, (account, number)).map(|note| note.ids)
}

/// A marker, as it would be written again.
pub fn marker(bytes: &[u8]) -> Option<bytes::Bytes> {
    marker::Marker::decode(bytes).map(|marker| marker.encode())
}

/// The id in the object `voter`.
pub fn voter(bytes: &[u8]) -> Option<VoterId> {
    promises::read_id(bytes)
}

/// The roster that was sealed for the members of a grid.
pub fn roster(grid: GridId, sealed: &[u8]) -> Option<RosterRecords> {
    meeting::open(&meeting::reader_of(grid), sealed)
}

/// A roster as members of a grid seal it.
pub fn seal_roster(grid: GridId, bytes: &[u8]) -> Vec<u8> {
    let keys = meeting::writer_for(&meeting::reader_of(grid));
    keys.seal_to_reader(meeting::CONTEXT, bytes, [7; 32])
}

/// The id that a key ends with.
pub fn id_of(key: &[u8]) -> Option<ShareId> {
    keys::id_of(key)
}
