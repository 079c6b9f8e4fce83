//! Which requests were asked, and how they were answered, by the keys that their clients chose: kept through restarts, so that a repeat
//! gets the first one's answer whatever ended meanwhile. A file of its own, worth nothing but that: one that is damaged begins anew.
//!
//! What was asked is kept as its hash alone; answers may hold tickets, and are as private as the home that the file is in.

use std::path::Path;

use database::{Db, DbError, Migration};
use rusqlite::{OptionalExtension, Transaction, params};
use serde::{Deserialize, Serialize};

use crate::failure::{Exit, Failure};
use crate::message::Message;
use crate::request::Request;

/// Keys that are kept, the newest ones.
const KEYS_MAX: i64 = 100_000;
/// Seconds for which a key is kept.
const KEEP_SECS: i64 = 7 * 24 * 3600;
/// Keys are looked through for old ones when so many are new.
const PRUNE_EVERY: i64 = 256;

const MIGRATIONS: &[Migration] = &[Migration {
    component: "requests",
    version: 1,
    sql: "CREATE TABLE request (
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            key TEXT NOT NULL UNIQUE,
            asked BLOB NOT NULL,
            began INTEGER NOT NULL,
            answer TEXT
          ) STRICT;",
}];

/// A whole answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// What was said.
    pub messages: Vec<Message>,
    /// How it ended.
    pub ending: Result<Exit, Failure>,
}

/// What is known of a key.
#[derive(Debug, PartialEq)]
pub enum Known {
    /// Nothing until now, or the same was asked and never answered: by a process that is gone, or it was interrupted.
    Unanswered,
    /// The same was asked, and this said.
    Answered(Answer),
    /// Something else was asked.
    Other,
}

/// What is kept of a request.
pub type Asked = [u8; 32];

/// The hash of a request.
pub fn asked(request: &Request) -> Asked {
    let text = serde_json::to_vec(request).unwrap_or_default();
    *blake3::hash(&text).as_bytes()
}

/// The keys of one home.
#[derive(Clone)]
pub struct Keys(Option<Db>);

impl Keys {
    /// None are kept.
    pub fn none() -> Self {
        Self(None)
    }

    /// Those at `path`; none are kept where that cannot be written.
    pub fn open(path: &Path) -> Self {
        let opened = match Db::open(path, MIGRATIONS) {
            Err(DbError::Damaged | DbError::Foreign { .. }) => {
                tracing::warn!(
                    "{} is damaged and begun anew: what was asked before is not known any more",
                    path.display()
                );
                database::remove(path).and_then(|()| Db::open(path, MIGRATIONS))
            }
            opened => opened,
        };
        match opened {
            Ok(db) => Self(Some(db)),
            Err(error) => {
                tracing::warn!("Requests are safe to repeat only until this process ends: {error}");
                Self(None)
            }
        }
    }

    /// Notes that this is asked now, unless it is known. Blocking.
    pub fn begin(&self, key: &str, asked: &Asked, now: i64) -> Known {
        let Some(db) = &self.0 else { return Known::Unanswered };
        let begun = db.write(|tx| {
            if let Some((before, answer)) = find(tx, key)? {
                return Ok(match answer {
                    _ if before[..] != asked[..] => Known::Other,
                    // What this version cannot read is asked again.
                    Some(answer) => serde_json::from_str(&answer).map_or(Known::Unanswered, Known::Answered),
                    None => Known::Unanswered,
                });
            }
            tx.execute(
                "INSERT INTO request (key, asked, began) VALUES (?1, ?2, ?3)",
                params![key, &asked[..], now],
            )?;
            let id = tx.last_insert_rowid();
            if id % PRUNE_EVERY == 0 {
                let old = params![id - KEYS_MAX, now - KEEP_SECS];
                tx.execute("DELETE FROM request WHERE id <= ?1 OR began < ?2", old)?;
            }
            Ok::<_, DbError>(Known::Unanswered)
        });
        begun.unwrap_or_else(|error| {
            tracing::warn!("A request is not noted, and safe to repeat only until this process ends: {error}");
            Known::Unanswered
        })
    }

    /// Notes an answer, before anybody is told its end. Blocking.
    pub fn end(&self, key: &str, answer: &Answer) {
        let Some(db) = &self.0 else { return };
        let noted = serde_json::to_string(answer).map_err(|error| error.to_string());
        let noted = noted.and_then(|text| {
            let update = |tx: &Transaction<'_>| {
                let answer = params![key, text];
                Ok::<_, DbError>(tx.execute("UPDATE request SET answer = ?2 WHERE key = ?1", answer)?)
            };
            db.write(update).map_err(|error| error.to_string())
        });
        if let Err(error) = noted {
            tracing::warn!("An answer is not noted: {error}");
        }
    }
}

type Row = (Vec<u8>, Option<String>);

fn find(tx: &Transaction<'_>, key: &str) -> Result<Option<Row>, DbError> {
    let mut query = tx.prepare_cached("SELECT asked, answer FROM request WHERE key = ?1")?;
    Ok(query
        .query_row([key], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Rule;

    fn answer() -> Answer {
        let pattern = "said".to_owned();
        Answer {
            messages: vec![Rule { pattern }.into()],
            ending: Err(Failure::new(Exit::TooFewShares, "No").hint("wait")),
        }
    }

    #[test]
    fn a_key_is_known_with_its_answer_when_it_is_opened_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("requests.db");
        let (stop, other) = (asked(&Request::Stop), [7; 32]);
        {
            let keys = Keys::open(&path);
            assert_eq!(keys.begin("a", &stop, 1), Known::Unanswered);
            assert_eq!(keys.begin("b", &stop, 1), Known::Unanswered);
            keys.end("a", &answer());
        }
        let keys = Keys::open(&path);
        assert_eq!(keys.begin("a", &stop, 2), Known::Answered(answer()));
        assert_eq!(keys.begin("a", &other, 2), Known::Other);
        // It was being answered when the process ended.
        assert_eq!(keys.begin("b", &stop, 2), Known::Unanswered);
        assert_eq!(keys.begin("b", &other, 2), Known::Other);
    }

    #[test]
    fn a_key_is_kept_for_a_week_and_a_hundred_thousand_others() {
        let dir = tempfile::tempdir().unwrap();
        let keys = Keys::open(&dir.path().join("requests.db"));
        let stop = asked(&Request::Stop);
        let known = |key: &str, now| keys.begin(key, &[0; 32], now) == Known::Other;
        for number in 1..=KEYS_MAX + PRUNE_EVERY {
            keys.begin(&number.to_string(), &stop, number / 1000);
        }
        assert!(!known("1", 200));
        assert!(known(&(PRUNE_EVERY * 2).to_string(), 200));
        for number in 0..=PRUNE_EVERY {
            keys.begin(&format!("late {number}"), &stop, 150 + KEEP_SECS);
        }
        assert!(!known("100000", 150 + KEEP_SECS));
    }

    #[test]
    fn a_file_that_is_no_database_is_begun_anew() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("requests.db");
        std::fs::write(&path, vec![3; 8192]).unwrap();
        let keys = Keys::open(&path);
        assert_eq!(keys.begin("a", &[1; 32], 1), Known::Unanswered);
        assert_eq!(keys.begin("a", &[2; 32], 1), Known::Other);
    }
}
