//! Randomness that depends on a seed and a purpose alone.

use rand::SeedableRng;

/// A stream of random numbers at a known position: nothing to restore, `set_word_pos` goes anywhere.
pub type CounterRng = rand_chacha::ChaCha8Rng;

/// The stream for (`seed`, `purpose`): equal arguments give equal numbers on every machine.
///
/// Seeded with `BLAKE3(seed, purpose)`, so that no two purposes share a stream.
pub fn counter_rng(seed: u64, purpose: &str) -> CounterRng {
    let mut hasher = crate::Hasher::new();
    hasher.part(&seed.to_le_bytes()).part(purpose.as_bytes());
    CounterRng::from_seed(*hasher.finish().bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::Rng;

    #[test]
    fn a_purpose_has_a_stream_of_its_own() {
        let first = |seed, purpose| counter_rng(seed, purpose).next_u64();
        assert_eq!(first(42, "shuffle"), first(42, "shuffle"));
        assert_ne!(first(42, "shuffle"), first(42, "init"));
        assert_ne!(first(42, "shuffle"), first(43, "shuffle"));
    }
}
