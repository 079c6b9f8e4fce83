//! The table of packs: what it takes to find and open each, by number (docs/format/disk.md §3). A tree whose pages lie in packs
//! themselves: a commit writes anew what changed and what leads to it, and its root holds the newest page of every level.
//!
//! Pages are read when they are needed. Nothing is fetched here: who asks is told what to fetch.

use std::collections::{BTreeMap, BTreeSet};

use minicbor::{Decode, Encode};
use proto::cap_index::PackRecord;

use super::{CommitError, PackNumber, Span};

/// Entries of a page. Chosen: with a record of about 500 bytes the newest pages of all levels of a large volume fit into
/// a pack of one share of 64 KiB, beside a block.
pub const PAGE_ENTRIES: u32 = 32;
/// Pages of packs in memory, about. Chosen: some 5 MiB.
const PAGES_KEPT_MAX: usize = 256;
/// Most levels: more packs than numbers.
const LEVELS_MAX: u8 = 7;
/// Longest page that is read. A record has at most 2 KiB of manifest.
pub const PAGE_BYTES_MAX: u32 = PAGE_ENTRIES * 4096;

const WHAT: &str = "The table of packs";

/// Where a page lies. It cannot name its own pack by a record, as that has a hash of the page in it.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct PageRef {
    /// Its pack; none: the pack in which this reference itself lies.
    #[n(0)]
    pub pack: Option<PackRecord>,
    /// The number of its pack.
    #[n(1)]
    pub number: PackNumber,
    /// Of its first byte, in the pack's plaintext.
    #[n(2)]
    pub offset: u32,
    /// How many bytes.
    #[n(3)]
    pub len: u32,
}

/// What a pack took when it was made: by this it is decided when its blocks are moved.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Encode, Decode)]
pub struct PackFigures {
    /// Bytes of plaintext that its shape has.
    #[n(0)]
    pub room: u32,
    /// Blocks in its slots.
    #[n(1)]
    pub blocks: u32,
    /// Bytes of its slots as they are stored.
    #[n(2)]
    pub slot_bytes: u32,
    /// The commit that made it.
    #[n(3)]
    pub commit: u64,
}

/// What a page has for a number.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
enum Entry {
    /// A pack; none: the pack in which the page itself lies.
    #[n(0)]
    Pack(#[n(0)] Option<PackRecord>, #[n(1)] PackFigures),
    /// A page of the level below.
    #[n(1)]
    Page(#[n(0)] PageRef),
}

/// Some entries of a level, by their number in the page.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode)]
struct Page {
    #[n(0)]
    entries: BTreeMap<u8, Entry>,
}

/// What a root has of the table.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct TableRoot {
    /// The number that the next pack gets.
    #[n(0)]
    next: PackNumber,
    /// The newest page of each level, from the packs up.
    #[n(1)]
    newest: Vec<Page>,
}

impl TableRoot {
    /// The number that the next pack gets.
    pub fn next(&self) -> PackNumber {
        self.next
    }
}

/// A page by its level, packs being level 0, and its number there.
type PageId = (u8, u32);

/// What a look for a pack comes to.
#[derive(Debug, PartialEq, Eq)]
pub enum Found<'a> {
    /// This is it.
    Pack(&'a PackRecord),
    /// It is the pack that is being filled.
    Own,
    /// First this page has to be read and given: `give`.
    Fetch(Wanted),
    /// There is no such pack any more.
    Gone,
}

/// A page that has to be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    id: PageId,
    /// The pack that it lies in.
    pub pack: PackRecord,
    /// Of its first byte.
    pub offset: u32,
    /// How many bytes.
    pub len: u32,
}

/// The table, as far as it was read.
#[derive(Debug, Clone)]
pub struct PackTable {
    next: PackNumber,
    /// Levels: the last one is a single page.
    levels: u8,
    pages: BTreeMap<PageId, Page>,
    /// Pages that differ from what lies in packs, but for the newest of each level, which are never written alone.
    changed: Vec<PageId>,
}

fn parent(id: PageId) -> (PageId, u8) {
    ((id.0 + 1, id.1 / PAGE_ENTRIES), (id.1 % PAGE_ENTRIES) as u8)
}

