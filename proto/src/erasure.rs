//! k-of-n over GF(2^8) with the systematic matrix of `reed-solomon-erasure`, frozen (docs/format/erasure.md).

/// Most shares a pack may have.
pub const SHARES_MAX: u8 = 32;

/// Shares that cannot be made or rebuilt.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
pub enum ErasureError {
    /// k of n outside of 1 ≤ k ≤ n ≤ `SHARES_MAX`.
    #[error("{k} of {n} is not a valid code")]
    Shape {
        /// Shares needed.
        k: u8,
        /// Shares made.
        n: u8,
    },
    /// Fewer than k different shares, or shares of unequal length.
    #[error("{have} usable shares, {k} are needed")]
    TooFew {
        /// Different usable shares given.
        have: usize,
        /// Shares needed.
        k: u8,
    },
}

/// The n−k parity shares of `data`, which is k data shares end to end.
pub fn parity(_k: u8, _n: u8, _data: &[u8]) -> Result<Vec<Vec<u8>>, ErasureError> {
    todo!()
}

/// Rebuilds share `want` (data or parity) from at least k different `(index, bytes)` of equal length. Works on any equal
/// range of the shares, since the code is bytewise.
pub fn rebuild(_k: u8, _n: u8, _have: &[(u8, &[u8])], _want: u8) -> Result<Vec<u8>, ErasureError> {
    todo!()
}
