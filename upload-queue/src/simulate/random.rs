//! Numbers that look random and follow from a seed alone: xoshiro256++ seeded by splitmix64. Not for secrets.

/// A generator.
#[derive(Clone, Debug)]
pub struct Random([u64; 4]);

impl Random {
    /// The generator of `seed`.
    pub fn new(seed: u64) -> Self {
        let mut state = seed;
        Self([(); 4].map(|()| splitmix(&mut state)))
    }

    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        let [a, b, c, d] = self.0;
        let result = a.wrapping_add(d).rotate_left(23).wrapping_add(a);
        let (c, d) = (c ^ a, d ^ b);
        self.0 = [a ^ d, b ^ c, c ^ (b << 17), d.rotate_left(45)];
        result
    }

    /// Evenly from 0 to 1, without 1.
    pub fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Evenly between two numbers.
    pub fn between(&mut self, from: f64, to: f64) -> f64 {
        from + (to - from) * self.unit()
    }

    /// A number below `bound`; 0 for 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.bits()) * u128::from(bound)) >> 64) as u64
    }

    /// True with this probability.
    pub fn chance(&mut self, probability: f64) -> bool {
        self.unit() < probability
    }

    /// A waiting time without memory.
    pub fn exponential(&mut self, mean: f64) -> f64 {
        -mean * (1.0 - self.unit()).ln()
    }
}

/// The seed of the run with this number in a series.
pub fn seed_of_run(series: u64, run: u64) -> u64 {
    let mut state = series.wrapping_add(run.wrapping_mul(0xd1b5_4a32_d192_ed03));
    splitmix(&mut state)
}

fn splitmix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut value = *state;
    value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_seeds_give_equal_numbers_and_means_are_as_asked() {
        let (mut a, mut b, mut other) = (Random::new(7), Random::new(7), Random::new(8));
        assert!((0..100).all(|_| a.bits() == b.bits()));
        assert!((0..100).any(|_| a.bits() != other.bits()));
        let mean = |of: &mut dyn FnMut() -> f64| (0..100_000).map(|_| of()).sum::<f64>() / 1e5;
        assert!((mean(&mut || a.unit()) - 0.5).abs() < 0.01);
        assert!((mean(&mut || a.exponential(3.0)) - 3.0).abs() < 0.06);
        assert!((mean(&mut || a.below(10) as f64) - 4.5).abs() < 0.05);
        assert_eq!(a.below(0), 0);
    }
}
