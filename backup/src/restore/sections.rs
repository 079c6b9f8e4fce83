//! Metadata sections read from their packs and decoded.

use std::collections::HashMap;
use std::sync::Mutex;

use proto::cap_index::{Cap, IndexRecord};
use proto::id::VersionId;
use proto::record::Record;
use proto::section;

use crate::catalog::content;
use crate::catalog::content::SectionRow;
use crate::restore::fetch_stats::FetchStats;
use crate::restore::{Reader, RestoreError};

/// The contents that an index section carries itself.
pub(super) type Inlines = HashMap<VersionId, Vec<u8>>;

/// Reads a section's inline contents: at most 1 MiB of records.
pub(super) async fn load_inlines(
    reader: &Reader,
    row: SectionRow,
    stats: &Mutex<FetchStats>,
) -> Result<Inlines, RestoreError> {
    let place = reader
        .db
        .read(|conn| content::section(conn, row))?
        .ok_or_else(|| damaged("the catalog does not know where it is"))?;
    let bytes = reader.read_row(place.pack, &[(place.offset, place.len)], stats).await?;
    let mut inlines = HashMap::new();
    for record in records(&bytes[0])? {
        if let IndexRecord::Cap(version, Cap::Inline(content)) = record {
            inlines.insert(version, content);
        }
    }
    Ok(inlines)
}

/// Takes a version's content out of its section.
pub(super) fn take_inline(inlines: &mut Inlines, version: VersionId) -> Result<Vec<u8>, RestoreError> {
    inlines
        .remove(&version)
        .ok_or_else(|| damaged("it does not hold the file's content"))
}

/// Decodes a section of `R`s.
pub(crate) fn records<R: Record>(encoded: &[u8]) -> Result<Vec<R>, RestoreError> {
    let bytes = section::decode_kind::<R>(encoded).map_err(|error| damaged(&error.to_string()))?;
    section::records(&bytes)
        .collect::<Result<_, _>>()
        .map_err(|error| damaged(&error.to_string()))
}

fn damaged(reason: &str) -> RestoreError {
    RestoreError::Damaged {
        what: "A metadata section".to_owned(),
        reason: reason.to_owned(),
    }
}
