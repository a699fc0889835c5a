//! K-quants: 256 weights in groups, whose scales (and minima) are themselves integers under one
//! f16 scale. So a group's scale can neither be chosen freely nor from its extremes alone.
//!
//! Both functions work alike: find for each group, by itself, the scale (and minimum) of least
//! weighted squared error among several; derive the block's f16 scales from the largest of them;
//! then choose each group's integers next to what it wanted, by the error that really results.

use crate::BlockType;

use super::{inverse, largest, put_f16, put_quants};

/// Weights of one group with a minimum.
const GROUP: usize = 32;
const NUM_GROUPS: usize = 8;
/// The largest 6-bit integer.
const MAX_SIX_BITS: f32 = 63.0;
/// Grids tried for a group: its range is divided by up to one less or more than its levels.
const GRID_STEPS: i32 = 20;
const GRID_STEP: f32 = 0.1;
const GRID_START: f32 = -1.0;

/// A group's line: `weight = scale * quant - min`.
#[derive(Clone, Copy, Debug, Default)]
struct Line {
    scale: f32,
    min: f32,
}

/// The weights of a group, how much each matters, and the largest quant.
#[derive(Clone, Copy)]
struct Group<'a> {
    weights: &'a [f32; GROUP],
    importance: [f32; GROUP],
    levels: f32,
}