/// The page of a level that leads to a pack.
fn page_of(level: u8, pack: PackNumber) -> PageId {
    (level, (0..=level).fold(pack, |number, _| number / PAGE_ENTRIES))
}

impl Default for PackTable {
    fn default() -> Self {
        Self {
            next: 0,
            levels: 1,
            pages: BTreeMap::from([((0, 0), Page::default())]),
            changed: Vec::new(),
        }
    }
}

impl PackTable {
    /// As a root has it that was read out of the pack `own`.
    pub fn from_root(root: TableRoot, own: &PackRecord) -> Result<Self, CommitError> {
        let mut table = Self {
            next: root.next,
            levels: u8::try_from(root.newest.len()).unwrap_or(u8::MAX),
            pages: BTreeMap::new(),
            changed: Vec::new(),
        };
        let last = root.next.saturating_sub(1);
        let is_whole = (1..=LEVELS_MAX).contains(&table.levels) && page_of(table.levels - 1, last).1 == 0;
        if !is_whole {
            return Err(CommitError::malformed(WHAT, "it has too many levels, or too few"));
        }
        for (level, mut page) in (0..).zip(root.newest) {
            let id = page_of(level, last);
            page.check(id, last)?;
            page.name_own(own);
            table.pages.insert(id, page);
        }
        Ok(table)
    }

    /// The number that the next pack gets.
    pub fn next(&self) -> PackNumber {
        self.next
    }

    /// Adds a pack; none: the one that is being filled, which `name_own` names when it is sealed. None if there are no more numbers.
    pub fn push(&mut self, pack: Option<PackRecord>, figures: PackFigures) -> Option<PackNumber> {
        let number = self.next;
        self.next = number.checked_add(1)?;
        while page_of(self.levels - 1, number).1 > 0 {
            self.grow();
        }
        for level in 0..self.levels {
            let id = page_of(level, number);
            if self.pages.contains_key(&id) {
                break;
            }
            self.pages.insert(id, Page::default());
            // The one before is not the newest any more, and has to be written.
            self.changed.push((level, id.1 - 1));
        }
        let page = self.pages.entry(page_of(0, number)).or_default();
        page.entries
            .insert((number % PAGE_ENTRIES) as u8, Entry::Pack(pack, figures));
        Some(number)
    }

    /// One level more. What the page above has for the one that was alone is known when that is written.
    fn grow(&mut self) {
        self.pages.insert((self.levels, 0), Page::default());
        self.levels += 1;
    }

