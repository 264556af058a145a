//! Random streams named by (seed, purpose, entity): a new user of randomness shifts no other draw.

use rand::Rng;
use rand_pcg::Pcg64;
use rand_pcg::rand_core::SeedableRng;

/// The generator of every stream: PCG XSL RR 128/64, whose output is fixed by its definition.
pub type Stream = Pcg64;

/// The stream of `entity` for `purpose`, for example `stream(seed, "arrival", 0)`.
pub fn stream(seed: u64, purpose: &str, entity: u64) -> Stream {
    let mut bytes = [0u8; 32];
    for (i, chunk) in bytes.chunks_exact_mut(8).enumerate() {
        chunk.copy_from_slice(&draw(seed, purpose_key(purpose), entity, i as u64).to_le_bytes());
    }
    Pcg64::from_seed(bytes)
}

/// A key for a purpose, for [`draw`]: computed once, outside of loops.
pub fn purpose_key(purpose: &str) -> u64 {
    // FNV-1a, 64 bits.
    purpose.bytes().fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3))
}

/// One 64-bit draw as a pure function of its coordinates (no state): routing rows that are drawn must not depend on
/// when they are computed. Mixing is SplitMix64's finaliser (Steele, Lea, Flood, OOPSLA 2014), one round a coordinate.
pub fn draw(seed: u64, purpose: u64, entity: u64, index: u64) -> u64 {
    [purpose, entity, index].into_iter().fold(mix(seed), |h, x| mix(h ^ mix(x)))
}

/// Maps a draw to 0..n without bias that matters (n far below 2^32): the high half of a product.
pub fn below(draw: u64, n: u64) -> u64 {
    ((u128::from(draw) * u128::from(n)) >> 64) as u64
}

/// Brings a list into a random order (Fisher and Yates).
pub fn shuffle<T>(list: &mut [T], draws: &mut Stream) {
    for i in (1..list.len()).rev() {
        list.swap(i, below(draws.next_u64(), i as u64 + 1) as usize);
    }
}

fn mix(x: u64) -> u64 {
    let x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_are_fixed_and_apart() {
        let first = |seed, purpose, entity| stream(seed, purpose, entity).next_u64();
        assert_eq!(first(1, "arrival", 0), first(1, "arrival", 0));
        let all = [first(1, "arrival", 0), first(2, "arrival", 0), first(1, "length", 0), first(1, "arrival", 1)];
        for (i, a) in all.iter().enumerate() {
            assert!(all[i + 1..].iter().all(|b| a != b));
        }
    }

    #[test]
    fn draws_are_even() {
        let mut counts = [0u32; 10];
        for i in 0..100_000 {
            counts[below(draw(7, 1, 2, i), 10) as usize] += 1;
        }
        // Standard deviation of a count is 95; five of them.
        assert!(counts.iter().all(|c| (9_525..=10_475).contains(c)), "{counts:?}");
    }
}