/// Q4_K and Q5_K: 8 groups of 32 with 6-bit scales and minima, quants of 0 to `levels`.
pub(super) fn with_minima(block_type: BlockType, weights: &[f32], block: &mut [u8], levels: i32) {
    let weights = weights.as_chunks::<GROUP>().0;
    let groups: [Group<'_>; NUM_GROUPS] =
        std::array::from_fn(|index| Group::new(&weights[index], levels as f32));
    let lines = groups.map(|group| group.best_line());
    let max = |of: fn(&Line) -> f32| lines.iter().map(of).fold(0.0, f32::max);
    put_f16(block, 0, max(|line| line.scale) / MAX_SIX_BITS);
    put_f16(block, 2, max(|line| line.min) / MAX_SIX_BITS);
    // What a reader will find, which is not quite what was wanted.
    let units = Line {
        scale: crate::dequantize::f16_at(block, 0),
        min: crate::dequantize::f16_at(block, 2),
    };
    let mut quants = [[0_u8; GROUP]; NUM_GROUPS];
    block[4..16].fill(0);
    for (index, group) in groups.iter().enumerate() {
        let integers = group.best_integers(lines[index], units);
        put_scale_min(&mut block[4..16], index, integers.scale as u8, integers.min as u8);
        let line = integers.times(units);
        let inverse_scale = inverse(line.scale);
        for (quant, &weight) in quants[index].iter_mut().zip(group.weights) {
            *quant = group.quant(weight, line, inverse_scale) as u8;
        }
    }
    let quants = quants.as_flattened();
    put_quants(block_type, block, |i| quants[i]);
}

impl Line {
    fn times(self, units: Line) -> Line {
        Line { scale: self.scale * units.scale, min: self.min * units.min }
    }
}

impl Group<'_> {
    /// Large weights matter more, as outliers are what a model was trained to rely on. The
    /// measure is the one that ggml takes where nothing is known of the activations.
    fn new(weights: &[f32; GROUP], levels: f32) -> Group<'_> {
        let mean_square = weights.iter().map(|weight| weight * weight).sum::<f32>() / GROUP as f32;
        let spread = mean_square.sqrt();
        Group { weights, importance: weights.map(|weight| spread + weight.abs()), levels }
    }

    /// The integer nearest to a weight on a line.
    #[inline(always)]
    fn quant(&self, weight: f32, line: Line, inverse_scale: f32) -> f32 {
        nearest(((weight + line.min) * inverse_scale).clamp(0.0, self.levels))
    }

    fn error(&self, line: Line) -> f32 {
        let inverse_scale = inverse(line.scale);
        self.weighted_sum(|i| {
            let quant = self.quant(self.weights[i], line, inverse_scale);
            let error = line.scale * quant - line.min - self.weights[i];
            error * error
        })
    }

    #[inline(always)]
    fn weighted_sum(&self, term: impl Fn(usize) -> f32) -> f32 {
        sum::<GROUP>(std::array::from_fn(|i| self.importance[i] * term(i)))
    }

    /// Tries grids around the group's range. Each gives quants, and quants give the line of least
    /// squares through them.
    fn best_line(&self) -> Line {
        // Zero is on every line's positive side: minima have no sign.
        let lowest = self.weights.iter().copied().fold(0.0, f32::min);
        let highest = self.weights.iter().copied().fold(lowest, f32::max);
        let range = highest - lowest;
        if range == 0.0 || self.weights.iter().all(|&weight| weight == lowest) {
            return Line { scale: 0.0, min: -lowest };
        }
        let mut best = Line { scale: range / self.levels, min: -lowest };
        let mut best_error = self.error(best);
        for step in 0..=GRID_STEPS {
            let num_steps = self.levels + GRID_START + GRID_STEP * step as f32;
            let start = Line { scale: range / num_steps, min: -lowest };
            let Some(fitted) = self.least_squares(start) else { continue };
            let error = self.error(fitted);
            if error < best_error {
                (best, best_error) = (fitted, error);
            }
        }
        best
    }

    /// The line of least weighted squares through the quants that `start` gives; the minimum
    /// cannot be below zero, as it is stored without a sign.
    fn least_squares(&self, start: Line) -> Option<Line> {
        let inverse_scale = inverse(start.scale);
        let quants: [f32; GROUP] =
            std::array::from_fn(|i| self.quant(self.weights[i], start, inverse_scale));
        let w = self.weighted_sum(|_| 1.0);
        let wq = self.weighted_sum(|i| quants[i]);
        let wqq = self.weighted_sum(|i| quants[i] * quants[i]);
        let wx = self.weighted_sum(|i| self.weights[i]);
        let wqx = self.weighted_sum(|i| quants[i] * self.weights[i]);
        let determinant = w * wqq - wq * wq;
        if determinant <= 0.0 {
            return None;
        }
        let scale = (w * wqx - wx * wq) / determinant;
        let min = (wq * wqx - wqq * wx) / determinant;
        let line =
            if min < 0.0 { Line { scale: wqx / wqq, min: 0.0 } } else { Line { scale, min } };
        (line.scale > 0.0).then_some(line)
    }

    /// The 6-bit scale and minimum near the wanted line whose quants have the least error.
    fn best_integers(&self, wanted: Line, units: Line) -> Line {
        let six_bits = |value: f32| nearest(value.clamp(0.0, MAX_SIX_BITS));
        let start = Line {
            scale: six_bits(wanted.scale * inverse(units.scale)),
            min: six_bits(wanted.min * inverse(units.min)),
        };
        let mut best = (start, f32::INFINITY);
        for (scale_step, min_step) in STEPS {
            let integers = Line { scale: start.scale + scale_step, min: start.min + min_step };
            let is_six_bits = |integer| (0.0..=MAX_SIX_BITS).contains(&integer);
            if is_six_bits(integers.scale) && is_six_bits(integers.min) {
                let error = self.error(integers.times(units));
                if error < best.1 {
                    best = (integers, error);
                }
            }
        }
        best.0
    }
}

/// Of scale and minimum: none first, so that it wins ties.
const STEPS: [(f32, f32); 9] = [
    (0.0, 0.0),
    (0.0, -1.0),
    (0.0, 1.0),
    (-1.0, 0.0),
    (-1.0, -1.0),
    (-1.0, 1.0),
    (1.0, 0.0),
    (1.0, -1.0),
    (1.0, 1.0),
];

/// Eight sums side by side, so that the loop vectorises, then their sum.
#[inline(always)]
fn sum<const N: usize>(values: [f32; N]) -> f32 {
    let mut sums = [0.0; 8];
    for eight in values.as_chunks::<8>().0 {
        sums.iter_mut().zip(eight).for_each(|(sum, value)| *sum += value);
    }
    sums.iter().sum()
}

/// The inverse of `dequantize::k_scale_min`, into zeroed bytes.
fn put_scale_min(packed: &mut [u8], group: usize, scale: u8, min: u8) {
    if group < 4 {
        packed[group] |= scale;
        packed[group + 4] |= min;
    } else {
        packed[group + 4] = scale & 15 | min << 4;
        packed[group - 4] |= scale >> 4 << 6;
        packed[group] |= min >> 4 << 6;
    }
}

