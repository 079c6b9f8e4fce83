//! Byte units.

/// 2^10 bytes.
pub const KIB: usize = 1 << 10;
/// 2^20 bytes.
pub const MIB: usize = 1 << 20;
/// 2^30 bytes.
pub const GIB: u64 = 1 << 30;
