use std::time::Duration;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use serde::{Deserialize, Serialize};

/// Reproducible randomness: ChaCha8, with child seeds by name.
///
/// Two children of one seed are independent of each other and of the order in which they are made, so adding a
/// consumer does not change what the others draw.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Seed {
    number: u64,
    generator: ChaCha8Rng,
}

impl Seed {
    /// The seed with this number.
    pub fn new(number: u64) -> Seed {
        Seed { number, generator: ChaCha8Rng::seed_from_u64(number) }
    }

    /// The child of this seed with that name, whatever has been drawn from the parent so far.
    pub fn child(&self, name: &str) -> Seed {
        // FNV-1a over the parent's number and the name, then mixed by ChaCha's own seeding.
        let mut hash = 0xcbf2_9ce4_8422_2325_u64;
        for byte in self.number.to_le_bytes().iter().chain(name.as_bytes()) {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
        Seed::new(hash)
    }

    /// The number this seed was made from.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// The next 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.generator.next_u64()
    }

    /// A number from 0 to `bound` - 1; 0 if the bound is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        // Multiply-shift: the bias is below 2^-64 * bound, far from anything a jitter could show.
        ((u128::from(self.bits()) * u128::from(bound)) >> 64) as u64
    }

    /// True in `permille` of 1000 cases.
    pub fn chance(&mut self, permille: u64) -> bool {
        self.below(1000) < permille
    }

    /// A duration from `least` to `most`, both included.
    pub fn between(&mut self, least: Duration, most: Duration) -> Duration {
        let span = most.saturating_sub(least);
        let nanos = u64::try_from(span.as_nanos()).unwrap_or(u64::MAX - 1);
        least + Duration::from_nanos(self.below(nanos + 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_numbers_also_after_being_written_down() {
        let mut one = Seed::new(7);
        one.bits();
        let mut two: Seed = serde_json::from_str(&serde_json::to_string(&one).unwrap()).unwrap();
        assert_eq!(one.bits(), two.bits());
    }

    #[test]
    fn children_do_not_depend_on_what_was_drawn_before() {
        let mut parent = Seed::new(7);
        let before = parent.child("peer").bits();
        parent.bits();
        assert_eq!(parent.child("peer").bits(), before);
        assert_ne!(parent.child("other").bits(), before);
    }

    #[test]
    fn a_duration_between_two_bounds_stays_between_them() {
        let mut seed = Seed::new(1);
        let (least, most) = (Duration::from_millis(750), Duration::from_millis(1250));
        let drawn: Vec<_> = (0..1000).map(|_| seed.between(least, most)).collect();
        assert!(drawn.iter().all(|d| (least..=most).contains(d)));
        assert!(drawn.iter().any(|d| *d < Duration::from_millis(800)));
        assert!(drawn.iter().any(|d| *d > Duration::from_millis(1200)));
        assert_eq!(seed.between(least, least), least);
    }
}