/// Weights of one group without a minimum.
const SMALL_GROUP: usize = 16;
const NUM_SMALL_GROUPS: usize = 16;
/// The most negative 6-bit quant; the range goes to one less above zero.
const ZERO: f32 = 32.0;

/// Q6_K: 16 groups of 16 with 8-bit scales, quants of -32 to 31.
pub(super) fn q6_k(weights: &[f32], block: &mut [u8]) {
    let groups = weights.as_chunks::<SMALL_GROUP>().0;
    let scales: [f32; NUM_SMALL_GROUPS] = std::array::from_fn(|index| best_scale(&groups[index]));
    // -128 is the integer of largest magnitude, so the unit takes the sign that uses it.
    put_f16(block, 208, largest(&scales) / -128.0);
    let unit = crate::dequantize::f16_at(block, 208);
    let mut quants = [[0_u8; SMALL_GROUP]; NUM_SMALL_GROUPS];
    for (index, group) in groups.iter().enumerate() {
        let wanted = nearest((scales[index] * inverse(unit)).clamp(-128.0, 127.0));
        let mut best = (wanted, f32::INFINITY);
        for integer in [wanted, wanted - 1.0, wanted + 1.0] {
            let error = scale_error(group, integer * unit);
            if (-128.0..=127.0).contains(&integer) && error < best.1 {
                best = (integer, error);
            }
        }
        block[192 + index] = (best.0 as i8).cast_unsigned();
        let inverse_scale = inverse(best.0 * unit);
        for (quant, &weight) in quants[index].iter_mut().zip(group) {
            *quant = (signed_quant(weight, inverse_scale) + ZERO) as u8;
        }
    }
    let quants = quants.as_flattened();
    put_quants(BlockType::Q6K, block, |i| quants[i]);
}

#[inline(always)]
fn signed_quant(weight: f32, inverse_scale: f32) -> f32 {
    nearest((weight * inverse_scale).clamp(-ZERO, ZERO - 1.0))
}

/// Squared errors, each weighted by the square of the weight, as ggml does for this type.
fn scale_error(group: &[f32; SMALL_GROUP], scale: f32) -> f32 {
    let inverse_scale = inverse(scale);
    sum(group.map(|weight| {
        let error = scale * signed_quant(weight, inverse_scale) - weight;
        weight * weight * error * error
    }))
}

fn best_scale(group: &[f32; SMALL_GROUP]) -> f32 {
    let extreme = largest(group);
    let mut best = extreme / -ZERO;
    let mut best_error = scale_error(group, best);
    for step in -9..=9 {
        let start = -(ZERO + 0.1 * step as f32) / extreme;
        if !start.is_finite() {
            continue;
        }
        let quants = group.map(|weight| signed_quant(weight, start));
        let terms = |other: &[f32; SMALL_GROUP]| -> [f32; SMALL_GROUP] {
            std::array::from_fn(|i| group[i] * group[i] * quants[i] * other[i])
        };
        let fitted = sum(terms(group)) / sum(terms(&quants));
        // Not where all quants are zero: then the quotient is no number, and less than nothing.
        let error = scale_error(group, fitted);
        if error < best_error {
            (best, best_error) = (fitted, error);
        }
    }
    best
}

/// The nearest integer, ties to even, for magnitudes below 2^22. `round_ties_even` is a call
/// where the instruction set is not known; this is two additions.
#[inline(always)]
fn nearest(value: f32) -> f32 {
    const MAGIC: f32 = 12_582_912.0; // 1.5 * 2^23: at this size the unit of an f32 is 1.
    (value + MAGIC) - MAGIC
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_and_minima_are_where_the_reader_looks() {
        let mut packed = [0; 12];
        let of = |group: usize| ((group * 9 + 1) as u8 & 63, (63 - group * 7) as u8);
        for group in 0..8 {
            put_scale_min(&mut packed, group, of(group).0, of(group).1);
        }
        for group in 0..8 {
            assert_eq!(crate::dequantize::k_scale_min(&packed, group), of(group));
        }
    }

    #[test]
    fn nearest_is_the_nearest_integer() {
        for (value, expected) in [(0.0, 0.0), (0.49, 0.0), (1.5, 2.0), (-31.7, -32.0), (2.5, 2.0)] {
            assert_eq!(nearest(value), expected);
        }
    }
}
