//! Operations at random against a model, from a fixed seed.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use anyhow::{Result, ensure};
use disk::testing::MemoryDevice;
use disk::{Device, ExtentKind};
use rustix::fs::{FallocateFlags, OFlags, SeekFrom, fallocate, seek};
use rustix::io::Errno;

use crate::mounted::{KIB, MIB, Mounted, missing, volume};
use crate::needs;

/// Operations on a device in memory, and on a volume, whose journal they must fit in.
const OPERATIONS: u32 = 22_000;
const OPERATIONS_ON_VOLUME: u32 = 6_000;
const SEED: u64 = 15;

/// Numbers that follow from a seed (SplitMix64).
struct Draw(u64);

impl Draw {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % end
    }

    /// A range of bytes, half of them of whole blocks.
    fn range(&mut self, size: u64, length_max: u64) -> (u64, u64) {
        let length = 1 + self.below(length_max);
        let offset = self.below(size - length + 1);
        match self.below(2) {
            0 => (offset, length),
            _ => {
                let offset = offset / (4 * KIB) * (4 * KIB);
                (offset, length.next_multiple_of(4 * KIB).min(size - offset))
            }
        }
    }
}

/// The mounted file, and what must be in it.
struct Pair<'a> {
    file: &'a File,
    synced: &'a File,
    device: &'a dyn Device,
    model: Vec<u8>,
}

impl Pair<'_> {
    fn step(&mut self, draw: &mut Draw, length_max: u64) -> Result<()> {
        let size = self.model.len() as u64;
        let (offset, length) = draw.range(size, length_max);
        let within = offset as usize..(offset + length) as usize;
        match draw.below(100) {
            kind @ 0..40 => {
                let first = draw.below(256);
                let data: Vec<u8> = (0..length).map(|at| (first + at / 3) as u8).collect();
                let file = if kind == 0 { self.synced } else { self.file };
                file.write_all_at(&data, offset)?;
                self.model[within].copy_from_slice(&data);
            }
            40..80 => {
                let mut read = vec![1; length as usize];
                self.file.read_exact_at(&mut read, offset)?;
                ensure!(read == self.model[within], "{length} bytes at {offset}");
            }
            kind @ 80..90 => {
                let mode = match kind {
                    80..86 => FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE,
                    86 => FallocateFlags::ZERO_RANGE | FallocateFlags::KEEP_SIZE,
                    _ => FallocateFlags::ZERO_RANGE,
                };
                fallocate(self.file, mode, offset, length)?;
                self.model[within].fill(0);
            }
            90..97 => self.look_for_holes(offset)?,
            97 => self.file.sync_data()?,
            _ => self.file.sync_all()?,
        }
        Ok(())
    }

    /// lseek tells what the device tells, and what it calls a hole reads as zeros.
    fn look_for_holes(&self, offset: u64) -> Result<()> {
        let size = self.model.len() as u64;
        let data = match seek(self.file, SeekFrom::Data(offset)) {
            Err(Errno::NXIO) => size,
            found => found?,
        };
        let hole = seek(self.file, SeekFrom::Hole(offset))?;
        let extents = self.device.extents(offset, size - offset)?;
        let first = |kind| {
            let before = extents.iter().take_while(|extent| extent.kind != kind);
            offset + before.map(|extent| extent.length).sum::<u64>()
        };
        ensure!(data == first(ExtentKind::Data), "data from {offset} on: {data}");
        ensure!(hole == first(ExtentKind::Zero), "a hole from {offset} on: {hole}");
        let zeros = &self.model[offset as usize..data as usize];
        ensure!(
            zeros.iter().all(|byte| *byte == 0),
            "the hole from {offset} to {data} is none"
        );
        Ok(())
    }
}

fn run(mounted: &Mounted, device: &dyn Device, operations: u32, length_max: u64) -> Result<()> {
    let (file, synced) = (mounted.open()?, mounted.open_with(OFlags::DSYNC)?);
    let model = vec![0; device.size() as usize];
    let mut pair = Pair {
        file: &file,
        synced: &synced,
        device,
        model,
    };
    let mut draw = Draw(SEED);
    for number in 0..operations {
        let done = pair.step(&mut draw, length_max);
        done.map_err(|error| error.context(format!("operation {number} of seed {SEED}")))?;
    }
    ensure!(std::fs::read(mounted.path())? == pair.model);
    Ok(())
}

#[test]
fn a_mounted_device_does_what_a_model_does() -> Result<()> {
    needs!(missing());
    // No multiple of a block, so that the last one is short.
    let device = Arc::new(MemoryDevice::new(3 * MIB + 1234));
    let mounted = Mounted::new(device.clone())?;
    run(&mounted, &*device, OPERATIONS, 300 * KIB)?;
    mounted.end()
}

#[test]
fn a_mounted_volume_does_what_a_model_does_and_has_it_when_opened_again() -> Result<()> {
    needs!(missing());
    let folder = tempfile::tempdir()?;
    let device = volume(folder.path(), 2 * MIB, 128 * MIB)?;
    let mounted = Mounted::new(device.clone())?;
    run(&mounted, &*device, OPERATIONS_ON_VOLUME, 16 * KIB)?;
    let written = std::fs::read(mounted.path())?;
    mounted.end()?;
    drop(device);
    let mounted = Mounted::new(volume(folder.path(), 2 * MIB, 128 * MIB)?)?;
    ensure!(std::fs::read(mounted.path())? == written);
    mounted.end()
}
