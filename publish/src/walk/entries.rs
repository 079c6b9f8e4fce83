//! The entries of one folder, sorted as their keys are: eight bytes each beside their names, because folders have millions.
//!
//! Leaves out: where they come from, and what they are (`walk`).

/// The page that stands for a folder.
pub(super) const PAGE: &[u8] = b"index.html";

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    File,
    Folder,
    /// The page that is made for a folder without one.
    Page,
    Broken(Why),
}

/// Why an entry cannot be published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    Strange,
    Unseen,
    Dangling,
    Outside,
    Double,
}

impl Why {
    /// For people.
    pub fn text(self) -> &'static str {
        match self {
            Self::Strange => "it is neither a file nor a folder",
            Self::Unseen => "it cannot be looked at",
            Self::Dangling => "a link to nothing",
            Self::Outside => "a link to the outside of the folder (--links follow publishes what it leads to)",
            Self::Double => "another name has the same key",
        }
    }
}

/// An entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry<'a> {
    /// Part of the key, with `/` for folders.
    pub part: &'a [u8],
    /// The name on disk, where it is not the same.
    other_name: Option<&'a [u8]>,
    pub kind: Kind,
}

impl<'a> Entry<'a> {
    /// The name on disk.
    pub fn name(&self) -> &'a [u8] {
        self.other_name.unwrap_or(self.text())
    }

    /// The part of the key without `/`.
    pub fn text(&self) -> &'a [u8] {
        self.part.strip_suffix(b"/").unwrap_or(self.part)
    }
}

/// Where an entry's part begins; its other name, if it has one, follows.
#[derive(Clone, Copy, Debug)]
struct Slot {
    start: u32,
    part_bytes: u16,
    other_bytes: u8,
    kind: Kind,
}

/// The entries of a folder, and which is next.
#[derive(Debug, Default)]
pub(super) struct Entries {
    names: Vec<u8>,
    slots: Vec<Slot>,
    next: usize,
}

/// Names are UTF-8 in keys: S3 takes no others. What is not UTF-8 is read as Latin-1, as old names mostly are.
pub(super) fn key_part(name: &[u8]) -> Option<Vec<u8>> {
    let latin = || name.iter().map(|&byte| char::from(byte)).collect::<String>();
    std::str::from_utf8(name).is_err().then(|| latin().into_bytes())
}

impl Entries {
    /// Adds one; false if there is no more room: 4 GiB of names.
    pub fn push(&mut self, name: &[u8], kind: Kind) -> bool {
        let Ok(start) = u32::try_from(self.names.len()) else {
            return false;
        };
        let part = key_part(name);
        self.names.extend_from_slice(part.as_deref().unwrap_or(name));
        if kind == Kind::Folder {
            self.names.push(b'/');
        }
        let part_bytes = self.names.len() - start as usize;
        let other_bytes = if part.is_some() { name.len() } else { 0 };
        self.names.extend_from_slice(&name[..other_bytes]);
        let (Ok(part_bytes), Ok(other_bytes)) = (part_bytes.try_into(), other_bytes.try_into()) else {
            return false;
        };
        self.slots.push(Slot {
            start,
            part_bytes,
            other_bytes,
            kind,
        });
        true
    }

    /// Sorts them by part. Names that are the same key, one as it is and one as Latin-1: the first is the one that is UTF-8.
    pub fn sort(&mut self) {
        let Self { names, slots, .. } = self;
        let order = |slot: &Slot| {
            let entry = entry(names, *slot);
            (entry.part, entry.other_name)
        };
        slots.sort_unstable_by(|left, right| order(left).cmp(&order(right)));
        for index in 1..slots.len() {
            if entry(names, slots[index - 1]).part == entry(names, slots[index]).part {
                slots[index].kind = Kind::Broken(Why::Double);
            }
        }
        self.names.shrink_to_fit();
        self.slots.shrink_to_fit();
    }

    pub fn iter(&self) -> impl Iterator<Item = Entry<'_>> {
        self.slots.iter().map(|&slot| entry(&self.names, slot))
    }

    /// Goes on to the next.
    pub fn advance(&mut self) -> Option<usize> {
        let index = self.next;
        (index < self.slots.len()).then(|| {
            self.next += 1;
            index
        })
    }

    /// One that was advanced to.
    pub fn get(&self, index: usize) -> Entry<'_> {
        entry(&self.names, self.slots[index])
    }
}

fn entry(names: &[u8], slot: Slot) -> Entry<'_> {
    let rest = &names[slot.start as usize..];
    let (part, rest) = rest.split_at(slot.part_bytes.into());
    Entry {
        part,
        other_name: (slot.other_bytes > 0).then(|| &rest[..slot.other_bytes.into()]),
        kind: slot.kind,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_takes_eight_bytes_beside_its_name() {
        assert_eq!(size_of::<Slot>(), 8);
    }

    #[test]
    fn longest_names_of_any_bytes_come_back() {
        let mut entries = Entries::default();
        let (latin, folder) = ([0xff; 255], [b'x'; 255]);
        assert!(
            entries.push(&latin, Kind::Folder) && entries.push(&folder, Kind::Folder) && entries.push(b"a", Kind::File)
        );
        entries.sort();
        let names: Vec<_> = entries.iter().map(|entry| entry.name().to_vec()).collect();
        assert_eq!(names, [b"a".to_vec(), folder.to_vec(), latin.to_vec()]);
        let last = entries.get(2);
        assert_eq!((last.part.len(), last.text()), (511, "ÿ".repeat(255).as_bytes()));
        assert_eq!(
            (
                entries.advance(),
                entries.advance(),
                entries.advance(),
                entries.advance()
            ),
            (Some(0), Some(1), Some(2), None)
        );
    }
}
