//! Filling packs: chunks end to end in the order in which they come, a full pack goes on to be sealed.
//!
//! What is left at the end of a run goes into packs of small shares when that wastes less.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crossbeam_channel::Sender;
use proto::cap_index::{ChunkSlot, LIST_MAX};
use proto::id::ChunkId;
use proto::shape::ShareSize;
use proto::shape::{PackShape, SEGMENT_PLAIN_BYTES};

use super::budget::{Budget, Permit};
use super::in_flight::{InFlight, PackNumber};
use super::metadata::Section;

/// A pack's plaintext, ready to be sealed.
pub struct FullPack {
    /// The filling it is a part of.
    pub number: PackNumber,
    /// Its shape.
    pub shape: PackShape,
    /// Chunks end to end.
    pub plain: Vec<u8>,
    /// Where each is.
    pub slots: Vec<ChunkSlot>,
    /// The memory that it and its sealed form take; shared by the parts of a filling.
    pub permit: Arc<Permit>,
}

impl FullPack {
    /// Appends a chunk; false, and nothing done, if it does not fit any more.
    fn push(&mut self, id: ChunkId, stored: &[u8], raw_len: u32) -> bool {
        let offset = place(self.shape, self.plain.len(), stored.len());
        if offset + stored.len() > self.shape.plain_bytes() || self.slots.len() == LIST_MAX {
            return false;
        }
        self.plain.resize(offset, 0);
        self.plain.extend_from_slice(stored);
        self.slots.push(ChunkSlot {
            id,
            offset: offset as u32,
            stored_len: stored.len() as u32,
            raw_len,
        });
        true
    }
}

/// Where a chunk goes behind `end` bytes of plaintext. A short one never across the end of a share: it is to be had from one peer.
fn place(shape: PackShape, end: usize, len: usize) -> usize {
    let share_plain = shape.segments_per_share() as usize * SEGMENT_PLAIN_BYTES;
    let left = share_plain - end % share_plain;
    if len > left && len <= SEGMENT_PLAIN_BYTES {
        end + left
    } else {
        end
    }
}

/// What goes to the sealers.
pub enum Parcel {
    /// Chunks of files.
    Data(FullPack),
    /// Index sections with very small contents.
    Inline(Vec<Section>),
    /// Nothing more: one for each sealer.
    End,
}

/// The sealers are gone: one of them failed.
#[derive(Debug)]
pub struct Closed;

/// The packer; all preparers share it.
pub struct Packer {
    state: Mutex<State>,
    in_flight: Arc<InFlight>,
    budget: Budget,
    code: Code,
    out: Sender<Parcel>,
}

/// Tells the code (k, n) that a pack opened now should have.
pub type Code = Box<dyn Fn() -> (u8, u8) + Send + Sync>;

#[derive(Default)]
struct State {
    packs_opened: u64,
    open: Option<FullPack>,
}

