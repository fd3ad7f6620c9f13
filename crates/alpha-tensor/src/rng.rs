//! Counter-based random numbers: Threefry-2x32-20 (Salmon et al., "Parallel random
//! numbers: as easy as 1, 2, 3", SC 2011, section 4.2).
//!
//! A draw is a pure function of (seed, purpose, step, counter). There is no state to save,
//! so resuming is exact and evaluating can never move the training stream. Only 32-bit
//! adds, rotations and xors are used, so a GPU computes the same bits.

/// The purpose of a stream. Streams of different purposes never overlap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Purpose {
    /// Parameter initialisation.
    Init = 1,
    /// Dropout masks.
    Dropout = 2,
    /// Choice of training windows.
    Data = 3,
    /// Sampling text.
    Sample = 4,
    /// Choice of evaluation windows.
    Eval = 5,
    /// Synthetic data (`alpha datagen`) and checks.
    Synthetic = 6,
}

/// The key of one stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key(pub [u32; 2]);

impl Key {
    /// The stream of one purpose under a user's seed.
    pub fn new(seed: u64, purpose: Purpose) -> Key {
        Key([seed as u32, (seed >> 32) as u32]).fold(purpose as u64)
    }

    /// A sub-stream, for instance of a step, a layer or a tensor.
    #[must_use]
    pub fn fold(self, index: u64) -> Key {
        Key(threefry2x32(self.0, [index as u32, (index >> 32) as u32]))
    }

    /// Two independent 32-bit words for one counter.
    #[inline(always)]
    pub fn words(self, counter: [u32; 2]) -> [u32; 2] {
        threefry2x32(self.0, counter)
    }

    /// 64 uniform bits for one counter.
    pub fn bits(self, counter: u64) -> u64 {
        let [low, high] = self.words([counter as u32, (counter >> 32) as u32]);
        u64::from(low) | (u64::from(high) << 32)
    }

    /// A uniform integer in `0..bound` (multiply-shift; bias below 2⁻³² for bounds below 2³²).
    pub fn below(self, counter: u64, bound: u64) -> u64 {
        ((u128::from(self.bits(counter)) * u128::from(bound)) >> 64) as u64
    }

    /// A uniform number in `[0, 1)` with 53 random bits.
    pub fn uniform(self, counter: u64) -> f64 {
        (self.bits(counter) >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
    }

    /// Two standard normal numbers for one counter (Box and Muller, 1958).
    pub fn normal_pair(self, counter: u64) -> [f64; 2] {
        let [a, b] = self.words([counter as u32, (counter >> 32) as u32]);
        let radius = (-2.0 * ((f64::from(a) + 0.5) / 4_294_967_296.0).ln()).sqrt();
        let angle = std::f64::consts::TAU * (f64::from(b) / 4_294_967_296.0);
        [radius * angle.cos(), radius * angle.sin()]
    }
}

const ROTATIONS: [u32; 8] = [13, 15, 26, 6, 17, 29, 16, 24];

/// Threefry-2x32 with 20 rounds.
#[inline(always)]
pub fn threefry2x32(key: [u32; 2], counter: [u32; 2]) -> [u32; 2] {
    let schedule = [key[0], key[1], 0x1BD1_1BDA ^ key[0] ^ key[1]];
    let mut x0 = counter[0].wrapping_add(schedule[0]);
    let mut x1 = counter[1].wrapping_add(schedule[1]);
    for round in 0..20 {
        x0 = x0.wrapping_add(x1);
        x1 = x1.rotate_left(ROTATIONS[round % 8]) ^ x0;
        if round % 4 == 3 {
            let injection = round / 4 + 1;
            x0 = x0.wrapping_add(schedule[injection % 3]);
            x1 = x1.wrapping_add(schedule[(injection + 1) % 3]).wrapping_add(injection as u32);
        }
    }
    [x0, x1]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Known-answer vectors of the Random123 distribution (`kat_vectors`, threefry2x32 20).
    #[test]
    fn threefry_matches_random123() {
        assert_eq!(threefry2x32([0, 0], [0, 0]), [0x6b20_0159, 0x99ba_4efe]);
        assert_eq!(threefry2x32([u32::MAX; 2], [u32::MAX; 2]), [0x1cb9_96fc, 0xbb00_2be7]);
        assert_eq!(threefry2x32([0x1319_8a2e, 0x0370_7344], [0x243f_6a88, 0x85a3_08d3]), [0xc492_3a9c, 0x483d_f7a0]);
    }

    #[test]
    fn normal_numbers_have_mean_zero_and_variance_one() {
        let key = Key::new(1, Purpose::Init);
        let draws: Vec<f64> = (0..50_000).flat_map(|i| key.normal_pair(i)).collect();
        let mean = draws.iter().sum::<f64>() / draws.len() as f64;
        let variance = draws.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / draws.len() as f64;
        assert!(mean.abs() < 0.02 && (variance - 1.0).abs() < 0.02, "{mean} {variance}");
    }

    #[test]
    fn below_stays_below_and_covers() {
        let key = Key::new(7, Purpose::Data);
        let mut seen = [false; 10];
        for counter in 0..1000 {
            seen[key.below(counter, 10) as usize] = true;
        }
        assert_eq!(seen, [true; 10]);
    }
}
