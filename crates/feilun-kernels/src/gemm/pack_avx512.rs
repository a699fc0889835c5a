//! Packing with AVX-512, 16 words of 16 lanes at a time: read along the contiguous direction,
//! rounded, and transposed in registers where the panel wants the other direction.

#![expect(unsafe_op_in_unsafe_fn, reason = "every line here is an intrinsic or pointer step")]

use std::arch::x86_64::*;

use half::bf16;

use super::matrix::Values;
use super::pack::{PANEL_LANES, Strip};
use super::path::{Format, Layout};

/// Words of a square.
const SIDE: usize = 16;

/// Forms of a word.
const F32: usize = 0;
const ROUNDED: usize = 1;
const PAIRS: usize = 2;
/// Pairs rounded by `vcvtne2ps2bf16`, which counts denormals as zeros, as the instructions that
/// take pairs do.
const FAST_PAIRS: usize = 3;

/// Values in memory.
trait Source: Copy {
    /// The value `index` values on.
    fn offset(self, index: usize) -> Self;
    /// Values that the mask names, as f32; zeros for the others.
    unsafe fn floats(self, mask: __mmask16) -> __m512;
    /// The first `count` of 32 values, rounded to bf16, in order.
    unsafe fn halves<const FORM: usize>(self, count: usize) -> __m512i;
    /// 16 pairs from two rows.
    unsafe fn pairs<const FORM: usize>(low: Self, high: Self, masks: [__mmask16; 2]) -> __m512i;
}

/// Masks of the first `count` lanes.
#[inline(always)]
fn mask16(count: usize) -> __mmask16 {
    if count >= 16 { !0 } else { (1 << count) - 1 }
}

#[inline(always)]
fn mask32(count: usize) -> __mmask32 {
    if count >= 32 { !0 } else { (1 << count) - 1 }
}

/// `bf16_bits` of 16 values, in the low halves of 32-bit lanes.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
fn round(values: __m512) -> __m512i {
    let bits = _mm512_castps_si512(values);
    let top = _mm512_srli_epi32::<16>(bits);
    let odd = _mm512_and_si512(top, _mm512_set1_epi32(1));
    let half = _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff));
    let rounded = _mm512_srli_epi32::<16>(_mm512_add_epi32(bits, half));
    let is_nan = _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(values, values);
    _mm512_mask_or_epi32(rounded, is_nan, top, _mm512_set1_epi32(0x40))
}

/// 32 bf16, those of `low` first.
///
/// # Safety
/// The machine has AVX512-BF16. (By `asm!`, since the intrinsic would not be inlined into
/// functions that are also for machines without.)
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
unsafe fn round_fast(low: __m512, high: __m512) -> __m512i {
    let out;
    std::arch::asm!(
        "vcvtne2ps2bf16 {out}, {high}, {low}",
        out = lateout(zmm_reg) out,
        high = in(zmm_reg) high,
        low = in(zmm_reg) low,
        options(pure, nomem, nostack, preserves_flags)
    );
    out
}

