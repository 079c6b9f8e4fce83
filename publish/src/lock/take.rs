//! Taking the lock: from nobody, from who gave it back, or from who has not renewed it for longer than it said.

use std::sync::atomic::Ordering;
use std::time::Duration;

use data_encoding::HEXLOWER;
use s3::{Condition, Error};

use super::document::{BYTES_MAX, host};
use super::{Document, Held, Inner, LATE_SECS, LockError, millis, now_ms};
use crate::index::Memory;
use crate::options::LockMode;

/// Both times of an answer are whole seconds, and an endpoint's machines do not have quite the same. In seconds.
const CLOCK_SECS: i64 = 2;
/// Between two looks at a lock that somebody holds.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Attempts to be first where others are, too, without `--wait`.
const TRIES_MAX: u32 = 5;

/// The lock as it lies in the bucket.
pub(super) struct Look {
    pub document: Document,
    pub etag: String,
    /// Seconds since it was written, and the time, both by the endpoint's clock; none: it does not say.
    age_secs: Option<i64>,
    now_secs: Option<i64>,
}

impl Look {
    /// Its holder has not renewed it for longer than it said.
    fn is_expired(&self) -> bool {
        let lease_secs = i64::try_from(self.document.lease_secs).unwrap_or(i64::MAX);
        self.age_secs
            .is_some_and(|age_secs| age_secs >= lease_secs.saturating_add(CLOCK_SECS))
    }
}

impl Inner {
    /// Takes the lock, waiting for it if that was asked for.
    pub(super) async fn take(&self) -> Result<Held, LockError> {
        let memory = self.index.lock_memory()?;
        self.is_conditional
            .store(memory.is_conditional.unwrap_or(true), Ordering::Relaxed);
        if memory.is_conditional == Some(false) && self.options.mode == LockMode::Require {
            return Err(LockError::Unconditional);
        }
        // One for the life of the index: whoever is killed is recognised by his next run, which need not wait for the lease, because
        // only one at a time has the index.
        let holder = match memory.holder.as_str() {
            "" => random()?,
            known => known.to_owned(),
        };
        let mine = Memory {
            holder: holder.clone(),
            etag: String::new(),
            ..memory.clone()
        };
        self.index.remember_lock(&mine)?;
        let known = (memory.is_conditional == Some(true) && !memory.etag.is_empty()).then(|| Look {
            document: Document {
                fence: memory.fence,
                held: false,
                ..Document::first(
                    &memory.holder,
                    self.options.lease,
                    memory.generation.unwrap_or_default(),
                )
            },
            etag: memory.etag.clone(),
            age_secs: None,
            now_secs: None,
        });
        // Without a generation somebody has to look: it is part of what is written.
        let mut look = known.filter(|_| memory.generation.is_some());
        let mut tries = 0;
        loop {
            if look.is_none() {
                look = self.look().await?;
            }
            if let Some(look) = &look
                && !self.is_mine_to_take(look, &memory)
            {
                self.wait(look).await?;
            } else if let Some(held) = self.try_take(look.as_ref(), &holder, &memory).await? {
                return Ok(held);
            } else {
                tries += 1;
                if tries >= TRIES_MAX && !self.options.wait {
                    return Err(LockError::Crowded);
                }
            }
            look = None;
        }
    }

    fn is_mine_to_take(&self, look: &Look, memory: &Memory) -> bool {
        let is_own = look.document.holder == memory.holder && look.document.host == host();
        !look.document.held || is_own || look.is_expired()
    }

    async fn wait(&self, look: &Look) -> Result<(), LockError> {
        if self.options.wait {
            tokio::time::sleep(LOOK_EVERY).await;
            return Ok(());
        }
        Err(LockError::Held {
            host: look.document.host.clone(),
            age_secs: look.age_secs.unwrap_or_default(),
            lease_secs: look.document.lease_secs,
        })
    }

