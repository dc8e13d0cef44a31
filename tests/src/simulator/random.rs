//! Random numbers from one seed. Each use takes a stream of its own by name, so that adding a draw in one place does
//! not move the numbers of another, and two policies under the same seed meet exactly the same load.

use rand::SeedableRng;
use rand_xoshiro::Xoshiro256PlusPlus;

/// A stream of random numbers; it gives the same numbers on every machine.
pub type Random = Xoshiro256PlusPlus;

/// The stream called `name` under `seed`.
pub fn stream(seed: u64, name: &str) -> Random {
    // FNV-1a over the name, started from the seed; `seed_from_u64` mixes it once more.
    let start = 0xcbf2_9ce4_8422_2325 ^ seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let hash = name.bytes().fold(start, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    Random::seed_from_u64(hash)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::RngExt;

    #[test]
    fn streams_differ_by_seed_and_by_name_and_repeat() {
        let first = |seed, name| stream(seed, name).random::<u64>();
        assert_eq!(first(1, "load"), first(1, "load"));
        assert_ne!(first(1, "load"), first(2, "load"));
        assert_ne!(first(1, "load"), first(1, "pods"));
    }
}
