//! The last part of a run: objects without a file are deleted, if they are ours and not too many.

use futures::{StreamExt, TryStreamExt, stream};
use s3::{Client, Doomed, Error, shown};

use crate::error::PublishError;
use crate::event::{Drift, Event};
use crate::inventory::Dead;
use crate::mark::Mark;
use crate::options::Deletes;
use crate::run::Run;

/// Strange objects that are asked about at once.
const ASKED_AT_ONCE: usize = 16;

impl Run<'_> {
    pub(crate) async fn deletes(&mut self) -> Result<(), PublishError> {
        let Deletes::UpTo(deletes_max) = self.options.deletes else {
            self.summary.kept = self.inventory.dead(false)?.1;
            return Ok(());
        };
        self.sort_strange(deletes_max).await?;
        let (_, count) = self.inventory.dead(false)?;
        if count == 0 {
            return Ok(());
        }
        if self.looked.files == 0 && !self.options.allow_empty {
            return Err(PublishError::Empty {
                path: self.options.source.clone(),
            });
        }
        if count > deletes_max {
            return Err(PublishError::TooManyDeletes {
                deletes: count,
                deletes_max,
            });
        }
        if self.summary.failed > 0 {
            self.summary.kept = count;
            return Ok(());
        }
        loop {
            let (dead, _) = self.inventory.dead(false)?;
            if dead.is_empty() {
                return Ok(());
            }
            self.delete_batch(dead).await?;
        }
    }

    async fn delete_batch(&mut self, dead: Vec<Dead>) -> Result<(), PublishError> {
        let keys: Vec<_> = dead.iter().map(|dead| dead.key.clone()).collect();
        let failed = if self.options.dry_run {
            Vec::new()
        } else {
            let lock = &self.workshop.lock;
            lock.enter().await?;
            self.inventory.doom(&keys)?;
            let is_conditional = lock.is_conditional();
            let doomed = dead.into_iter().map(|dead| Doomed {
                key: dead.key,
                etag: Some(dead.etag).filter(|etag| is_conditional && !etag.is_empty()),
            });
            let doomed: Vec<_> = doomed.collect();
            let doomed = &doomed;
            lock.write(|client: Client| async move { client.delete_these(doomed).await })
                .await?
        };
        self.inventory.bury(&keys)?;
        let is_failed = |key: &[u8]| failed.iter().any(|failed| failed.key == key);
        let deleted: Vec<_> = keys.into_iter().filter(|key| !is_failed(key)).collect();
        if !self.options.dry_run {
            self.inventory.forget(&deleted)?;
            // Changed by others since it was listed: the next run has to look.
            for failed in failed.iter().filter(|failed| matches!(failed.error, Error::Changed(_))) {
                self.inventory.doubt(&failed.key, true)?;
            }
        }
        self.summary.deleted += deleted.len() as u64;
        deleted
            .iter()
            .for_each(|key| (self.sink)(Event::Deleted { key: shown(key) }));
        for failed in failed {
            self.tell(Event::Failed {
                key: shown(&failed.key),
                why: failed.error.to_string(),
            });
        }
        Ok(())
    }

    /// Objects that the inventory knows nothing of: those that another publisher put there are judged by this tree, all others stay.
    async fn sort_strange(&mut self, deletes_max: u64) -> Result<(), PublishError> {
        let (_, count) = self.inventory.dead(true)?;
        if count > deletes_max {
            let what = format!("{count} objects that are not in the inventory were left alone (--verify deletes them)");
            self.tell(Event::Warned { what });
            return Ok(());
        }
        loop {
            let (strange, _) = self.inventory.dead(true)?;
            if strange.is_empty() {
                return Ok(());
            }
            let client = self.client;
            let asked = stream::iter(strange).map(|dead| async move {
                let meta = match client.head(&dead.key).await {
                    Ok(meta) => Some(meta),
                    Err(Error::NotFound(_)) => None,
                    Err(error) => return Err(error),
                };
                Ok((dead, meta))
            });
            let asked: Vec<_> = asked.buffer_unordered(ASKED_AT_ONCE).try_collect().await?;
            for (dead, meta) in asked {
                match meta.filter(|meta| meta.headers.metadata.contains_key(Mark::NAME)) {
                    Some(meta) => {
                        self.tell(Event::Drifted {
                            key: shown(&dead.key),
                            drift: Drift::Unknown,
                        });
                        self.inventory.mark_dead(&Dead {
                            etag: meta.etag,
                            is_strange: false,
                            ..dead
                        })?;
                    }
                    None => self.inventory.bury(&[dead.key])?,
                }
            }
        }
    }
}