    /// Looks for a pack.
    pub fn find(&self, number: PackNumber) -> Found<'_> {
        if number >= self.next {
            return Found::Gone;
        }
        match self.reach(page_of(0, number)) {
            Ok(Some(page)) => match page.entries.get(&((number % PAGE_ENTRIES) as u8)) {
                Some(Entry::Pack(Some(record), _)) => Found::Pack(record),
                Some(Entry::Pack(None, _)) => Found::Own,
                Some(Entry::Page(_)) | None => Found::Gone,
            },
            Ok(None) => Found::Gone,
            Err(wanted) => Found::Fetch(wanted),
        }
    }

    /// What a pack took; none if there is no such pack. What has to be read first is an error.
    pub fn figures(&self, number: PackNumber) -> Result<Option<PackFigures>, Wanted> {
        let page = match number < self.next {
            true => self.reach(page_of(0, number))?,
            false => None,
        };
        match page.and_then(|page| page.entries.get(&((number % PAGE_ENTRIES) as u8))) {
            Some(Entry::Pack(_, figures)) => Ok(Some(*figures)),
            _ => Ok(None),
        }
    }

    /// Says what shape the pack that is being filled gets: the newest page says it, and lies in the root alone.
    pub fn set_own_room(&mut self, room: u32) {
        let last = self.next.saturating_sub(1);
        let page = self.pages.get_mut(&page_of(0, last));
        let entry = page.and_then(|page| page.entries.get_mut(&((last % PAGE_ENTRIES) as u8)));
        if let Some(Entry::Pack(None, figures)) = entry {
            figures.room = room;
        }
    }

    /// A page; none: there is none; an error: what has to be read first.
    fn reach(&self, id: PageId) -> Result<Option<&Page>, Wanted> {
        if let Some(page) = self.pages.get(&id) {
            return Ok(Some(page));
        }
        let (above, place) = parent(id);
        if above.0 >= self.levels {
            return Ok(None);
        }
        match self.reach(above)?.and_then(|page| page.entries.get(&place)) {
            Some(Entry::Page(PageRef {
                pack: Some(pack),
                offset,
                len,
                ..
            })) => Err(Wanted {
                id,
                pack: pack.clone(),
                offset: *offset,
                len: *len,
            }),
            // A page of the pack that is being filled was written from memory, where it stays until that is sealed.
            _ => Ok(None),
        }
    }

    /// Takes in a page that was wanted.
    pub fn give(&mut self, wanted: &Wanted, bytes: &[u8]) -> Result<(), CommitError> {
        let mut page: Page = minicbor::decode(bytes).map_err(|error| CommitError::malformed(WHAT, error))?;
        page.check(wanted.id, self.next.saturating_sub(1))?;
        page.name_own(&wanted.pack);
        self.forget_one();
        self.pages.entry(wanted.id).or_insert(page);
        Ok(())
    }

    /// Makes room for a page of packs if there are many: another one can be read again.
    fn forget_one(&mut self) {
        let of_packs = self.pages.range(..(1, 0));
        if of_packs.clone().count() < PAGES_KEPT_MAX {
            return;
        }
        let mut ids = of_packs.map(|(id, _)| *id);
        let forgotten = ids.find(|id| !self.is_newest(*id) && !self.changed.contains(id));
        if let Some(id) = forgotten {
            self.pages.remove(&id);
        }
    }

    /// References to pages that are in pages which were read, each with the page that it leads to.
    fn references(&self) -> impl Iterator<Item = (PageId, &PageRef)> {
        self.pages.range((1, 0)..).flat_map(|(id, page)| {
            page.entries.iter().filter_map(move |(place, entry)| match entry {
                Entry::Page(reference) => Some(((id.0 - 1, id.1 * PAGE_ENTRIES + u32::from(*place)), reference)),
                Entry::Pack(..) => None,
            })
        })
    }

    fn unread(&self) -> impl Iterator<Item = Wanted> {
        let unread = self.references().filter(|(id, _)| !self.pages.contains_key(id));
        unread.filter_map(|(id, reference)| {
            Some(Wanted {
                id,
                pack: reference.pack.clone()?,
                offset: reference.offset,
                len: reference.len,
            })
        })
    }

    /// A page that leads to other pages and has to be read before `page_spans` and `pages_of_packs` have all; they stay.
    pub fn missing(&self) -> Option<Wanted> {
        self.unread().find(|wanted| wanted.id.0 > 0)
    }

    /// Where all pages lie that the root does not have.
    pub fn page_spans(&self) -> impl Iterator<Item = Span> {
        self.references().map(|(_, reference)| Span {
            pack: reference.number,
            offset: reference.offset,
            len: reference.len,
        })
    }

    /// The pages of packs that were not read, in order.
    pub fn pages_of_packs(&self) -> Vec<Wanted> {
        self.unread().filter(|wanted| wanted.id.0 == 0).collect()
    }

    /// What all packs took that are on pages which were read.
    pub fn known_figures(&self) -> Vec<(PackNumber, PackFigures)> {
        let of_packs = self.pages.range(..(1, 0));
        of_packs.flat_map(|(id, page)| page.figures(*id)).collect()
    }

    /// What packs took that a page of packs has, which is not kept.
    pub fn figures_of(&self, wanted: &Wanted, bytes: &[u8]) -> Result<Vec<(PackNumber, PackFigures)>, CommitError> {
        let page: Page = minicbor::decode(bytes).map_err(|error| CommitError::malformed(WHAT, error))?;
        page.check(wanted.id, self.next.saturating_sub(1))?;
        Ok(page.figures(wanted.id))
    }

    /// Has pages that lie in these packs written anew. What has to be read first is an error.
    pub fn rewrite(&mut self, victims: &BTreeSet<PackNumber>) -> Result<(), Wanted> {
        let lie_there = self
            .references()
            .filter(|(_, reference)| victims.contains(&reference.number));
        let lie_there: Vec<PageId> = lie_there.map(|(id, _)| id).collect();
        for id in lie_there {
            self.reach(id)?;
            self.changed.push(id);
        }
        Ok(())
    }

    /// Takes a pack out that nothing refers to any more. What has to be read first is an error.
    pub fn remove(&mut self, number: PackNumber) -> Result<(), Wanted> {
        let id = page_of(0, number);
        if number >= self.next || self.reach(id)?.is_none() {
            return Ok(());
        }
        let page = self.pages.entry(id).or_default();
        if page.entries.remove(&((number % PAGE_ENTRIES) as u8)).is_some() {
            self.changed.push(id);
        }
        Ok(())
    }

    fn is_newest(&self, id: PageId) -> bool {
        id == page_of(id.0, self.next.saturating_sub(1))
    }

    /// Writes what changed into the pack that is being filled, pages below before those that lead to them. `put` says where the
    /// bytes lie there. What `push` and `remove` do after this is written by the next call.
    pub fn write(&mut self, put: &mut dyn FnMut(Vec<u8>) -> Span) {
        let mut changed: BTreeSet<PageId> = std::mem::take(&mut self.changed).into_iter().collect();
        while let Some(id) = changed.pop_first() {
            if self.is_newest(id) {
                continue;
            }
            let Some(page) = self.pages.get(&id) else { continue };
            let entry = (!page.entries.is_empty()).then(|| {
                let span = put(proto::record::to_cbor(page));
                Entry::Page(PageRef {
                    pack: None,
                    number: span.pack,
                    offset: span.offset,
                    len: span.len,
                })
            });
            let (above, place) = parent(id);
            let entries = &mut self.pages.entry(above).or_default().entries;
            match entry {
                Some(entry) => entries.insert(place, entry),
                None => entries.remove(&place),
            };
            changed.insert(above);
        }
    }

    /// What goes into the root, once all is written.
    pub fn root(&self) -> TableRoot {
        let last = self.next.saturating_sub(1);
        let newest = (0..self.levels).map(|level| self.pages.get(&page_of(level, last)).cloned().unwrap_or_default());
        TableRoot {
            next: self.next,
            newest: newest.collect(),
        }
    }

    /// The pack that was being filled is sealed: this is its record. Pages of packs that can be read again are forgotten.
    pub fn name_own(&mut self, own: &PackRecord) {
        self.pages.values_mut().for_each(|page| page.name_own(own));
        let stays = |id: &PageId| id.0 > 0 || self.is_newest(*id);
        let keep: Vec<PageId> = self.pages.keys().copied().filter(stays).collect();
        let is_unwritten = |id: &PageId| self.changed.contains(id);
        // What an unwritten page will be written into has to stay as well.
        let mut kept: BTreeSet<PageId> = keep.into_iter().collect();
        for id in self.pages.keys().copied().filter(is_unwritten) {
            let mut id = id;
            while id.0 < self.levels && kept.insert(id) {
                id = parent(id).0;
            }
        }
        self.pages.retain(|id, _| kept.contains(id));
    }
}

