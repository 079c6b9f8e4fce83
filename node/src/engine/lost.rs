//! Content of which too few shares are left: said by the names of its files, and what becomes of it.

use backup::catalog::content::{anew, lost};
use backup::prepare::lost::is_here;
use upload_queue::db::DbError;

use crate::engine::Engine;
use crate::failure::Failure;
use crate::message::{PathName, Problem};
use crate::output::Sink;

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
            problems.push((
                None,
                "Too few shares of the backup's names and indexes are left: the next `gridbackup run` publishes them again"
                    .to_owned(),
            ));
        }
        for file in &lost.named {
            let what_now = match is_here(file) {
                true => "it is here as it was, and the next `gridbackup run` sends it again",
                false => "it is not here any more as it was, so that only a peer that comes back has it",
            };
            let path = Some(PathName(file.path.clone()));
            problems.push((path, format!("Too few shares of its content are left: {what_now}")));
        }
        let further = lost.files - lost.named.len() as u64;
        if further > 0 {
            problems.push((
                None,
                format!("Too few shares are left of the content of {further} more files"),
            ));
        }
        for (path, error) in problems {
            let problem = Problem {
                path,
                peer: None,
                error,
            };
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
