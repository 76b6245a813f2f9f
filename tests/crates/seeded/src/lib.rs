// SPDX-License-Identifier: GPL-2.0

//! A small seeded generator (SplitMix64), for the testers. A printed seed must give the same run for
//! ever, so the sequence is defined here and not by a library's version.

/// SplitMix64.
#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A generator for one named thing under a common seed, so that adding a disk does not change
    /// what happens to the others.
    pub fn for_name(seed: u64, name: &str) -> Self {
        let mut h = 0xcbf2_9ce4_8422_2325_u64;
        for b in name.bytes() {
            h = (h ^ u64::from(b)).wrapping_mul(0x0000_0100_0000_01b3);
        }
        let mut rng = Self(seed ^ h);
        rng.next_u64();
        rng
    }

    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `n` (0 when `n` is 0).
    pub fn below(&mut self, n: u64) -> u64 {
        if n == 0 {
            0
        } else {
            self.next_u64() % n
        }
    }

    /// True in `permille` of 1000 cases.
    pub fn chance(&mut self, permille: u64) -> bool {
        self.below(1000) < permille
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_means_the_same_for_ever() {
        // The published sequence of SplitMix64.
        let mut rng = Rng::new(1_234_567);
        let published = [
            6_457_827_717_110_365_317,
            3_203_168_211_198_807_973,
            9_817_491_932_198_370_423,
        ];
        assert_eq!(published.map(|_| rng.next_u64()), published);
        assert_eq!(Rng::for_name(7, "data").next_u64(), 0x4909_4045_ca8f_86f8);
        assert_eq!(Rng::for_name(7, "srl").next_u64(), 0xbaec_9f27_ac00_f1ed);
    }

    #[test]
    fn bounds() {
        let mut rng = Rng::new(1);
        assert_eq!(rng.below(0), 0);
        assert!((0..1000).all(|_| rng.below(7) < 7));
        assert!((0..1000).all(|_| rng.chance(1000) && !rng.chance(0)));
        let hits = (0..10_000).filter(|_| rng.chance(250)).count();
        assert!(
            (2000..3000).contains(&hits),
            "{hits} of 10000 at 250 permille"
        );
    }
}
