//! Rotary position embedding: pairs (i, i + d/2) of a head are turned by an angle that grows
//! with the position.
//!
//! The variants (plain, linear, Llama 3, YaRN, divisors) differ only in their frequencies and a
//! factor, which the model computes; here they are numbers.

use crate::vector::{LANES, Simd, load_partial, simd_fns};

/// Cosines and sines of the first positions of a context.
#[derive(Clone, Debug)]
pub struct RopeTable {
    inv_freq: Vec<f32>,
    attention_factor: f32,
    /// Per position `half` cosines, then `half` sines.
    rows: Vec<f32>,
}

impl RopeTable {
    /// A table without positions yet for heads of `2 * inv_freq.len()` values. The angle of pair
    /// i at position p is `p * inv_freq[i]`; cosines and sines are multiplied by
    /// `attention_factor` (1 but for YaRN).
    pub fn new(inv_freq: Vec<f32>, attention_factor: f32) -> RopeTable {
        RopeTable { inv_freq, attention_factor, rows: Vec::new() }
    }

    /// Values of a head, of which this table turns pairs.
    pub fn head_dim(&self) -> usize {
        2 * self.inv_freq.len()
    }

    /// Positions in the table.
    pub fn num_positions(&self) -> usize {
        self.rows.len() / self.head_dim().max(1)
    }

    /// Makes sure that positions `0..num_positions` are there.
    pub fn grow(&mut self, num_positions: usize) {
        self.rows.reserve(num_positions.saturating_sub(self.num_positions()) * self.head_dim());
        for position in self.num_positions()..num_positions {
            for part in [f64::cos, f64::sin] {
                self.rows.extend(self.inv_freq.iter().map(|inv_freq| {
                    let angle = position as f64 * f64::from(*inv_freq);
                    (part(angle) * f64::from(self.attention_factor)) as f32
                }));
            }
        }
    }

    /// Turns the pairs of each head in `heads` (consecutive heads of one token).
    ///
    /// # Panics
    /// When the position is not in the table, or `heads` is not a whole number of heads.
    pub fn apply(&self, isa: crate::Isa, heads: &mut [f32], position: usize) {
        let head_dim = self.head_dim();
        assert!(position < self.num_positions(), "position {position} is not in the rope table");
        assert!(heads.len().is_multiple_of(head_dim), "{} values in heads", heads.len());
        let row = &self.rows[position * head_dim..(position + 1) * head_dim];
        turn(isa, heads, row);
    }
}

simd_fns! {
    fn turn(heads: &mut [f32], row: &[f32]) = turn_kernel;
}

/// `(a, b)` becomes `(a cos - b sin, b cos + a sin)`, each with one product rounded first.
#[inline(always)]
fn turn_kernel<S: Simd>(simd: S, heads: &mut [f32], row: &[f32]) {
    let (cos, sin) = row.split_at(row.len() / 2);
    let (cos_chunks, cos_rest) = cos.as_chunks::<LANES>();
    let (sin_chunks, sin_rest) = sin.as_chunks::<LANES>();
    let zero = simd.splat(0.0);
    for head in heads.chunks_exact_mut(row.len()) {
        let (a, b) = head.split_at_mut(row.len() / 2);
        let (a_chunks, a_rest) = a.as_chunks_mut::<LANES>();
        let (b_chunks, b_rest) = b.as_chunks_mut::<LANES>();
        for (((a, b), cos), sin) in
            a_chunks.iter_mut().zip(b_chunks).zip(cos_chunks).zip(sin_chunks)
        {
            let (x, y) = (simd.load_array(a), simd.load_array(b));
            let (cos, sin) = (simd.load_array(cos), simd.load_array(sin));
            simd.store_array(a, simd.fma(x, cos, simd.sub(zero, simd.mul(y, sin))));
            simd.store_array(b, simd.fma(y, cos, simd.mul(x, sin)));
        }
        if !a_rest.is_empty() {
            let (x, y) = (load_partial(simd, a_rest, 0.0), load_partial(simd, b_rest, 0.0));
            let (cos, sin) = (load_partial(simd, cos_rest, 0.0), load_partial(simd, sin_rest, 0.0));
            let mut lanes = [0.0; LANES];
            simd.store_array(&mut lanes, simd.fma(x, cos, simd.sub(zero, simd.mul(y, sin))));
            a_rest.copy_from_slice(&lanes[..a_rest.len()]);
            simd.store_array(&mut lanes, simd.fma(y, cos, simd.mul(x, sin)));
            b_rest.copy_from_slice(&lanes[..b_rest.len()]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Isa;
    use crate::vector::test_rows::{assert_close, assert_same_bits, values};

    fn table(head_dim: usize, factor: f32) -> RopeTable {
        let inv_freq =
            (0..head_dim / 2).map(|i| 1e4f32.powf(-2.0 * i as f32 / head_dim as f32)).collect();
        RopeTable::new(inv_freq, factor)
    }

    #[test]
    fn agrees_with_the_formula_on_every_path() {
        for head_dim in [2, 18, 32, 64, 80, 128, 256] {
            for factor in [1.0, 1.25] {
                let mut table = table(head_dim, factor);
                table.grow(4000);
                for position in [0, 1, 17, 3999] {
                    let x = values(3 * head_dim, position as u64, 2.0);
                    let mut expected: Vec<f64> = x.iter().map(|x| f64::from(*x)).collect();
                    for head in expected.chunks_mut(head_dim) {
                        for i in 0..head_dim / 2 {
                            let angle = position as f64 * f64::from(table.inv_freq[i]);
                            let (a, b) = (head[i], head[i + head_dim / 2]);
                            let (sin, cos) = angle.sin_cos();
                            head[i] = f64::from(factor) * (a * cos - b * sin);
                            head[i + head_dim / 2] = f64::from(factor) * (b * cos + a * sin);
                        }
                    }
                    let mut portable = x.clone();
                    table.apply(Isa::Portable, &mut portable, position);
                    assert_close(&portable, &expected, 1e-6);
                    for isa in Isa::available() {
                        let mut out = x.clone();
                        table.apply(isa, &mut out, position);
                        assert_same_bits(&out, &portable);
                    }
                }
            }
        }
    }

    #[test]
    fn growing_in_steps_or_at_once_is_the_same() {
        let (mut steps, mut once) = (table(64, 1.0), table(64, 1.0));
        for num_positions in [1, 5, 3, 100] {
            steps.grow(num_positions);
        }
        once.grow(100);
        assert_eq!(steps.num_positions(), 100);
        assert_same_bits(&steps.rows, &once.rows);
    }

    #[test]
    #[should_panic(expected = "position 4 is not in the rope table")]
    fn a_position_beyond_the_table_is_refused() {
        let mut table = table(4, 1.0);
        table.grow(4);
        table.apply(Isa::Portable, &mut [0.0; 4], 4);
    }
}