impl Source for *const f32 {
    #[inline(always)]
    fn offset(self, index: usize) -> Self {
        self.wrapping_add(index)
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
    unsafe fn floats(self, mask: __mmask16) -> __m512 {
        _mm512_maskz_loadu_ps(mask, self)
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
    unsafe fn halves<const FORM: usize>(self, count: usize) -> __m512i {
        let low = self.floats(mask16(count));
        let high = self.wrapping_add(16).floats(mask16(count.saturating_sub(16)));
        if FORM == FAST_PAIRS {
            return round_fast(low, high);
        }
        let low = _mm512_castsi256_si512(_mm512_cvtepi32_epi16(round(low)));
        _mm512_inserti64x4::<1>(low, _mm512_cvtepi32_epi16(round(high)))
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
    unsafe fn pairs<const FORM: usize>(low: Self, high: Self, masks: [__mmask16; 2]) -> __m512i {
        let (low, high) = (low.floats(masks[0]), high.floats(masks[1]));
        if FORM == FAST_PAIRS {
            return _mm512_permutexvar_epi16(interleaved(), round_fast(low, high));
        }
        _mm512_or_si512(round(low), _mm512_slli_epi32::<16>(round(high)))
    }
}

/// 0, 16, 1, 17, 2, 18 ...
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
fn interleaved() -> __m512i {
    let low = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
    let both = _mm512_or_si512(low, _mm512_slli_epi32::<16>(low));
    _mm512_add_epi32(both, _mm512_set1_epi32(16 << 16))
}

impl Source for *const bf16 {
    #[inline(always)]
    fn offset(self, index: usize) -> Self {
        self.wrapping_add(index)
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
    unsafe fn floats(self, mask: __mmask16) -> __m512 {
        let halves = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, self.cast()));
        _mm512_castsi512_ps(_mm512_slli_epi32::<16>(halves))
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
    unsafe fn halves<const FORM: usize>(self, count: usize) -> __m512i {
        _mm512_maskz_loadu_epi16(mask32(count), self.cast())
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
    unsafe fn pairs<const FORM: usize>(low: Self, high: Self, masks: [__mmask16; 2]) -> __m512i {
        let low = _mm256_maskz_loadu_epi16(masks[0], low.cast());
        let high = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(masks[1], high.cast()));
        _mm512_or_si512(_mm512_cvtepu16_epi32(low), _mm512_slli_epi32::<16>(high))
    }
}

/// # Safety
/// AVX-512 was detected; the strip's values were checked, and its target has the panels.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
pub(super) unsafe fn pack(strip: &Strip<'_>) {
    match strip.values {
        Values::F32(values) => pack_from(strip, values.as_ptr()),
        Values::Bf16(values) => pack_from(strip, values.as_ptr()),
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
unsafe fn pack_from<S: Source>(strip: &Strip<'_>, source: S) {
    match strip.format {
        Format::F32 => pack_as::<S, F32>(strip, source),
        Format::RoundedF32 => pack_as::<S, ROUNDED>(strip, source),
        Format::Pairs | Format::TilePairs if is_x86_feature_detected!("avx512bf16") => {
            pack_as::<S, FAST_PAIRS>(strip, source);
        }
        Format::Pairs | Format::TilePairs => pack_as::<S, PAIRS>(strip, source),
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
unsafe fn pack_as<S: Source, const FORM: usize>(strip: &Strip<'_>, source: S) {
    let num_panels = strip.num_lanes.div_ceil(PANEL_LANES);
    let num_squares = strip.num_words.div_ceil(SIDE);
    // Squares of which nothing is missing.
    let k_per_square = if FORM >= PAIRS { 2 * SIDE } else { SIDE };
    let aligned = strip.layout != Layout::Rows || strip.first_word.is_multiple_of(SIDE);
    let whole_squares =
        if aligned { (strip.num_k / k_per_square).min(strip.num_words / SIDE) } else { 0 };
    let whole_panels = strip.num_lanes / PANEL_LANES;
    if strip.k_stride == 1 {
        for panel in 0..num_panels {
            let whole = if panel < whole_panels { whole_squares } else { 0 };
            for square in 0..whole {
                along_k::<S, FORM, true>(strip, source, panel, square * SIDE);
            }
            for square in whole..num_squares {
                along_k::<S, FORM, false>(strip, source, panel, square * SIDE);
            }
        }
    } else {
        // Rows are long and panels far apart, so a few rows of all panels come first.
        for square in 0..num_squares {
            let whole = if square < whole_squares { whole_panels } else { 0 };
            for panel in 0..whole {
                along_lanes::<S, FORM, true>(strip, source, panel, square * SIDE);
            }
            for panel in whole..num_panels {
                along_lanes::<S, FORM, false>(strip, source, panel, square * SIDE);
            }
        }
    }
}

/// A square from a source whose k are contiguous.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
unsafe fn along_k<S: Source, const FORM: usize, const WHOLE: bool>(
    strip: &Strip<'_>,
    source: S,
    panel: usize,
    word: usize,
) {
    let lane = panel * PANEL_LANES;
    let k = if FORM >= PAIRS { 2 * word } else { word };
    let count = if WHOLE { 2 * SIDE } else { strip.num_k.saturating_sub(k) };
    let num_lanes = if WHOLE { PANEL_LANES } else { strip.num_lanes - lane };
    let first = source.offset(lane * strip.lane_stride + k);
    let mut rows = [_mm512_setzero_si512(); SIDE];
    for (i, row) in rows.iter_mut().enumerate() {
        if i < num_lanes {
            let from = first.offset(i * strip.lane_stride);
            *row = match FORM {
                F32 => _mm512_castps_si512(from.floats(mask16(count))),
                ROUNDED => _mm512_slli_epi32::<16>(round(from.floats(mask16(count)))),
                _ => from.halves::<FORM>(count),
            };
        }
    }
    if strip.layout == Layout::Rows {
        store_rows::<WHOLE>(strip, panel, word, &rows);
    } else {
        transpose(&mut rows);
        store_words::<WHOLE>(strip, panel, word, &rows);
    }
}

/// A square from a source whose lanes are contiguous.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
unsafe fn along_lanes<S: Source, const FORM: usize, const WHOLE: bool>(
    strip: &Strip<'_>,
    source: S,
    panel: usize,
    word: usize,
) {
    let lane = panel * PANEL_LANES;
    // No lanes where k ends.
    let mask = |k: usize| match WHOLE {
        true => !0,
        false if k < strip.num_k => mask16(strip.num_lanes - lane),
        false => 0,
    };
    let row = |k: usize| source.offset(lane + k * strip.k_stride);
    let mut words = [_mm512_setzero_si512(); SIDE];
    for (i, out) in words.iter_mut().enumerate() {
        let word = word + i;
        *out = match FORM {
            F32 => _mm512_castps_si512(row(word).floats(mask(word))),
            ROUNDED => _mm512_slli_epi32::<16>(round(row(word).floats(mask(word)))),
            _ => {
                let k = 2 * word;
                S::pairs::<FORM>(row(k), row(k + 1), [mask(k), mask(k + 1)])
            }
        };
    }
    if strip.layout == Layout::Rows {
        transpose(&mut words);
        store_rows::<WHOLE>(strip, panel, word, &words);
    } else {
        store_words::<WHOLE>(strip, panel, word, &words);
    }
}

/// Stores `[word][lane]`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
unsafe fn store_words<const WHOLE: bool>(
    strip: &Strip<'_>,
    panel: usize,
    word: usize,
    words: &[__m512i; SIDE],
) {
    let count = if WHOLE { SIDE } else { SIDE.min(strip.num_words - word) };
    let word = strip.first_word + word;
    let target = strip.target.add(panel * strip.panel_words);
    if strip.layout == Layout::Halves {
        let lower = target.add(word * PANEL_LANES / 2);
        let upper = lower.add(strip.panel_words / 2);
        for (i, &words) in words.iter().enumerate() {
            if i < count {
                let at = i * PANEL_LANES / 2;
                _mm256_storeu_si256(lower.add(at).cast(), _mm512_castsi512_si256(words));
                _mm256_storeu_si256(upper.add(at).cast(), _mm512_extracti64x4_epi64::<1>(words));
            }
        }
    } else {
        let target = target.add(word * PANEL_LANES);
        for (i, &words) in words.iter().enumerate() {
            if i < count {
                _mm512_storeu_si512(target.add(i * PANEL_LANES).cast(), words);
            }
        }
    }
}

/// Stores `[lane][word]`, perhaps parts of two tiles of AMX.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
unsafe fn store_rows<const WHOLE: bool>(
    strip: &Strip<'_>,
    panel: usize,
    word: usize,
    rows: &[__m512i; SIDE],
) {
    let count = if WHOLE { SIDE } else { SIDE.min(strip.num_words - word) };
    let word = strip.first_word + word;
    let target = strip.target.add(panel * strip.panel_words);
    if WHOLE {
        let target = target.add(word * PANEL_LANES);
        for (lane, &row) in rows.iter().enumerate() {
            _mm512_storeu_si512(target.add(lane * SIDE).cast(), row);
        }
        return;
    }
    let split = SIDE - word % SIDE;
    for (lane, &row) in rows.iter().enumerate() {
        let at = |word: usize| target.add(Layout::Rows.index(strip.panel_words, word, lane));
        let first = mask16(count.min(split));
        _mm512_mask_storeu_epi32(at(word).cast(), first, row);
        if count > split {
            let rest = mask16(count) & !first;
            // The mask leaves out what lies before the tile.
            _mm512_mask_storeu_epi32(at(word + split).wrapping_sub(split).cast(), rest, row);
        }
    }
}

/// Exchanges rows and columns of 16 x 16 words.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
fn transpose(rows: &mut [__m512i; SIDE]) {
    // Words within blocks of 2 x 2, pairs within blocks of 4 x 4, then the quarters.
    let mut t = *rows;
    for i in 0..8 {
        t[2 * i] = _mm512_unpacklo_epi32(rows[2 * i], rows[2 * i + 1]);
        t[2 * i + 1] = _mm512_unpackhi_epi32(rows[2 * i], rows[2 * i + 1]);
    }
    let mut q = t;
    for i in 0..4 {
        // q[4 i + j]: column j (of each quarter of four) of rows 4 i .. 4 i + 4.
        q[4 * i] = _mm512_unpacklo_epi64(t[4 * i], t[4 * i + 2]);
        q[4 * i + 1] = _mm512_unpackhi_epi64(t[4 * i], t[4 * i + 2]);
        q[4 * i + 2] = _mm512_unpacklo_epi64(t[4 * i + 1], t[4 * i + 3]);
        q[4 * i + 3] = _mm512_unpackhi_epi64(t[4 * i + 1], t[4 * i + 3]);
    }
    for j in 0..4 {
        let [a, b, c, d] = [q[j], q[4 + j], q[8 + j], q[12 + j]];
        let ab_even = _mm512_shuffle_i32x4::<0b10_00_10_00>(a, b);
        let ab_odd = _mm512_shuffle_i32x4::<0b11_01_11_01>(a, b);
        let cd_even = _mm512_shuffle_i32x4::<0b10_00_10_00>(c, d);
        let cd_odd = _mm512_shuffle_i32x4::<0b11_01_11_01>(c, d);
        rows[j] = _mm512_shuffle_i32x4::<0b10_00_10_00>(ab_even, cd_even);
        rows[8 + j] = _mm512_shuffle_i32x4::<0b11_01_11_01>(ab_even, cd_even);
        rows[4 + j] = _mm512_shuffle_i32x4::<0b10_00_10_00>(ab_odd, cd_odd);
        rows[12 + j] = _mm512_shuffle_i32x4::<0b11_01_11_01>(ab_odd, cd_odd);
    }
}
