//! Changes that somebody still has to hear of: written down before the bucket is changed, crossed out when they were told.

use rusqlite::{Transaction, params};

use super::{Inventory, InventoryError, batches};

/// The tables; inventories of earlier versions do not have them.
pub(super) const TABLES: &str = "
    CREATE TABLE IF NOT EXISTS for_cdn (key BLOB PRIMARY KEY, change INTEGER NOT NULL) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS for_hook (key BLOB PRIMARY KEY, change INTEGER NOT NULL) WITHOUT ROWID;
";

/// What became of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Change {
    Added,
    Updated,
    Deleted,
}

/// Who has to hear of changes in this run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Audience {
    /// A CDN: of what was updated and deleted. What was added cannot be in its caches.
    pub cdn: bool,
    /// A command of the user: of everything.
    pub hook: bool,
}

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Listener {
    Cdn,
    Hook,
}

impl Listener {
    fn table(self) -> &'static str {
        match self {
            Self::Cdn => "for_cdn",
            Self::Hook => "for_hook",
        }
    }
}

/// Notes that objects are about to be changed.
pub(super) fn note(tx: &Transaction<'_>, audience: Audience, key: &[u8], change: Change) -> rusqlite::Result<()> {
    let listeners = [
        (Listener::Cdn, audience.cdn && change != Change::Added),
        (Listener::Hook, audience.hook),
    ];
    for (listener, _) in listeners.into_iter().filter(|(_, listens)| *listens) {
        // What was added by a killed run and is sent again is still new; what was deleted and comes again was changed.
        let sql = format!(
            "INSERT INTO {} VALUES (?1, ?2) ON CONFLICT (key) DO UPDATE SET change = CASE
                WHEN change = 0 AND excluded.change = 1 THEN 0
                WHEN change = 2 AND excluded.change = 0 THEN 1
                ELSE excluded.change END",
            listener.table()
        );
        tx.prepare_cached(&sql)?.execute(params![key, change as u8])?;
    }
    Ok(())
}

impl Inventory {
    /// These are about to be deleted. Durable when this returns, if anybody is to hear of it.
    pub fn doom(&self, keys: &[Vec<u8>]) -> Result<(), InventoryError> {
        if self.audience == Audience::default() {
            return Ok(());
        }
        self.with(|connection| {
            connection.pragma_update(None, "synchronous", "FULL")?;
            let tx = connection.transaction()?;
            for key in keys {
                note(&tx, self.audience, key, Change::Deleted)?;
            }
            tx.commit()?;
            connection.pragma_update(None, "synchronous", "NORMAL")
        })
    }

    /// How many changes a listener has not heard of.
    pub fn pending_count(&self, listener: Listener) -> Result<u64, InventoryError> {
        let sql = format!("SELECT count(*) FROM {}", listener.table());
        self.with(|connection| connection.query_row(&sql, [], |row| row.get(0)))
    }

    /// These changes, by key.
    pub fn pending(
        &self,
        listener: Listener,
    ) -> impl Iterator<Item = Result<(Vec<u8>, Change), InventoryError>> + Send + '_ {
        let sql = format!("SELECT key, change FROM {}", listener.table());
        batches(move |after: Option<&(Vec<u8>, Change)>| {
            self.batch(&sql, after.map(|(key, _)| key.as_slice()), |row| {
                let change = match row.get(1)? {
                    0 => Change::Added,
                    1 => Change::Updated,
                    _ => Change::Deleted,
                };
                Ok((row.get(0)?, change))
            })
        })
    }

    /// It has heard of all of them.
    pub fn told(&self, listener: Listener) -> Result<(), InventoryError> {
        let sql = format!("DELETE FROM {}", listener.table());
        self.with(|connection| connection.execute(&sql, []).map(drop))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_outlive_the_run_until_they_are_told() {
        let dir = tempfile::tempdir().unwrap();
        let open = |audience| {
            let mut inventory = Inventory::open(&dir.path().join("i.db"), "b").unwrap();
            inventory.audience = audience;
            inventory
        };
        let inventory = open(Audience { cdn: true, hook: true });
        inventory.doubt(b"new", false).unwrap();
        inventory.doubt(b"new", true).unwrap();
        inventory.doubt(b"old", true).unwrap();
        inventory.doom(&[b"back".to_vec(), b"gone".to_vec()]).unwrap();
        inventory.doubt(b"back", false).unwrap();
        drop(inventory);
        let inventory = open(Audience { cdn: false, hook: true });
        inventory.doubt(b"unheard", true).unwrap();
        let pending = |listener| {
            let changes = inventory.pending(listener).map(Result::unwrap);
            changes
                .map(|(key, change)| (String::from_utf8(key).unwrap(), change))
                .collect::<Vec<_>>()
        };
        let expected = [
            ("back", Change::Updated),
            ("gone", Change::Deleted),
            ("new", Change::Added),
            ("old", Change::Updated),
            ("unheard", Change::Updated),
        ];
        assert_eq!(
            pending(Listener::Hook),
            expected.map(|(key, change)| (key.to_owned(), change))
        );
        let keys: Vec<_> = pending(Listener::Cdn).into_iter().map(|(key, _)| key).collect();
        assert_eq!(keys, ["back", "gone", "new", "old"]);
        inventory.told(Listener::Cdn).unwrap();
        assert_eq!(
            (
                inventory.pending_count(Listener::Cdn).unwrap(),
                inventory.pending_count(Listener::Hook).unwrap()
            ),
            (0, 5)
        );
    }

    #[test]
    fn nothing_is_noted_when_nobody_listens() {
        let dir = tempfile::tempdir().unwrap();
        let inventory = Inventory::open(&dir.path().join("i.db"), "b").unwrap();
        inventory.doubt(b"k", true).unwrap();
        inventory.doom(&[b"k".to_vec()]).unwrap();
        assert_eq!(inventory.pending_count(Listener::Hook).unwrap(), 0);
    }
}
