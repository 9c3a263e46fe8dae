//! Sums of many 32-bit words: the part of a checksum that is as long as the payload.
//!
//! The loop is plain and made for the compiler to turn into vectors. It is compiled twice: for every x86-64, and for those with
//! AVX2, which halves its time and is asked for when the process runs.

/// Bytes of a step.
pub(super) const STEP: usize = 64;

/// The sum of the whole [`STEP`]s at the front of `bytes` as native 32-bit words, and what is behind them.
pub(super) fn sum(bytes: &[u8]) -> (u64, &[u8]) {
    let (steps, rest) = bytes.as_chunks::<STEP>();
    (sum_steps(steps), rest)
}

#[cfg(target_arch = "x86_64")]
fn sum_steps(steps: &[[u8; STEP]]) -> u64 {
    if !std::arch::is_x86_feature_detected!("avx2") {
        return portable(steps);
    }
    // SAFETY: the processor has what the function is compiled for, and it needs nothing else.
    unsafe { avx2(steps) }
}

#[cfg(not(target_arch = "x86_64"))]
fn sum_steps(steps: &[[u8; STEP]]) -> u64 {
    portable(steps)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn avx2(steps: &[[u8; STEP]]) -> u64 {
    portable(steps)
}

/// Both halves of every 64-bit word, each in a sum of its own that has room for 2^32 of them.
#[inline(always)]
fn portable(steps: &[[u8; STEP]]) -> u64 {
    let (mut low, mut high) = ([0_u64; STEP / 8], [0_u64; STEP / 8]);
    for step in steps {
        let (words, _) = step.as_chunks::<8>();
        for ((low, high), word) in low.iter_mut().zip(&mut high).zip(words) {
            let word = u64::from_ne_bytes(*word);
            *low += word & 0xffff_ffff;
            *high += word >> 32;
        }
    }
    low.iter().chain(&high).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_the_processor_has_the_sum_is_the_same() {
        let bytes: Vec<u8> = (0..9000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 21) as u8).collect();
        for (from, to) in [(0, 0), (0, 63), (0, 64), (3, 9000), (8, 8904), (1, 1449)] {
            let bytes = &bytes[from..to];
            let (whole, rest) = bytes.split_at(bytes.len() / STEP * STEP);
            let words = whole.as_chunks::<4>().0.iter();
            let slow: u64 = words.map(|word| u64::from(u32::from_ne_bytes(*word))).sum();
            assert_eq!(sum(bytes), (slow, rest));
            assert_eq!(portable(bytes.as_chunks().0), slow);
        }
        assert_eq!(sum(&[0xff; STEP * 1000]).0, 0xffff_ffff * 16_000);
    }
}
