//! The kernels of each instruction path and kind of cache, as tables of functions.

use super::float::{self, StoredBf16, StoredF32};
use super::q8;
use super::tile::{self, RowState, Softmax, Tile};
use crate::Isa;
use crate::kv::KvKind;
use crate::vector::Level;

/// The functions that one kind of cache needs on one instruction path. All are unsafe to call:
/// the machine must have the path, which [`kernels`] sees to, and pointers must be as the
/// generic functions of the same names say.
pub(super) struct Kernels {
    pub(super) pack_query:
        unsafe fn(*const f32, usize, *mut u8, usize, usize, usize, f32) -> RowState,
    /// Bytes of a packed query per value of the padded dimension.
    pub(super) query_bytes: usize,
    /// For tiles of 1, 2, ... rows.
    pub(super) tiles: &'static [TileKernels],
    /// Rows of a tile where there are more than one tile can have: what uses registers best.
    pub(super) tile_rows: usize,
    pub(super) softmax: unsafe fn(&Tile, &mut [RowState]),
    pub(super) merge: unsafe fn(*mut f32, &mut Softmax, *const f32, Softmax, usize),
    pub(super) finish: unsafe fn(*const f32, f32, *mut f32, usize),
}

/// The products of a tile with keys and with values.
#[derive(Clone, Copy)]
pub(super) struct TileKernels {
    pub(super) scores: unsafe fn(&Tile),
    pub(super) values: unsafe fn(&Tile),
    /// The same with prefetches, for keys and values that are used once.
    pub(super) stream_scores: unsafe fn(&Tile),
    pub(super) stream_values: unsafe fn(&Tile),
}

/// The kernels for `isa`, or for the best that this machine has below it.
pub(super) fn kernels(isa: Isa, kind: KvKind) -> &'static Kernels {
    let [f32, bf16, q8] = match Level::of(isa) {
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 => [&avx512::F32, &avx512::BF16, &avx512::Q8],
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => [&avx2::F32, &avx2::BF16, &avx2::Q8],
        _ => [&portable::F32, &portable::BF16, &portable::Q8],
    };
    match kind {
        KvKind::F32 => f32,
        KvKind::Bf16 => bf16,
        KvKind::Q8 => q8,
    }
}

