//! A snapshot, or a part of it, as one archive.

use std::io::BufWriter;

use api::failure::{Exit, Failure};
use api::output::Sink;
use api::request::{Dump, DumpFormat};
use backup::archive::{Archive, Tar, Zip};
use backup::restore::Exported;

use crate::look::SinkWriter;
use crate::{Engine, failures};

/// Bytes that are gathered before they go to the reader of the sink.
const PIECE_BYTES: usize = 128 << 10;
/// Paths named in a failure, at most.
const NAMED_MAX: usize = 20;

impl Engine {
    pub(super) async fn dump(&self, asked: Dump, sink: &Sink) -> Result<Exit, Failure> {
        let snapshot = self.find_snapshot(&asked.snapshot)?;
        let reader = self.reader().await?;
        let out = BufWriter::with_capacity(PIECE_BYTES, SinkWriter(sink.clone()));
        let writing = move || {
            let mut archive: Box<dyn Archive> = match asked.format {
                DumpFormat::Tar => Box::new(Tar::new(out)),
                DumpFormat::Zip => Box::new(Zip::new(out)),
            };
            let path = asked.path.as_ref().map(|path| &path.0[..]);
            reader.export(snapshot.record.seq, path, archive.as_mut())
        };
        let exported = tokio::task::spawn_blocking(writing)
            .await
            .map_err(failures::worker)?
            .map_err(failures::read)?;
        match exported.waiting.is_empty() {
            true => Ok(Exit::Done),
            false => Err(incomplete(&exported)),
        }
    }
}

/// The archive is the only output: what is not in it is said at its end, as a failure.
fn incomplete(exported: &Exported) -> Failure {
    let count = exported.waiting.len();
    let mut failure = Failure::new(
        Exit::Failed,
        format!("{count} files are not in the archive: they were not uploaded yet"),
    )
    .hint("the first of them are named with -v");
    for path in exported.waiting.iter().take(NAMED_MAX) {
        failure.causes.push(String::from_utf8_lossy(path).into_owned());
    }
    failure
}
