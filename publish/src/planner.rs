//! The first pass: folder, inventory and listing are merged, and what needs something is handed on, put off or marked dead.
//!
//! Runs on a thread of its own and keeps nothing but what is next.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;
use std::sync::Arc;

use s3::shown;
use tokio::sync::mpsc::Sender;

use crate::error::PublishError;
use crate::event::{Drift, Event};
use crate::inventory::{Dead, Inventory, Later, Row, Seen};
use crate::lock::is_lock;
use crate::merge::{Joined, Keyed, Merge};
use crate::plan::{Expected, Known, Rules, Source, Step, Work, expected, step};
use crate::redirects::WithRedirects;
use crate::routes::{Routes, Wish};
use crate::stat::Stat;
use crate::types::is_page;
use crate::walk::{Found, Walk};

/// What the planner found.
#[derive(Debug)]
pub(crate) enum Planned {
    /// To be done now.
    Work(Box<Work>),
    /// To be told.
    Event(Event),
    /// So many files were looked at.
    Looked(Looked),
}

/// What was looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Looked {
    pub files: u64,
    pub bytes: u64,
    pub unchanged: u64,
}

/// Files between two words about how far it is.
const LOOKED_EVERY: u64 = 1000;

/// What the first pass needs.
pub(crate) struct Planner {
    pub inventory: Arc<Inventory>,
    pub routes: Routes,
    /// What all keys begin with; names for routes are without it.
    pub prefix: Vec<u8>,
    pub rules: Rules,
    /// Every object without a file is deleted, whoever put it there; else those that the inventory knows, and those that this program
    /// put there from elsewhere.
    pub owns_all: bool,
    pub planned: Sender<Planned>,
    pub looked: Looked,
    /// Keys that stay, because what they come from cannot be looked at.
    pub hidden: Hidden,
}

/// What keys of folders begin with that cannot be read now, or of links that lead to no folder now.
#[derive(Debug, Default)]
pub(crate) struct Hidden(Vec<Vec<u8>>);

impl Hidden {
    /// All keys below `key` stay. Keys come in order: what later ones cannot begin with any more is dropped.
    fn hide(&mut self, key: &[u8]) {
        self.0.retain(|prefix| prefix.as_slice() > key);
        let mut prefix = key.to_vec();
        if !prefix.ends_with(b"/") {
            prefix.push(b'/');
        }
        self.0.push(prefix);
    }

    fn has(&self, key: &[u8]) -> bool {
        self.0.iter().any(|prefix| key.starts_with(prefix))
    }
}

impl Keyed for Found {
    fn key(&self) -> &[u8] {
        Found::key(self)
    }
}

impl Planner {
    /// Goes through everything; blocks.
    pub fn run(mut self, walk: Walk) -> Result<Looked, PublishError> {
        let inventory = self.inventory.clone();
        let redirects = self.routes.redirects();
        let redirects = redirects.map(|name| [self.prefix.as_slice(), name].concat()).collect();
        let found = WithRedirects::new(walk, redirects);
        for joined in Merge::new(found, inventory.rows(), inventory.all_seen()) {
            self.plan(joined?)?;
        }
        self.send(Planned::Looked(self.looked))?;
        Ok(self.looked)
    }

    fn plan(&mut self, joined: Joined<Found, Row, Seen>) -> Result<(), PublishError> {
        let Joined { found, row, seen } = joined;
        match found {
            Some(Found::Broken { key, path, why }) => {
                self.hidden.hide(&key);
                self.send(Planned::Event(Event::Broken {
                    path: path.display().to_string(),
                    why,
                }))
            }
            Some(Found::File { key, path, .. }) if is_lock(&key) => self.send(Planned::Event(Event::Broken {
                path: path.display().to_string(),
                why: "it has the name of the lock in the bucket".to_owned(),
            })),
            Some(Found::File { key, path, stat, mode }) => {
                let Some(wish) = self.routes.wish(self.name(&key)) else {
                    return self.gone(row, seen);
                };
                self.file(key, path, stat, wish.with_mode(mode), row, seen)
            }
            Some(Found::Made { key, contents }) => {
                let Some(wish) = self.routes.wish_for_made(self.name(&key)) else {
                    return self.gone(row, seen);
                };
                let stat = Stat::of_made(&contents);
                match self.step(&key, &stat, &wish, row.as_ref(), seen.as_ref())? {
                    Step::Keep => Ok(()),
                    _ => Ok(self.inventory.put_off_made(&key, &contents)?),
                }
            }
            None => self.gone(row, seen),
        }
    }

