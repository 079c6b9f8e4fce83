//! k-of-n over GF(2^8) with the systematic matrix of `reed-solomon-erasure`, frozen (docs/format/erasure.md).

use rusty_erasure::compat::reed_solomon_erasure_matrix;
use rusty_erasure::{Coder, coder};

/// Most shares a pack may have: their ids fit in the area for the manifest in every share (`shape::MANIFEST_AREA_BYTES`).
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
    /// A share number that the code does not have.
    #[error("There is no share {index} of {n}")]
    Index {
        /// The number, from 0.
        index: u8,
        /// Shares made.
        n: u8,
    },
    /// Fewer than k different shares of the pack.
    #[error("{have} usable shares, {k} are needed")]
    TooFew {
        /// Different usable shares given.
        have: usize,
        /// Shares needed.
        k: u8,
    },
    /// Shares, or ranges of them, that differ in length; or bytes that are not k shares of one length.
    #[error("The shares given differ in length")]
    Unequal,
}

/// The n−k parity shares of `data`, which is k data shares end to end.
pub fn parity(k: u8, n: u8, data: &[u8]) -> Result<Vec<Vec<u8>>, ErasureError> {
    check_shape(k, n)?;
    if !data.len().is_multiple_of(usize::from(k)) {
        return Err(ErasureError::Unequal);
    }
    let share_bytes = data.len() / usize::from(k);
    let mut parity = vec![vec![0; share_bytes]; usize::from(n - k)];
    if share_bytes > 0 && n > k {
        let data: Vec<&[u8]> = data.chunks_exact(share_bytes).collect();
        let mut out: Vec<&mut [u8]> = parity.iter_mut().map(Vec::as_mut_slice).collect();
        engine(k, n)
            .encode(&data, &mut out)
            .expect("k and n−k slices of one length");
    }
    Ok(parity)
}

/// Rebuilds share `want` (data or parity) from at least k different `(index, bytes)` of equal length. Works on any equal
/// range of the shares, since the code is bytewise.
pub fn rebuild(k: u8, n: u8, have: &[(u8, &[u8])], want: u8) -> Result<Vec<u8>, ErasureError> {
    check_shape(k, n)?;
    if want >= n {
        return Err(ErasureError::Index { index: want, n });
    }
    let mut shares: Vec<Option<&[u8]>> = vec![None; usize::from(n)];
    for (index, bytes) in have {
        let share = shares
            .get_mut(usize::from(*index))
            .ok_or(ErasureError::Index { index: *index, n })?;
        *share = Some(bytes);
    }
    let mut lengths = shares.iter().flatten().map(|share| share.len());
    let count = lengths.clone().count();
    if count < usize::from(k) {
        return Err(ErasureError::TooFew { have: count, k });
    }
    let share_bytes = lengths.next().expect("k is at least 1");
    if lengths.any(|other| other != share_bytes) {
        return Err(ErasureError::Unequal);
    }
    if let Some(share) = shares[usize::from(want)] {
        return Ok(share.to_vec());
    }
    let mut out = vec![0; share_bytes];
    engine(k, n)
        .recover(&shares, &[usize::from(want)], &mut [&mut out])
        .expect("k shares of one length; any k rows of the matrix are independent");
    Ok(out)
}

fn check_shape(k: u8, n: u8) -> Result<(), ErasureError> {
    match 1 <= k && k <= n && n <= SHARES_MAX {
        true => Ok(()),
        false => Err(ErasureError::Shape { k, n }),
    }
}

