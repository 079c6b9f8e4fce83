//! A virtual disk whose blocks live on the grid: a local journal that every write goes to first, a map of where each block lies,
//! and the device that faces serve. It names no peers and no packs: what becomes of the journal's blocks is behind `Backing`.

pub mod backing;
pub mod claim;
pub mod device;
pub mod journal;
pub mod map;
pub mod nbd;
#[doc(hidden)]
pub mod testing;
pub mod volume;

pub use device::{Change, Device, DeviceError, Extent, ExtentKind};
