//! The snapshots that a tree shows, by number, by id and by date.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use proto::log_record::PathBytes;

use super::{IDS, Node, Place, link};
use crate::catalog::tree::Snapshot;

/// Hexadecimal digits of an id that name its folder: as many as `snapshots` prints.
const ID_DIGITS: usize = 12;

/// A snapshot as it is shown.
pub(super) struct Shown {
    pub(super) time_ns: i64,
    pub(super) roots: Arc<[PathBytes]>,
    id_name: Vec<u8>,
    date_name: Vec<u8>,
}

/// All that are shown.
pub(super) struct Snapshots {
    by_seq: BTreeMap<u64, Shown>,
    ids: BTreeMap<Vec<u8>, u64>,
    dates: BTreeMap<Vec<u8>, u64>,
}

impl Snapshots {
    /// From a list in ascending order. Snapshots of one second get `-2`, `-3`, … after the date.
    pub(super) fn new(list: Vec<Snapshot>, name_of: &dyn Fn(i64) -> String) -> Self {
        let (mut by_seq, mut ids, mut dates) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        for snapshot in list {
            let record = snapshot.record;
            let id = record.id.to_string();
            let short = id.as_bytes()[..ID_DIGITS.min(id.len())].to_vec();
            // Two ids that begin alike are both shown, one of them in full.
            let id_name = if ids.contains_key(&short) {
                id.into_bytes()
            } else {
                short
            };
            let date = name_of(record.time_ns);
            let mut date_name = date.clone().into_bytes();
            let mut count = 1;
            while dates.contains_key(&date_name) {
                count += 1;
                date_name = format!("{date}-{count}").into_bytes();
            }
            ids.insert(id_name.clone(), record.seq);
            dates.insert(date_name.clone(), record.seq);
            let shown = Shown {
                time_ns: record.time_ns,
                roots: record.source_roots.into(),
                id_name,
                date_name,
            };
            by_seq.insert(record.seq, shown);
        }
        Self { by_seq, ids, dates }
    }

    pub(super) fn get(&self, seq: u64) -> Option<&Shown> {
        self.by_seq.get(&seq)
    }
    pub(super) fn newest(&self) -> Option<u64> {
        self.by_seq.last_key_value().map(|(seq, _)| *seq)
    }
    /// When the newest was made; 1970 if there is none.
    pub(super) fn newest_time_ns(&self) -> i64 {
        self.by_seq.last_key_value().map_or(0, |(_, shown)| shown.time_ns)
    }
    pub(super) fn id_name(&self, seq: u64) -> Option<&[u8]> {
        self.get(seq).map(|shown| shown.id_name.as_slice())
    }
    pub(super) fn by_id(&self, name: &[u8]) -> Option<u64> {
        self.ids.get(name).copied()
    }
    pub(super) fn by_date(&self, name: &[u8]) -> Option<u64> {
        self.dates.get(name).copied()
    }
    pub(super) fn ids_after(&self, name: &[u8]) -> impl Iterator<Item = u64> {
        after(&self.ids, name)
    }
    pub(super) fn dates_after(&self, name: &[u8]) -> impl Iterator<Item = u64> {
        after(&self.dates, name)
    }

    /// The link from a date to its snapshot.
    pub(super) fn date_link(&self, seq: u64) -> Option<Node> {
        let shown = self.get(seq)?;
        let target = [b"../", IDS, b"/", &shown.id_name].concat();
        Some(link(Place::Date(seq), &shown.date_name, target, shown.time_ns))
    }
}

fn after(names: &BTreeMap<Vec<u8>, u64>, name: &[u8]) -> impl Iterator<Item = u64> {
    let range = (Bound::Excluded(name), Bound::Unbounded);
    names.range::<[u8], _>(range).map(|(_, seq)| *seq)
}
