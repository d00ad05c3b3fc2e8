//! Counter-based random numbers.
//!
//! Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011): a keyed
//! bijection of a counter. There is no state to keep, copy or lose; the number for a step is a function
//! of the seed, the step and the purpose.

/// What a number is used for, so that two uses in one step are independent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Choosing the token.
    Draw = 0,
    /// Whether XTC acts.
    Xtc = 1,
}

const MULTIPLIERS: [u32; 2] = [0xD251_1F53, 0xCD9E_8D57];
const WEYL: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];

fn philox(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    for _ in 0..10 {
        let a = u64::from(MULTIPLIERS[0]) * u64::from(counter[0]);
        let b = u64::from(MULTIPLIERS[1]) * u64::from(counter[2]);
        counter = [
            (b >> 32) as u32 ^ counter[1] ^ key[0],
            b as u32,
            (a >> 32) as u32 ^ counter[3] ^ key[1],
            a as u32,
        ];
        key = [key[0].wrapping_add(WEYL[0]), key[1].wrapping_add(WEYL[1])];
    }
    counter
}

/// A number in `[0, 1)` with 53 random bits.
pub(super) fn uniform(seed: u64, step: u64, purpose: Purpose) -> f64 {
    let counter = [step as u32, (step >> 32) as u32, purpose as u32, 0];
    let [hi, lo, ..] = philox(counter, [seed as u32, (seed >> 32) as u32]);
    let bits = (u64::from(hi) << 32 | u64::from(lo)) >> 11;
    bits as f64 * (1.0 / (1u64 << 53) as f64)
}

/// A seed for choice `index` of a request with several.
pub(crate) fn derive_seed(seed: u64, index: u64) -> u64 {
    if index == 0 {
        return seed;
    }
    let [hi, lo, ..] = philox([index as u32, (index >> 32) as u32, 0, 1], [seed as u32, (seed >> 32) as u32]);
    u64::from(hi) << 32 | u64::from(lo)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The known answers published with Random123 (`kat_vectors`, philox4x32 10).
    #[test]
    fn known_answers() {
        assert_eq!(philox([0; 4], [0; 2]), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        assert_eq!(
            philox([u32::MAX; 4], [u32::MAX; 2]),
            [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]
        );
        assert_eq!(
            philox([0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344], [0xa409_3822, 0x299f_31d0]),
            [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]
        );
    }

    #[test]
    fn numbers_are_uniform_and_independent_of_purpose() {
        let n = 20_000;
        let mut bins = [0u32; 10];
        let mut equal = 0;
        for step in 0..n {
            let x = uniform(7, step, Purpose::Draw);
            assert!((0.0..1.0).contains(&x));
            bins[(x * 10.0) as usize] += 1;
            equal += u32::from(x == uniform(7, step, Purpose::Xtc));
        }
        assert_eq!(equal, 0);
        // chi-square with 9 degrees of freedom: 27.9 is the 0.1 % point
        let expected = n as f64 / 10.0;
        let chi: f64 = bins.iter().map(|&b| (f64::from(b) - expected).powi(2) / expected).sum();
        assert!(chi < 27.9, "chi-square {chi}");
    }

    #[test]
    fn seeds_of_choices_differ() {
        let mut seeds: Vec<_> = (0..1000).map(|i| derive_seed(3, i)).collect();
        assert_eq!(seeds[0], 3);
        seeds.sort_unstable();
        seeds.dedup();
        assert_eq!(seeds.len(), 1000);
    }
}
