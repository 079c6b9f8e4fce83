//! Taking the lock: from nobody, from who gave it back, or from who has not renewed it for longer than it said.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use data_encoding::HEXLOWER;
use jiff::SignedDuration;
use s3::{Condition, Error, Window, Windows};

use super::document::{BYTES_MAX, host};
use super::term::now_ms;
use super::{Document, Held, Inner, LockError};
use crate::inventory::Memory;
use crate::options::LockMode;

/// Both times of an answer are whole seconds, and an endpoint's machines do not have quite the same. In seconds.
const CLOCK_SECS: i64 = 2;
/// A request that was signed without a window while a term ran is refused by the endpoint when it arrives so much later: 15 minutes
/// (<https://docs.aws.amazon.com/AmazonS3/latest/API/RESTAuthentication.html>), and one for clocks. In seconds.
const LATE_SECS: i64 = 16 * 60;
/// One with a window has arrived by then, but for its body: so long may that take. Chosen: what a killed machine's kernel still sends is
/// at most 4 MiB (Linux's `tcp_wmem`), and goes through a line of 300 kbit/s in that time. In seconds.
const BODY_SECS: i64 = 2 * 60;
/// How long ago the window was by which endpoints are tested. Far more than any clocks are apart; in seconds.
const PAST_SECS: i64 = 60 * 60;
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
    /// Until when writes of its holder may still come after it was taken from him, in seconds by the endpoint's clock.
    fn late_until(&self, is_timed: bool) -> Option<i64> {
        let term_secs = i64::try_from(self.document.term_secs).unwrap_or(i64::MAX);
        let late_secs = match is_timed {
            // His term may still run: if he is this inventory's own run that was killed.
            true => term_secs.saturating_add(CLOCK_SECS + BODY_SECS),
            false => LATE_SECS,
        };
        self.now_secs.map(|now_secs| now_secs.saturating_add(late_secs))
    }

    /// Its holder has not renewed it for longer than it said.
    fn is_expired(&self) -> bool {
        let term_secs = i64::try_from(self.document.term_secs).unwrap_or(i64::MAX);
        self.age_secs
            .is_some_and(|age_secs| age_secs >= term_secs.saturating_add(CLOCK_SECS))
    }
}

/// A window that was over long ago.
#[derive(Debug)]
struct Past(Window);

impl Windows for Past {
    fn window(&self) -> Option<Window> {
        Some(self.0)
    }
}

impl Inner {
    /// Takes the lock, waiting for it if that was asked for.
    pub(super) async fn take(&self) -> Result<Held, LockError> {
        let memory = self.inventory.lock_memory()?;
        self.is_conditional
            .store(memory.is_conditional.unwrap_or(true), Ordering::Relaxed);
        self.is_timed.store(memory.is_timed.unwrap_or(false), Ordering::Relaxed);
        if memory.is_conditional == Some(false) && self.options.mode == LockMode::Require {
            return Err(LockError::Unconditional);
        }
        // One for the life of the inventory: whoever is killed is recognised by his next run, which need not wait for the term, because
        // only one at a time has the inventory.
        let holder = match memory.holder.as_str() {
            "" => random()?,
            known => known.to_owned(),
        };
        let mine = Memory {
            holder: holder.clone(),
            etag: String::new(),
            ..memory.clone()
        };
        self.inventory.remember_lock(&mine)?;
        let known = (memory.is_conditional == Some(true) && !memory.etag.is_empty()).then(|| Look {
            document: Document {
                fence: memory.fence,
                held: false,
                ..Document::first(&memory.holder, self.options.term, memory.generation.unwrap_or_default())
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
            term_secs: look.document.term_secs,
        })
    }

    /// None: somebody was faster, or nobody knows; look again.
    async fn try_take(&self, look: Option<&Look>, holder: &str, memory: &Memory) -> Result<Option<Held>, LockError> {
        let (document, condition) = match look {
            None => (
                Document::first(holder, self.options.term, random_number()?),
                Condition::Absent,
            ),
            Some(look) => (
                look.document.next(holder, self.options.term),
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
        self.term.extend(sent_ms, self.options.term);
        let is_timed = match memory.is_timed {
            None => self.minds_windows(&document, &mut etag).await?,
            known => known,
        };
        self.is_timed.store(is_timed.unwrap_or(false), Ordering::Relaxed);
        if !self.is_conditional.load(Ordering::Relaxed) {
            // Who wrote last has it; the probes may have written, too.
            match self.look().await? {
                Some(now) if now.document == document => etag = now.etag,
                _ => return Ok(None),
            }
        }
        let old = Memory {
            is_timed,
            ..memory.clone()
        };
        self.held(document, etag, look, &old).map(Some)
    }

    /// Holds it; durably before anything else is sent.
    fn held(&self, document: Document, etag: String, look: Option<&Look>, old: &Memory) -> Result<Held, LockError> {
        let is_doubtful = match look {
            Some(look) => look.document.held || old.generation != Some(look.document.generation),
            // It was there once. Where it never was nobody published with it.
            None => old.generation.is_some(),
        };
        let doubt_until = match look {
            Some(look) if look.document.held => look.late_until(old.is_timed == Some(true)),
            _ => None,
        };
        let memory = Memory {
            holder: document.holder.clone(),
            etag: String::new(),
            fence: document.fence,
            // Until a whole run has seen to it.
            generation: old.generation.filter(|_| !is_doubtful),
            is_conditional: Some(self.is_conditional.load(Ordering::Relaxed)),
            is_timed: old.is_timed,
            doubt_until: doubt_until.or(old.doubt_until),
        };
        self.inventory.remember_lock(&memory)?;
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

    /// Whether the endpoint refuses what comes after its window, and understands what comes in time; none: it is not known yet. Puts of
    /// what lies there anyway; `etag` is its, then as before.
    async fn minds_windows(&self, document: &Document, etag: &mut String) -> Result<Option<bool>, LockError> {
        let Some(window) = self.term.window() else {
            // No clock to go by.
            return Ok(None);
        };
        let from = window.from - SignedDuration::from_secs(PAST_SECS);
        let past = Arc::new(Past(Window { from, secs: 1 }));
        for (client, is_late) in [
            (self.client.within(past), true),
            (self.client.within(self.term.clone()), false),
        ] {
            let condition = self.condition(Condition::Is(etag.clone()));
            match self.write_by(&client, document, &condition).await {
                Ok(stored) => {
                    *etag = stored.etag;
                    if is_late {
                        return Ok(Some(false));
                    }
                }
                Err(Error::Late(_)) if is_late => {}
                Err(Error::Late(_)) => return Ok(None),
                // A policy may forbid such signatures, or the endpoint does not know them.
                Err(Error::Denied(_) | Error::Refused(_)) => return Ok(Some(false)),
                Err(Error::Changed(_) | Error::NotFound(_)) => {
                    return Err(LockError::Lost("another publisher took it"));
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(Some(true))
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
        self.term.hear(object.meta.answered);
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
