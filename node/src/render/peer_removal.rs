//! What removing a peer costs, for people.

use api::human::ByteSize;
use api::message::PeerRemoval;

/// In a sentence.
pub(super) fn text(removal: &PeerRemoval) -> String {
    if removal.shares == 0 {
        return format!("{} holds nothing of this backup", removal.name);
    }
    let read = match removal.files_again {
        0 => String::new(),
        files => format!(", and {files} files are read here again"),
    };
    let lost = match removal.files_lost {
        0 => String::new(),
        files => format!("; the content of {files} files is lost"),
    };
    let disks = match &removal.disks_lost[..] {
        [] => String::new(),
        names => format!("; blocks of the disk {} are lost", names.join(", ")),
    };
    format!(
        "{} holds {} shares ({}): without it {} packs are less safe than asked for until {} were sent again{read}{lost}{disks}",
        removal.name,
        removal.shares,
        ByteSize(removal.bytes),
        removal.packs_unsafe,
        ByteSize(removal.bytes_again),
    )
}
