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
        turn(isa, heads, self.row(position, heads));
    }

    /// The gradient of [`RopeTable::apply`], in place: d_heads goes through the transposed map,
    /// turned back and (for YaRN) scaled by the same factor, not its inverse.
    ///
    /// # Panics
    /// As [`RopeTable::apply`].
    pub fn apply_inverse(&self, isa: crate::Isa, d_heads: &mut [f32], position: usize) {
        turn_back(isa, d_heads, self.row(position, d_heads));
    }

    /// Cosines and sines of a position, after a look at the heads that they are for.
    fn row(&self, position: usize, heads: &[f32]) -> &[f32] {
        let head_dim = self.head_dim();
        assert!(position < self.num_positions(), "position {position} is not in the rope table");
        assert!(heads.len().is_multiple_of(head_dim), "{} values in heads", heads.len());
        &self.rows[position * head_dim..(position + 1) * head_dim]
    }
}

simd_fns! {
    fn turn(heads: &mut [f32], row: &[f32]) = turn_kernel;
    fn turn_back(heads: &mut [f32], row: &[f32]) = turn_back_kernel;
}

#[inline(always)]
fn turn_kernel<S: Simd>(simd: S, heads: &mut [f32], row: &[f32]) {
    turn_pairs::<S, false>(simd, heads, row);
}

#[inline(always)]
fn turn_back_kernel<S: Simd>(simd: S, heads: &mut [f32], row: &[f32]) {
    turn_pairs::<S, true>(simd, heads, row);
}

/// `(a, b)` becomes `(a cos - b sin, b cos + a sin)`, each with one product rounded first;
/// backwards the same happens to `(b, a)`.
#[inline(always)]
fn turn_pairs<S: Simd, const BACK: bool>(simd: S, heads: &mut [f32], row: &[f32]) {
    let (cos, sin) = row.split_at(row.len() / 2);
    let (cos_chunks, cos_rest) = cos.as_chunks::<LANES>();
    let (sin_chunks, sin_rest) = sin.as_chunks::<LANES>();
    let zero = simd.splat(0.0);
    for head in heads.chunks_exact_mut(row.len()) {
        let (first, second) = head.split_at_mut(row.len() / 2);
        let (a, b) = if BACK { (second, first) } else { (first, second) };
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
    fn the_gradient_is_the_transposed_map_on_every_path() {
        for head_dim in [2, 18, 32, 64, 80, 128, 256] {
            for factor in [1.0, 1.25] {
                let mut table = table(head_dim, factor);
                table.grow(100);
                for position in [0, 1, 99] {
                    let (x, d_out) = (values(2 * head_dim, 1, 2.0), values(2 * head_dim, 2, 2.0));
                    let mut portable = d_out.clone();
                    table.apply_inverse(Isa::Portable, &mut portable, position);
                    // Column i of the map is what it makes of the i-th unit vector.
                    let expected: Vec<f64> = (0..2 * head_dim)
                        .map(|index| {
                            let mut unit = vec![0.0; 2 * head_dim];
                            unit[index] = 1.0;
                            table.apply(Isa::Portable, &mut unit, position);
                            let products = unit.iter().zip(&d_out);
                            products.map(|(u, d)| f64::from(*u) * f64::from(*d)).sum()
                        })
                        .collect();
                    assert_close(&portable, &expected, 1e-6);
                    for isa in Isa::available() {
                        let mut out = d_out.clone();
                        table.apply_inverse(isa, &mut out, position);
                        assert_same_bits(&out, &portable);
                        // There and back, the factor is met twice.
                        let mut out = x.clone();
                        table.apply(isa, &mut out, position);
                        table.apply_inverse(isa, &mut out, position);
                        let scaled: Vec<f64> =
                            x.iter().map(|x| f64::from(*x) * f64::from(factor).powi(2)).collect();
                        assert_close(&out, &scaled, 1e-6);
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
