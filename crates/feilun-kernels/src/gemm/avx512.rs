//! The inner loops with AVX-512: tiles of 8 rows and up to 48 columns, 24 sums in registers,
//! for 8 broadcasts and 3 loads of each step.

#![expect(unsafe_op_in_unsafe_fn, reason = "every line here is an intrinsic or pointer step")]

use std::arch::x86_64::*;

use super::finish::Finish;
use super::micro::{HALF_LANES, Micro, TILE_PANELS, Tile};

/// f32 FMA.
pub(super) struct Avx512;

/// `vdpbf16ps`.
pub(super) struct Avx512Bf16;

macro_rules! micro {
    ($path:ident, $function:ident) => {
        impl Micro for $path {
            const ROWS: usize = HALF_LANES;
            const PANELS: usize = TILE_PANELS;

            #[inline]
            unsafe fn multiply(
                &mut self,
                words: usize,
                left: [*const u32; 2],
                _: usize,
                right: [*const u32; TILE_PANELS],
                panels: usize,
                tile: &mut Tile,
            ) {
                match panels {
                    1 => $function::<1>(words, left[0], right, tile),
                    2 => $function::<2>(words, left[0], right, tile),
                    _ => $function::<3>(words, left[0], right, tile),
                }
            }

            #[inline]
            unsafe fn finish(
                &self,
                f: &Finish,
                tile: &Tile,
                rows: (usize, usize),
                cols: (usize, usize),
            ) {
                finish(f, tile, rows, cols);
            }
        }
    };
}

micro!(Avx512, tile_f32);
micro!(Avx512Bf16, tile_bf16);

/// # Safety
/// AVX-512 is there; as [`Finish::write`].
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
pub(super) unsafe fn finish(f: &Finish, tile: &Tile, rows: (usize, usize), cols: (usize, usize)) {
    f.write(tile, rows, cols);
}

/// # Safety
/// AVX-512 is there, and the operands have so many words.
#[target_feature(enable = "avx512f")]
unsafe fn tile_f32<const PANELS: usize>(
    words: usize,
    left: *const u32,
    right: [*const u32; TILE_PANELS],
    tile: &mut Tile,
) {
    let mut sums = [[_mm512_setzero_ps(); PANELS]; HALF_LANES];
    for word in 0..words {
        let b: [__m512; PANELS] =
            std::array::from_fn(|i| _mm512_loadu_ps(right[i].add(word * 16).cast()));
        for (r, sums) in sums.iter_mut().enumerate() {
            let a = _mm512_set1_ps(left.add(word * HALF_LANES + r).cast::<f32>().read());
            for (sum, b) in sums.iter_mut().zip(b) {
                *sum = _mm512_fmadd_ps(a, b, *sum);
            }
        }
    }
    store(&sums, tile);
}

/// # Safety
/// AVX-512 with BF16 is there, and the operands have so many words.
#[target_feature(enable = "avx512f,avx512bf16")]
unsafe fn tile_bf16<const PANELS: usize>(
    words: usize,
    left: *const u32,
    right: [*const u32; TILE_PANELS],
    tile: &mut Tile,
) {
    let mut sums = [[_mm512_setzero_ps(); PANELS]; HALF_LANES];
    for word in 0..words {
        let b: [__m512bh; PANELS] =
            std::array::from_fn(|i| right[i].add(word * 16).cast::<__m512bh>().read_unaligned());
        for (r, sums) in sums.iter_mut().enumerate() {
            let a = _mm512_set1_epi32(left.add(word * HALF_LANES + r).cast::<i32>().read());
            let a: __m512bh = std::mem::transmute(a);
            for (sum, b) in sums.iter_mut().zip(b) {
                *sum = _mm512_dpbf16_ps(*sum, a, b);
            }
        }
    }
    store(&sums, tile);
}

/// # Safety
/// AVX-512 is there.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn store<const PANELS: usize>(sums: &[[__m512; PANELS]; HALF_LANES], tile: &mut Tile) {
    for (out, sums) in tile.0.iter_mut().zip(sums) {
        for (i, &sum) in sums.iter().enumerate() {
            _mm512_storeu_ps(out.as_mut_ptr().add(16 * i), sum);
        }
    }
}