    fn name<'a>(&self, key: &'a [u8]) -> &'a [u8] {
        key.strip_prefix(self.prefix.as_slice()).unwrap_or(key)
    }

    fn step(
        &self,
        key: &[u8],
        stat: &Stat,
        wish: &Wish,
        row: Option<&Row>,
        seen: Option<&Seen>,
    ) -> Result<Step, PublishError> {
        let (step, drift) = step(self.rules, stat, wish, row, seen);
        if let Some(drift) = drift {
            self.send(Planned::Event(Event::Drifted { key: shown(key), drift }))?;
        }
        Ok(step)
    }

    fn file(
        &mut self,
        key: Vec<u8>,
        path: PathBuf,
        stat: Stat,
        wish: Wish,
        row: Option<Row>,
        seen: Option<Seen>,
    ) -> Result<(), PublishError> {
        self.looked.files += 1;
        self.looked.bytes += stat.bytes;
        if self.looked.files.is_multiple_of(LOOKED_EVERY) {
            self.send(Planned::Looked(self.looked))?;
        }
        let step = self.step(&key, &stat, &wish, row.as_ref(), seen.as_ref())?;
        if step == Step::Keep {
            self.looked.unchanged += 1;
            return Ok(());
        }
        if is_page(wish.headers.content_type.as_deref().unwrap_or_default()) {
            return Ok(self.inventory.put_off(&key, path.as_os_str().as_bytes())?);
        }
        let source = Source::File(path);
        self.send(Planned::Work(Box::new(Work {
            expected: expected(self.rules, row.as_ref(), seen.as_ref()),
            key,
            source,
            stat,
            wish,
            step,
            row,
        })))
    }

    fn gone(&mut self, row: Option<Row>, seen: Option<Seen>) -> Result<(), PublishError> {
        let Some(key) = row.as_ref().map(Keyed::key).or(seen.as_ref().map(Keyed::key)) else {
            return Ok(());
        };
        if self.hidden.has(key) {
            return Ok(());
        }
        let is_strange = row.is_none() && !self.owns_all;
        if row.is_none() && self.owns_all {
            self.send(Planned::Event(Event::Drifted {
                key: shown(key),
                drift: Drift::Unknown,
            }))?;
        }
        let etag = match expected(self.rules, row.as_ref(), seen.as_ref()) {
            Expected::Etag(etag) => etag,
            Expected::Absent | Expected::Unknown => String::new(),
        };
        Ok(self.inventory.mark_dead(&Dead {
            key: key.to_vec(),
            etag,
            is_strange,
        })?)
    }

    fn send(&self, planned: Planned) -> Result<(), PublishError> {
        // Whoever reads has stopped, so do we.
        self.planned.blocking_send(planned).map_err(|_| PublishError::Stopped)
    }
}

/// A page that was put off, looked at again: time has passed.
pub(crate) fn page(
    inventory: &Inventory,
    routes: &Routes,
    prefix: &[u8],
    rules: Rules,
    (key, path): Later,
) -> Result<Result<Work, Event>, PublishError> {
    let name = key.strip_prefix(prefix).unwrap_or(&key);
    let found = match path.map(|path| PathBuf::from(OsString::from_vec(path))) {
        None => {
            let stat = Stat::of_made(&inventory.made(&key)?);
            routes.wish_for_made(name).map(|wish| (stat, wish, Source::Made))
        }
        Some(path) => match rustix::fs::stat(&path) {
            Ok(stat) => routes
                .wish(name)
                .map(|wish| (Stat::from(&stat), wish.with_mode(stat.st_mode), Source::File(path))),
            Err(error) => {
                let (path, why) = (path.display().to_string(), error.to_string());
                return Ok(Err(Event::Broken { path, why }));
            }
        },
    };
    let Some((stat, wish, source)) = found else {
        let (path, why) = (shown(&key), "its route does not publish it".to_owned());
        return Ok(Err(Event::Broken { path, why }));
    };
    let (row, seen) = (inventory.get(&key)?, inventory.seen(&key)?);
    let (mut step, _) = step(rules, &stat, &wish, row.as_ref(), seen.as_ref());
    // A copy onto itself would keep where it leads to on some endpoints, and there are no bytes to spare.
    if wish.headers.redirect.is_some() && source == Source::Made && step != Step::Keep {
        step = Step::Read(Known::Nothing);
    }
    Ok(Ok(Work {
        expected: expected(rules, row.as_ref(), seen.as_ref()),
        key,
        source,
        stat,
        wish,
        step,
        row,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_below_something_broken_stays() {
        let mut hidden = Hidden::default();
        // A link to a folder that is not there now, then something broken whose key comes before what lay below the link.
        hidden.hide(b"dead");
        hidden.hide(b"dead-too");
        assert!(hidden.has(b"dead/x") && hidden.has(b"dead-too/x"));
        assert!(!hidden.has(b"dead-end") && !hidden.has(b"deadly/x"));
        hidden.hide(b"e/");
        assert!(hidden.has(b"e/x") && hidden.0.len() == 1);
    }
}