impl Page {
    fn figures(&self, id: PageId) -> Vec<(PackNumber, PackFigures)> {
        let packs = self.entries.iter().filter_map(|(place, entry)| match entry {
            Entry::Pack(_, figures) => Some((id.1 * PAGE_ENTRIES + u32::from(*place), *figures)),
            Entry::Page(_) => None,
        });
        packs.collect()
    }

    fn name_own(&mut self, own: &PackRecord) {
        for entry in self.entries.values_mut() {
            let (Entry::Pack(pack, _) | Entry::Page(PageRef { pack, .. })) = entry;
            pack.get_or_insert_with(|| own.clone());
        }
    }

    fn check(&self, id: PageId, last: PackNumber) -> Result<(), CommitError> {
        let is_valid = |(place, entry): (&u8, &Entry)| {
            let number = u64::from(id.1) * u64::from(PAGE_ENTRIES) + u64::from(*place);
            let newest = match id.0 {
                0 => last,
                level => page_of(level - 1, last).1,
            };
            let is_of_level = match entry {
                Entry::Pack(..) => id.0 == 0,
                Entry::Page(page) => id.0 > 0 && page.len <= PAGE_BYTES_MAX,
            };
            u32::from(*place) < PAGE_ENTRIES && number <= u64::from(newest) && is_of_level
        };
        match self.entries.iter().all(is_valid) {
            true => Ok(()),
            false => Err(CommitError::malformed(WHAT, "a page has an entry that it cannot have")),
        }
    }
}