/// Compiles the kernels for one path. For each number of rows in a tile: how many vectors of
/// keys, and of values, are held against them; accumulators must fit the registers.
macro_rules! level {
    ($level:ident, $simd:expr, { $(#[$attribute:meta])* },
        float: [$(($float_rows:literal, $float_keys:literal, $float_values:literal)),*],
        q8: [$(($q8_rows:literal, $q8_keys:literal, $q8_values:literal)),*],
        tile_rows: ($float_tile:literal, $q8_tile:literal)) => {
        #[expect(
            clippy::undocumented_unsafe_blocks,
            reason = "one reason for all: these only add the target features; the contract is \
                      that of the function they call, and the caller's"
        )]
        mod $level {
            use super::*;

            $(#[$attribute])*
            unsafe fn float_pack_query(
                q: *const f32, len: usize, out: *mut u8, row: usize, num_rows: usize, dim: usize,
                scale: f32,
            ) -> RowState {
                unsafe { float::pack_query(q, len, out, row, num_rows, dim, scale) }
            }

            $(#[$attribute])*
            unsafe fn float_scores<
                T: float::Stored, const R: usize, const N: usize, const STREAM: bool,
            >(tile: &Tile) {
                unsafe { float::scores::<_, T, R, N, STREAM>($simd, tile) }
            }

            $(#[$attribute])*
            unsafe fn float_values<
                T: float::Stored, const R: usize, const N: usize, const STREAM: bool,
            >(tile: &Tile) {
                unsafe { float::values::<_, T, R, N, STREAM>($simd, tile) }
            }

            $(#[$attribute])*
            unsafe fn float_softmax(tile: &Tile, rows: &mut [RowState]) {
                unsafe { float::softmax($simd, tile, rows) }
            }

            $(#[$attribute])*
            unsafe fn q8_pack_query(
                q: *const f32, len: usize, out: *mut u8, row: usize, num_rows: usize, dim: usize,
                scale: f32,
            ) -> RowState {
                unsafe { q8::pack_query($simd, q, len, out, row, num_rows, dim, scale) }
            }

            $(#[$attribute])*
            unsafe fn q8_scores<const R: usize, const N: usize, const STREAM: bool>(tile: &Tile) {
                unsafe { q8::scores::<_, R, N, STREAM>($simd, tile) }
            }

            $(#[$attribute])*
            unsafe fn q8_values<const R: usize, const N: usize, const STREAM: bool>(tile: &Tile) {
                unsafe { q8::values::<_, R, N, STREAM>($simd, tile) }
            }

            $(#[$attribute])*
            unsafe fn q8_softmax(tile: &Tile, rows: &mut [RowState]) {
                unsafe { q8::softmax($simd, tile, rows) }
            }

            $(#[$attribute])*
            unsafe fn merge(
                state: *mut f32, total: &mut Softmax, acc: *const f32, chunk: Softmax, dim: usize,
            ) {
                unsafe { tile::merge($simd, state, total, acc, chunk, dim) }
            }

            $(#[$attribute])*
            unsafe fn finish(state: *const f32, sum: f32, out: *mut f32, len: usize) {
                unsafe { tile::finish($simd, state, sum, out, len) }
            }

            pub(super) static F32: Kernels = Kernels {
                pack_query: float_pack_query,
                query_bytes: 4,
                tile_rows: $float_tile,
                tiles: &[$(TileKernels {
                    scores: float_scores::<StoredF32, $float_rows, $float_keys, false>,
                    values: float_values::<StoredF32, $float_rows, $float_values, false>,
                    stream_scores: float_scores::<StoredF32, $float_rows, $float_keys, true>,
                    stream_values: float_values::<StoredF32, $float_rows, $float_values, true>,
                }),*],
                softmax: float_softmax,
                merge,
                finish,
            };

            pub(super) static BF16: Kernels = Kernels {
                tiles: &[$(TileKernels {
                    scores: float_scores::<StoredBf16, $float_rows, $float_keys, false>,
                    values: float_values::<StoredBf16, $float_rows, $float_values, false>,
                    stream_scores: float_scores::<StoredBf16, $float_rows, $float_keys, true>,
                    stream_values: float_values::<StoredBf16, $float_rows, $float_values, true>,
                }),*],
                ..F32
            };

            pub(super) static Q8: Kernels = Kernels {
                pack_query: q8_pack_query,
                query_bytes: 2,
                tile_rows: $q8_tile,
                tiles: &[$(TileKernels {
                    scores: q8_scores::<$q8_rows, $q8_keys, false>,
                    values: q8_values::<$q8_rows, $q8_values, false>,
                    stream_scores: q8_scores::<$q8_rows, $q8_keys, true>,
                    stream_values: q8_values::<$q8_rows, $q8_values, true>,
                }),*],
                softmax: q8_softmax,
                merge,
                finish,
            };
        }
    };
}

level!(
    portable, crate::vector::Portable, {},
    float: [(1, 2, 1), (2, 2, 1)],
    q8: [(1, 2, 1), (2, 2, 1)],
    tile_rows: (2, 2)
);

#[cfg(target_arch = "x86_64")]
level!(
    avx2, crate::vector::Avx2::new(), { #[target_feature(enable = "avx2,fma,f16c")] },
    float: [(1, 4, 4), (2, 2, 2)],
    q8: [(1, 2, 2), (2, 1, 1)],
    tile_rows: (2, 2)
);

#[cfg(target_arch = "x86_64")]
level!(
    avx512, crate::vector::Avx512::new(), {
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
    },
    float: [(1, 8, 8), (2, 8, 8), (3, 4, 4), (4, 4, 4), (5, 4, 4), (6, 4, 4)],
    q8: [(1, 8, 8), (2, 4, 4), (3, 4, 4), (4, 2, 2)],
    tile_rows: (6, 3)
);