    /// None: somebody was faster, or nobody knows; look again.
    async fn try_take(&self, look: Option<&Look>, holder: &str, memory: &Memory) -> Result<Option<Held>, LockError> {
        let (document, condition) = match look {
            None => (
                Document::first(holder, self.options.lease, random_number()?),
                Condition::Absent,
            ),
            Some(look) => (
                look.document.next(holder, self.options.lease),
                Condition::Is(look.etag.clone()),
            ),
        };
        let sent_ms = now_ms();
        let mut etag = match self.write(&document, &self.condition(condition)).await {
            Ok(stored) => stored.etag,
            Err(Error::Changed(_) | Error::NotFound(_)) => match self.look().await? {
                // Our own attempt, whose answer was lost.
                Some(now) if now.document == document => now.etag,
                _ => return Ok(None),
            },
            Err(error) if is_unknown(&error) && self.options.mode != LockMode::Require => {
                self.is_conditional.store(false, Ordering::Relaxed);
                return Ok(None);
            }
            Err(error) if is_unknown(&error) => return Err(LockError::Unconditional),
            Err(error) => return Err(error.into()),
        };
        if memory.is_conditional.is_none() && !self.honours_conditions(&document).await? {
            self.is_conditional.store(false, Ordering::Relaxed);
            if self.options.mode == LockMode::Require {
                self.client.delete_one(&self.key).await?;
                return Err(LockError::Unconditional);
            }
        }
        if !self.is_conditional.load(Ordering::Relaxed) {
            // Who wrote last has it; the probes may have written, too.
            match self.look().await? {
                Some(now) if now.document == document => etag = now.etag,
                _ => return Ok(None),
            }
        }
        self.until_ms
            .store(sent_ms.saturating_add(millis(self.options.lease)), Ordering::Release);
        self.held(document, etag, look, memory).map(Some)
    }

    /// Holds it; durably before anything else is sent.
    fn held(&self, document: Document, etag: String, look: Option<&Look>, old: &Memory) -> Result<Held, LockError> {
        let is_taken_over = look.is_some_and(|look| look.document.held);
        let is_doubtful = match look {
            Some(look) => look.document.held || old.generation != Some(look.document.generation),
            // It was there once. Where it never was nobody published with it.
            None => old.generation.is_some(),
        };
        let now_secs = look.and_then(|look| look.now_secs);
        let doubt_until = match now_secs.filter(|_| is_taken_over) {
            Some(now_secs) => Some(now_secs.saturating_add(LATE_SECS)),
            None => old.doubt_until,
        };
        let memory = Memory {
            holder: document.holder.clone(),
            etag: String::new(),
            fence: document.fence,
            // Until a whole run has seen to it.
            generation: old.generation.filter(|_| !is_doubtful),
            is_conditional: Some(self.is_conditional.load(Ordering::Relaxed)),
            doubt_until,
        };
        self.index.remember_lock(&memory)?;
        Ok(Held {
            is_doubtful,
            document,
            etag,
            memory,
            renewing: None,
        })
    }

    /// Puts that must fail, of what lies there anyway.
    async fn honours_conditions(&self, document: &Document) -> Result<bool, LockError> {
        for condition in [Condition::Absent, Condition::Is("0".repeat(32))] {
            match self.write(document, &condition).await {
                Err(Error::Changed(_) | Error::NotFound(_)) => {}
                Ok(_) => return Ok(false),
                Err(error) if is_unknown(&error) => return Ok(false),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(true)
    }

    /// The lock as it lies there, if there is one.
    pub(super) async fn look(&self) -> Result<Option<Look>, LockError> {
        let object = match self.client.get(&self.key, None, BYTES_MAX).await {
            Ok(object) => object,
            Err(Error::NotFound(_)) => return Ok(None),
            Err(Error::TooLong { target, .. }) => return Err(LockError::Foreign(target)),
            Err(error) => return Err(error.into()),
        };
        let document = Document::parse(&object.bytes).ok_or_else(|| LockError::Foreign(s3::shown(&self.key)))?;
        let modified = object.meta.modified.map(|time| time.as_second());
        let answered = object.meta.answered.map(|time| time.as_second());
        Ok(Some(Look {
            document,
            etag: object.meta.etag,
            age_secs: modified.zip(answered).map(|(modified, answered)| answered - modified),
            now_secs: answered,
        }))
    }
}

/// The endpoint does not know the header, and says so.
fn is_unknown(error: &Error) -> bool {
    matches!(error, Error::Refused(refusal) if refusal.status == 501 || refusal.code == "NotImplemented" || refusal.code == "InvalidArgument")
}

fn random() -> Result<String, LockError> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|_| LockError::Randomness)?;
    Ok(HEXLOWER.encode(&bytes))
}

/// Small enough that it can be counted up for ever, and read by programs whose numbers are floating.
fn random_number() -> Result<u64, LockError> {
    Ok(getrandom::u32().map_err(|_| LockError::Randomness)?.into())
}
