//! An inventory that was filled without a bucket, for measurements with more objects than anybody wants to send.

use crate::error::PublishError;
use crate::inventory::{Inventory, Row, State};
use crate::options::Options;
use crate::source;
use crate::source::SourceError;
use crate::walk::{Found, Walk};

/// Rows written at once.
const BATCH_ROWS: usize = 1000;
/// Longest file, in bytes: ETags of parts are not made here.
const FILE_BYTES_MAX: u64 = 8 << 20;

/// Records all files of the folder as if they had been sent just so, without asking; says how many. `examples/keys.rs` uses it.
#[doc(hidden)]
pub fn adopt(options: &Options, client: &s3::Client) -> Result<u64, PublishError> {
    let location = client.location();
    let inventory = Inventory::open(&options.inventory, &format!("{}/{}", client.url(), location.prefix))?;
    let unreadable = |source| PublishError::Source {
        path: options.source.clone(),
        source,
    };
    let prefix = location.prefix.as_bytes();
    let walk = Walk::open(&options.source, prefix, options.links, None).map_err(unreadable)?;
    let (mut rows, mut count) = (Vec::new(), 0);
    for found in walk {
        let Found::File { key, path, mode, .. } = found else {
            continue;
        };
        let Some(wish) = options.routes.wish(key.strip_prefix(prefix).unwrap_or(&key)) else {
            continue;
        };
        let contents = source::read(&path, FILE_BYTES_MAX).map_err(|error| match error {
            SourceError::Io(source) => unreadable(source),
            SourceError::Changing => unreadable(std::io::Error::other(error)),
        })?;
        let compress = wish.compress;
        rows.push(Row {
            key,
            state: State::Sure,
            stat: contents.stat,
            hash: *blake3::hash(&contents.bytes).as_bytes(),
            etag: s3::etag_of(&contents.bytes),
            version: None,
            headers: wish.with_mode(mode).headers_hash(),
            compress,
        });
        count += 1;
        if rows.len() == BATCH_ROWS {
            inventory.store(&std::mem::take(&mut rows))?;
        }
    }
    inventory.store(&rows)?;
    Ok(count)
}