/// The fastest engine that this machine has, with the matrix of docs/format/erasure.md §2. Only for n > k: without parity
/// there is nothing to compute.
fn engine(k: u8, n: u8) -> Coder {
    let matrix = reed_solomon_erasure_matrix(usize::from(k), usize::from(n - k))
        .expect("1 ≤ k < n ≤ SHARES_MAX, and Vandermonde rows of different points are independent");
    coder(matrix).expect("the matrix has parity rows")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{assert_golden, pattern};
    use proptest::prelude::{ProptestConfig, Strategy, prop, proptest};
    use reed_solomon_erasure::galois_8::ReedSolomon;

    /// All n shares, by our engine.
    fn shares(k: u8, n: u8, data: &[u8]) -> Vec<Vec<u8>> {
        let mut shares: Vec<Vec<u8>> = data.chunks(data.len() / usize::from(k)).map(<[u8]>::to_vec).collect();
        shares.extend(parity(k, n, data).unwrap());
        shares
    }

    #[test]
    fn parity_is_byte_for_byte_that_of_reed_solomon_erasure_for_every_shape() {
        // 97 bytes are odd enough for every tail of a vectorised loop.
        for n in 2..=SHARES_MAX {
            for k in 1..n {
                let data = pattern("oracle", usize::from(k) * 97);
                let mut oracle: Vec<Vec<u8>> = data.chunks(97).map(<[u8]>::to_vec).collect();
                oracle.resize(usize::from(n), vec![0; 97]);
                ReedSolomon::new(usize::from(k), usize::from(n - k))
                    .unwrap()
                    .encode(&mut oracle)
                    .unwrap();
                assert!(shares(k, n, &data) == oracle, "{k} of {n}");
            }
        }
    }

    #[test]
    fn the_matrix_is_as_ever() {
        // The parity of the identity matrix is the matrix.
        let mut identity = [0; 16 * 16];
        (0..16).for_each(|i| identity[i * 17] = 1);
        let parity = parity(16, 32, &identity).unwrap().concat();
        let golden = assert_golden("erasure/v1-matrix-16-of-32.bin", &parity);
        let have: Vec<(u8, &[u8])> = (16..).zip(golden.chunks(16)).collect();
        assert_eq!(rebuild(16, 32, &have, 3).unwrap(), identity[3 * 16..4 * 16]);
    }

    #[test]
    fn the_rows_of_the_specification_are_those_of_the_code() {
        assert_eq!(
            parity(3, 5, &[1, 0, 0, 0, 1, 0, 0, 0, 1]).unwrap(),
            [[1, 1, 1], [15, 8, 6]]
        );
    }

    #[test]
    fn with_k_of_1_all_shares_are_equal() {
        let data = pattern("copies", 1_000);
        assert!(parity(1, 5, &data).unwrap().iter().all(|share| *share == data));
    }

    #[test]
    fn with_n_of_k_there_is_no_parity_and_every_share_is_needed() {
        assert_eq!(parity(3, 3, &[1, 2, 3]), Ok(vec![]));
        assert_eq!(
            rebuild(3, 3, &[(0, &[1]), (2, &[3])], 1),
            Err(ErasureError::TooFew { have: 2, k: 3 })
        );
        assert_eq!(rebuild(3, 3, &[(0, &[1]), (1, &[2]), (2, &[3])], 1), Ok(vec![2]));
    }

    #[test]
    fn every_share_comes_back_from_every_choice_of_k_others() {
        let (k, n, share_bytes) = (3, 6, 64);
        let all = shares(k, n, &pattern("choices", usize::from(k) * share_bytes));
        for choice in (0_u32..1 << n).filter(|choice| choice.count_ones() == u32::from(k)) {
            let have: Vec<(u8, &[u8])> = (0..n)
                .filter(|index| choice >> index & 1 == 1)
                .map(|index| (index, all[usize::from(index)].as_slice()))
                .collect();
            for want in 0..n {
                assert!(
                    rebuild(k, n, &have, want).unwrap() == all[usize::from(want)],
                    "{choice:b} {want}"
                );
            }
        }
    }

    #[test]
    fn what_cannot_be_computed_is_an_error() {
        for (k, n) in [(0, 0), (0, 1), (2, 1), (1, SHARES_MAX + 1), (255, 255)] {
            assert_eq!(parity(k, n, &[]), Err(ErasureError::Shape { k, n }));
            assert_eq!(rebuild(k, n, &[], 0), Err(ErasureError::Shape { k, n }));
        }
        assert_eq!(parity(2, 3, &[1]), Err(ErasureError::Unequal));
        assert_eq!(parity(2, 3, &[]), Ok(vec![vec![]]));
        assert_eq!(
            rebuild(2, 3, &[(0, &[1]), (0, &[1])], 1),
            Err(ErasureError::TooFew { have: 1, k: 2 })
        );
        assert_eq!(rebuild(2, 3, &[(0, &[1]), (1, &[1, 2])], 2), Err(ErasureError::Unequal));
        assert_eq!(
            rebuild(2, 3, &[(0, &[1]), (3, &[1])], 2),
            Err(ErasureError::Index { index: 3, n: 3 })
        );
        assert_eq!(
            rebuild(2, 3, &[(0, &[1]), (1, &[1])], 3),
            Err(ErasureError::Index { index: 3, n: 3 })
        );
    }

    fn shape() -> impl Strategy<Value = (u8, u8)> {
        (1..=SHARES_MAX).prop_flat_map(|n| (1..=n, proptest::prelude::Just(n)))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        #[test]
        fn any_range_of_any_share_comes_back_from_any_k(
            (k, n) in shape(),
            share_bytes in 1..600_usize,
            cut in prop::sample::subsequence((0..600_usize).collect::<Vec<_>>(), 2),
            order in prop::collection::vec(0..u8::MAX, usize::from(SHARES_MAX)),
            want in 0..SHARES_MAX,
        ) {
            let all = shares(k, n, &pattern("range", usize::from(k) * share_bytes));
            let range = cut[0].min(share_bytes)..cut[1].min(share_bytes);
            let mut survivors: Vec<u8> = (0..n).collect();
            survivors.sort_by_key(|index| order[usize::from(*index)]);
            let have: Vec<(u8, &[u8])> = survivors[..usize::from(k)]
                .iter()
                .map(|index| (*index, &all[usize::from(*index)][range.clone()]))
                .collect();
            let want = want % n;
            assert!(rebuild(k, n, &have, want).unwrap() == all[usize::from(want)][range]);
        }
    }
}
