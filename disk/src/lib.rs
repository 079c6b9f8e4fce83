//! A virtual disk whose blocks live on the grid: a local journal that every write goes to first, a map of where each block lies,
//! and the device that faces serve. It names no peers, and packs by number alone: who seals them and sends them is behind
//! `commit::compose::PackSink`, where they are read from behind `commit::opening::PackReader`.

pub mod backing;
pub mod claim;
pub mod collect;
pub mod commit;
pub mod committed;
pub mod device;
pub mod extents;
pub mod journal;
pub mod map;
pub mod nbd;
pub mod running;
#[doc(hidden)]
pub mod testing;
pub mod volume;

pub use device::{Change, Device, DeviceError, Extent, ExtentKind};
