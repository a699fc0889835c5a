//! Rows of test values and comparisons, for the tests of the elementwise kernels.

/// Around one vector, around the four of a norm, and real widths.
pub(crate) const LENGTHS: [usize; 12] = [1, 2, 15, 16, 17, 63, 64, 65, 127, 576, 1000, 1536];

/// `len` values in `-spread..spread`, by a small generator with `seed`.
pub(crate) fn values(len: usize, seed: u64, spread: f32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..len)
        .map(|_| {
            // xorshift64*
            state ^= state >> 12;
            state ^= state << 25;
            state ^= state >> 27;
            let bits = state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 40;
            (bits as f32 / (1u32 << 23) as f32 - 1.0) * spread
        })
        .collect()
}

/// Each value within `tolerance`, relative to 1 or to the expected value if that is larger.
#[track_caller]
pub(crate) fn assert_close(found: &[f32], expected: &[f64], tolerance: f64) {
    assert_eq!(found.len(), expected.len());
    for (index, (found, expected)) in found.iter().zip(expected).enumerate() {
        let error = (f64::from(*found) - expected).abs();
        let bound = tolerance * expected.abs().max(1.0);
        assert!(error <= bound, "at {index}: found {found}, expected {expected}");
    }
}

#[track_caller]
pub(crate) fn assert_same_bits(found: &[f32], expected: &[f32]) {
    assert_eq!(found.len(), expected.len());
    for (index, (found, expected)) in found.iter().zip(expected).enumerate() {
        assert_eq!(found.to_bits(), expected.to_bits(), "at {index}: {found} and {expected}");
    }
}