impl Packer {
    /// A packer for packs of `code()` out of `budget`, sending to `out`.
    pub fn new(in_flight: Arc<InFlight>, budget: Budget, code: Code, out: Sender<Parcel>) -> Self {
        Self {
            state: Mutex::default(),
            in_flight,
            budget,
            code,
            out,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a chunk into the open pack, unless another thread did so meanwhile; returns the pack that has it.
    pub fn append(&self, id: ChunkId, stored: &[u8], raw_len: u32) -> Result<PackNumber, Closed> {
        let mut state = self.state();
        if let Some(number) = self.in_flight.chunk(id) {
            return Ok(number);
        }
        if let Some(pack) = state.open.as_mut()
            && pack.push(id, stored, raw_len)
        {
            self.in_flight.add_chunk(id, pack.number);
            return Ok(pack.number);
        }
        if let Some(full) = state.open.take() {
            self.out.send(Parcel::Data(full)).map_err(|_| Closed)?;
        }
        state.packs_opened += 1;
        let opened = self.open(PackNumber(state.packs_opened));
        let pack = state.open.insert(opened);
        assert!(pack.push(id, stored, raw_len), "a chunk is shorter than any large pack");
        self.in_flight.add_chunk(id, pack.number);
        Ok(pack.number)
    }

    fn open(&self, number: PackNumber) -> FullPack {
        let (k, n) = (self.code)();
        let shape = PackShape {
            k,
            n,
            share: ShareSize::Large,
        };
        let permit = self.budget.acquire(pack_memory_bytes(k, n)).into();
        self.in_flight.open(number);
        FullPack {
            number,
            shape,
            plain: Vec::with_capacity(shape.plain_bytes()),
            slots: Vec::new(),
            permit,
        }
    }

    /// Sends out what is left.
    pub fn finish(&self) -> Result<(), Closed> {
        let Some(pack) = self.state().open.take() else {
            return Ok(());
        };
        let number = pack.number;
        let parts = split(pack);
        self.in_flight.split(number, parts.len());
        for part in parts {
            self.out.send(Parcel::Data(part)).map_err(|_| Closed)?;
        }
        Ok(())
    }
}

/// Memory that a large pack takes from the first chunk to its delivery: plaintext, and all of its shares.
pub fn pack_memory_bytes(k: u8, n: u8) -> usize {
    usize::from(k + n) * ShareSize::Large.stored_bytes()
}

/// So many packs of small shares take half of the bytes of one of large shares.
const SMALL_PACKS_MAX: usize = ShareSize::Large.data_bytes() / ShareSize::Small.data_bytes() / 2;

/// Bytes of all shares of the packs that chunks of these lengths go into, in this order.
pub fn shares_bytes((k, n): (u8, u8), lens: impl Iterator<Item = u32>) -> u64 {
    let shape = |share| PackShape { k, n, share };
    let bytes = |share: ShareSize, packs: usize| packs as u64 * u64::from(n) * share.stored_bytes() as u64;
    let lens: Vec<usize> = lens.map(|len| len as usize).collect();
    let Some((large, last)) = fill(shape(ShareSize::Large), &lens) else {
        return 0;
    };
    match fill(shape(ShareSize::Small), &lens[last..]) {
        Some((small, _)) if small <= SMALL_PACKS_MAX => {
            bytes(ShareSize::Large, large - 1) + bytes(ShareSize::Small, small)
        }
        _ => bytes(ShareSize::Large, large),
    }
}

/// How many packs of a shape chunks of these lengths fill, and which chunk is the first of the last; none for no chunks, or for one
/// that does not fit at all.
fn fill(shape: PackShape, lens: &[usize]) -> Option<(usize, usize)> {
    let (mut packs, mut first, mut end) = (0, 0, usize::MAX);
    for (number, &len) in lens.iter().enumerate() {
        let fits = |offset: usize| offset.saturating_add(len) <= shape.plain_bytes();
        let offset = if packs == 0 { usize::MAX } else { place(shape, end, len) };
        if packs > 0 && fits(offset) && number - first < LIST_MAX {
            end = offset + len;
        } else if fits(0) {
            (packs, first, end) = (packs + 1, number, len);
        } else {
            return None;
        }
    }
    (packs > 0).then_some((packs, first))
}

/// The last pack as packs of small shares, if all of its chunks fit and that takes at most half of the bytes.
fn split(pack: FullPack) -> Vec<FullPack> {
    let shape = PackShape {
        share: ShareSize::Small,
        ..pack.shape
    };
    let mut parts: Vec<FullPack> = Vec::new();
    for slot in &pack.slots {
        let stored = &pack.plain[slot.offset as usize..][..slot.stored_len as usize];
        let mut push = |part: &mut FullPack| part.push(slot.id, stored, slot.raw_len);
        if parts.last_mut().is_some_and(&mut push) {
            continue;
        }
        let mut part = FullPack {
            number: pack.number,
            shape,
            plain: Vec::new(),
            slots: Vec::new(),
            permit: pack.permit.clone(),
        };
        if parts.len() == SMALL_PACKS_MAX || !push(&mut part) {
            return vec![pack];
        }
        parts.push(part);
    }
    parts
}

#[cfg(test)]
mod tests {
    use proto::size::{KIB, MIB};

    use super::*;

    fn packer(out: Sender<Parcel>) -> Packer {
        Packer::new(Arc::default(), Budget::new(1 << 40), Box::new(|| (2, 3)), out)
    }

    fn id(number: u32) -> ChunkId {
        ChunkId(u128::from(number).to_le_bytes())
    }

    /// Appends chunks of these lengths and returns what goes to the sealers.
    fn pack(lens: &[usize]) -> Vec<FullPack> {
        let (out, packs) = crossbeam_channel::unbounded();
        let packer = packer(out);
        for (number, len) in lens.iter().enumerate() {
            packer
                .append(id(number as u32), &vec![number as u8; *len], *len as u32)
                .unwrap();
        }
        packer.finish().unwrap();
        packs
            .try_iter()
            .map(|parcel| match parcel {
                Parcel::Data(pack) => pack,
                Parcel::Inline(_) | Parcel::End => panic!("only chunks were given"),
            })
            .collect()
    }

    fn check(packs: &[FullPack]) {
        for pack in packs {
            assert!(pack.plain.len() <= pack.shape.plain_bytes());
            for slot in &pack.slots {
                let stored = &pack.plain[slot.offset as usize..][..slot.stored_len as usize];
                assert!(stored.iter().all(|byte| *byte == slot.id.0[0]));
            }
        }
    }

    #[test]
    fn a_full_pack_is_sent_and_a_large_rest_stays_large() {
        let packs = pack(&[3 * MIB; 5]);
        check(&packs);
        let shapes: Vec<_> = packs.iter().map(|pack| (pack.shape.share, pack.slots.len())).collect();
        assert_eq!(
            shapes,
            [(ShareSize::Large, 2), (ShareSize::Large, 2), (ShareSize::Large, 1)]
        );
    }

    #[test]
    fn a_little_rest_goes_into_small_packs() {
        let packs = pack(&[300 * KIB; 3]);
        check(&packs);
        assert!(
            packs
                .iter()
                .all(|pack| pack.shape.share == ShareSize::Small && pack.number == PackNumber(1))
        );
        assert_eq!(packs.len(), 3);
    }

    #[test]
    fn a_rest_with_a_chunk_too_long_for_a_small_pack_is_one_large_pack() {
        let packs = pack(&[100 * KIB, 600 * KIB]);
        check(&packs);
        assert_eq!(packs.len(), 1);
        assert_eq!(packs[0].shape.share, ShareSize::Large);
    }

    #[test]
    fn a_chunk_on_its_way_is_not_stored_again() {
        let (out, packs) = crossbeam_channel::unbounded();
        let packer = packer(out);
        let first = packer.append(id(1), b"chunk", 5).unwrap();
        assert_eq!(packer.append(id(1), b"chunk", 5).unwrap(), first);
        packer.finish().unwrap();
        let Ok(Parcel::Data(pack)) = packs.recv() else {
            panic!("a pack was finished")
        };
        assert_eq!(pack.slots.len(), 1);
    }

    #[test]
    fn a_short_chunk_lies_in_one_share() {
        for lens in [
            vec![20_000; 30],
            vec![50_000; 400],
            vec![3 * MIB, 60_000, 60_000, 2 * MIB],
        ] {
            let packs = pack(&lens);
            check(&packs);
            let chunks: usize = packs.iter().map(|pack| pack.slots.len()).sum();
            assert_eq!(chunks, lens.len());
            for pack in packs {
                let share = pack.shape.segments_per_share() * SEGMENT_PLAIN_BYTES as u32;
                for slot in pack.slots.iter().filter(|slot| slot.stored_len < 64_000) {
                    assert_eq!(
                        slot.offset / share,
                        (slot.offset + slot.stored_len - 1) / share,
                        "{slot:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn chunks_take_the_bytes_that_are_foretold() {
        let odd = [300 * KIB, 20_000, 50_000, 500 * KIB, 60_000, 60_000];
        for lens in [
            &[][..],
            &[100 * KIB; 12],
            &[400 * KIB; 5],
            &[3 * MIB; 2],
            &[MIB; 20],
            &[600 * KIB; 5],
            &odd,
        ] {
            let taken: usize = pack(lens)
                .iter()
                .map(|pack| usize::from(pack.shape.n) * pack.shape.share.stored_bytes())
                .sum();
            let foretold = shares_bytes((2, 3), lens.iter().map(|len| *len as u32));
            assert_eq!(foretold, taken as u64, "{lens:?}");
        }
    }

    #[test]
    fn nothing_left_sends_nothing() {
        assert!(pack(&[]).is_empty());
    }
}
