//! Content of which too few shares are left: said by the names of its files, and what becomes of it.

use api::failure::Failure;
use api::message::Problem;
use api::output::Sink;
use backup::catalog::content::{anew, lost};
use backup::prepare::lost::is_here;
use database::DbError;

use crate::Engine;

/// Lost files named; the others are counted.
const NAMED_MAX: usize = 10;

impl Engine {
    /// Names lost files, and says what is to be done; returns how many there are.
    pub(super) async fn name_lost(&self, sink: &Sink) -> Result<u64, Failure> {
        let (lost, metadata) = self
            .0
            .db
            .read::<_, DbError>(|conn| Ok((lost::files(conn, NAMED_MAX)?, anew::is_due(conn)?)))?;
        let mut problems = Vec::new();
        if metadata {
            let error =
                "Too few shares of the backup's names and indexes are left: the next `gridbackup run` posts them again";
            problems.push(Problem::new(error));
        }
        for file in &lost.named {
            let what_now = match is_here(file) {
                true => "it is here as it was, and the next `gridbackup run` sends it again",
                false => "it is not here any more as it was, so that only a peer that comes back has it",
            };
            let error = format!("Too few shares of its content are left: {what_now}");
            problems.push(Problem::of_path(file.path.as_slice(), error));
        }
        let further = lost.files - lost.named.len() as u64;
        if further > 0 {
            let error = format!("Too few shares are left of the content of {further} more files");
            problems.push(Problem::new(error));
        }
        for problem in problems {
            sink.send(problem).await?;
        }
        Ok(lost.files)
    }

    /// Whether the next backup can bring back content that is lost at the peers.
    pub(super) fn can_send_again(&self) -> Result<bool, Failure> {
        let (lost, metadata) = self
            .0
            .db
            .read::<_, DbError>(|conn| Ok((lost::files(conn, NAMED_MAX)?, anew::is_due(conn)?)))?;
        Ok(metadata || lost.named.iter().any(is_here))
    }
}
